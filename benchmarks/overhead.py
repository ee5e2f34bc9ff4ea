"""What Snakemake costs: a configuration run by Snakemake against the same commands by hand, and the seconds of a dry run.

    python -m benchmarks.overhead [--config config.yaml] [--repeats 1] [--keep FOLDER]

Both run the very same commands one after another, each in a folder of its own, from generated videos to the report: Snakemake with one
core, and a shell in the order of Snakemake's plan. The configuration's paths must be relative and its data sets embedded.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine, versions
from mscl.config.schema import Config, load_config

ROOT = Path(__file__).resolve().parents[1]
SHOWN = "Shell command: "


def snakemake(folder: Path, *arguments: str) -> tuple[float, str]:
    """Seconds and output of a call of the workflow in `folder`."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "1", *arguments]
    return timed(folder, [*command, "--configfile", "config.yaml"])


def timed(folder: Path, command: list[str]) -> tuple[float, str]:
    """Seconds and output of a command in `folder`; ends the benchmark with its output when it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # One thread, as Snakemake gives a job of one core.
    environment = (
        os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    )
    started = time.monotonic()
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    if run.returncode:
        raise SystemExit(f"{shlex.join(command)[:300]}\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return time.monotonic() - started, run.stdout + run.stderr


def commands(folder: Path) -> list[str]:
    """What Snakemake would run in `folder`, in an order that it would run it in."""
    plan = snakemake(folder, "-n", "-p", "--forceall")[1]
    found = [line.removeprefix(SHOWN) for line in plan.splitlines() if line.startswith(SHOWN)]
    return [command for command in found if command != "None"]  # of a rule that only names files


def by_hand(folder: Path, todo: list[str]) -> float:
    """Seconds of the commands, one after another; the folders that Snakemake would make are made outside the clock."""
    seconds = 0.0
    for command in todo:
        for word, after in zip(words := shlex.split(command), words[1:]):
            if word in ("--out", "--records", "tee", "-a") and not after.startswith("-"):
                (folder / after).parent.mkdir(parents=True, exist_ok=True)
        seconds += timed(folder, ["bash", "-c", f"set -euo pipefail; {command}"])[0]
    return seconds


def check(config: Config) -> None:
    given = [name for name, data in config.datasets.items() if not data.embedded or data.root.is_absolute()]
    if given or config.paths.data.is_absolute() or config.paths.results.is_absolute():
        raise SystemExit(f"paths and embedded data sets must be relative to the working folder: {', '.join(given) or 'paths'}")


def measure(config: Path, folder: Path) -> dict[str, float]:
    for name in ("snakemake", "hand"):
        (folder / name).mkdir(parents=True)
        shutil.copy(config, folder / name / "config.yaml")
    todo = commands(folder / "hand")
    fresh = snakemake(folder / "snakemake", "-n")[0]
    whole = snakemake(folder / "snakemake")[0]
    finished = snakemake(folder / "snakemake", "-n")[0]
    hand = by_hand(folder / "hand", todo)
    page = f"{load_config(config).paths.results}/report/index.html"
    absent = [str(folder / name / page) for name in ("snakemake", "hand") if not (folder / name / page).exists()]
    if absent:
        raise SystemExit(f"no report where one should be: {', '.join(absent)}")
    return {"jobs": len(todo), "by hand": hand, "by Snakemake": whole, "dry run before": fresh, "dry run after": finished}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="run here, and leave what was made")
    given = parser.parse_args()
    check(load_config(given.config))
    found = []
    for repeat in range(given.repeats):
        folder = (given.keep or Path(tempfile.mkdtemp(prefix="overhead-"))) / str(repeat)
        found.append(measure(given.config.resolve(), folder))
        if not given.keep:
            shutil.rmtree(folder.parent)
    middle = {what: statistics.median(f[what] for f in found) for what in found[0]}
    print(f"{machine()}; {versions('snakemake', 'torch')}; {given.config.name}, {given.repeats} time(s), medians\n")
    print("| Jobs | By hand | By Snakemake | Ratio | Dry run before | Dry run after |\n|---|---|---|---|---|---|")
    print(f"| {middle['jobs']:.0f} | {middle['by hand']:.1f} s | {middle['by Snakemake']:.1f} s "
          f"| {middle['by Snakemake'] / middle['by hand']:.3f} "
          f"| {middle['dry run before']:.1f} s | {middle['dry run after']:.1f} s |")  # fmt: skip


if __name__ == "__main__":
    main()
