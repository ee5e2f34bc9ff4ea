"""The overhead of Snakemake: a run by Snakemake compared with the same commands by hand, and the time of a dry run.

    python -m benchmarks.overhead [--config config.yaml] [--repeats 1] [--keep FOLDER]

Both run the same commands one after another, each in its own folder, from generated videos to the report: Snakemake with one
core, and a shell in the order of Snakemake's plan. The paths of the configuration must be relative and its data sets generated
(embedded).
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
    """The wall time in seconds and the output of a Snakemake command in `folder`."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "1", *arguments]
    return timed(folder, [*command, "--configfile", "config.yaml"])


def timed(folder: Path, command: list[str]) -> tuple[float, str]:
    """The wall time in seconds and the output of a command in `folder`. If it fails, the benchmark ends with its output."""
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
    """The commands that Snakemake would run in `folder`, in a possible order."""
    plan = snakemake(folder, "-n", "-p", "--forceall")[1]
    found = [line.removeprefix(SHOWN) for line in plan.splitlines() if line.startswith(SHOWN)]
    return [command for command in found if command != "None"]  # a rule without a command


def by_hand(folder: Path, todo: list[str]) -> float:
    """The wall time in seconds of the commands, one after another. Folders are made before, and this time is not counted."""
    seconds = 0.0
    for command in todo:
        for word, after in zip(words := shlex.split(command), words[1:]):
            if word in ("--out", "--records", "tee", "-a") and not after.startswith("-"):
                (folder / after).parent.mkdir(parents=True, exist_ok=True)
        seconds += timed(folder, ["bash", "-c", f"set -euo pipefail; {command}"])[0]
    return seconds


def check(config: Config) -> None:
    """End the benchmark if the configuration has absolute paths or data sets that are not generated."""
    given = [name for name, data in config.datasets.items() if not data.embedded or data.root.is_absolute()]
    if given or config.paths.data.is_absolute() or config.paths.results.is_absolute():
        raise SystemExit(
            f"these must be relative to the working folder, and data sets must be embedded: {', '.join(given) or 'paths'}"
        )


def measure(config: Path, folder: Path) -> dict[str, float]:
    """The number of jobs and all times in seconds of one repetition."""
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
        raise SystemExit(f"no report was written: {', '.join(absent)}")
    return {"jobs": len(todo), "by hand": hand, "by Snakemake": whole, "dry run before": fresh, "dry run after": finished}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="run in this folder and keep the files")
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
    times = [f"{middle[what]:.1f} s" for what in ("by hand", "by Snakemake", "dry run before", "dry run after")]
    times.insert(2, f"{middle['by Snakemake'] / middle['by hand']:.3f}")
    print(f"| {middle['jobs']:.0f} | {' | '.join(times)} |")


if __name__ == "__main__":
    main()
