from __future__ import annotations

import argparse
import datetime
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.gpu import __doc__ as about
from benchmarks.gpu import report
from benchmarks.gpu.bench import Bench, bench_config
from benchmarks.gpu.checks import checks
from benchmarks.gpu.feeding import feeding
from benchmarks.gpu.flow import flow
from benchmarks.gpu.learning import learning
from benchmarks.gpu.steps import kernels, steps
from benchmarks.gpu.targets import targets
from mscl.training.hardware import prepare_device

# Section -> its share of the minutes.
SECTIONS = {checks: 0.1, steps: 0.2, kernels: 0.15, targets: 0.05, flow: 0.15, feeding: 0.1, learning: 0.25}


def main() -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the report and the rates")
    parser.add_argument("--config", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--only", nargs="*", choices=[s.__name__ for s in SECTIONS], help="measure these sections only")
    a = parser.parse_args()
    began, clock = datetime.datetime.now(), time.monotonic()
    device = prepare_device("auto", 1)
    asked = {s: share for s, share in SECTIONS.items() if not a.only or s.__name__ in a.only}
    a.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mscl-gpu-") as folder:
        bench = Bench(bench_config(a.config, device.type == "cuda"), device, Path(folder))
        print(report.device_name(bench), flush=True)
        for section, share in asked.items():
            bench.until = time.monotonic() + 60 * a.minutes * share / sum(asked.values())
            try:
                section(bench)
            except Exception as error:  # noqa: BLE001 one section that fails must not lose the others
                traceback.print_exc()
                bench.note(section.__name__, f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            paths = report.write(bench, a.out, began, time.monotonic() - clock)
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
