"""Run cards: what produced a result, beside the result.

A card names command, job, seed, inputs, outputs and code by hash, git commit, versions, hardware,
wall time and peak memory, so that every cell of a table can be traced.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from mscl.machine.files import sha256, write_json
from mscl.stages.jobs import Job
from mscl.stages.layout import CARD
from mscl.stages.table import STAGES

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "opencv-python-headless", "simplejpeg", "pydantic", "snakemake")


def _commit() -> str:
    """Commit of the code that runs, with '+' when it differs from it; '' outside a repository."""
    here = Path(__file__).parents[1]
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if dirty else "")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _hardware() -> dict[str, str | int]:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        cpu = names[0] if names else cpu
    found: dict[str, str | int] = {"cpu": cpu, "cores": len(os.sched_getaffinity(0))}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def peak_memory_mb() -> float:
    """Largest resident size of this process or any finished child, MB."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) / 1024


@contextlib.contextmanager
def run_card(out: Path, stage: str, job: Job, outputs: Iterable[Path]) -> Iterator[None]:
    """Write `out`/run.json when the body has ended well; an older card goes first, so none describes a failed run.

    Inputs are what the job says that it reads; of a store its indexes, which hold the hashes of their tars.
    """
    if int(os.environ.get("RANK", 0)):  # of several processes the first writes it
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / CARD).unlink(missing_ok=True)
    started, clock = datetime.now(UTC), time.monotonic()
    code = STAGES[stage].code_hashes(job)  # of the files as they are at the start: an edit during a long run is not what ran
    yield
    settings = job.model_dump(mode="json")
    card = {
        "stage": stage,
        "command": ["python", "-m", "mscl", *sys.argv[1:]],
        "job": settings,
        "seed": settings.get("seed"),
        "threads": settings.get("threads"),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "inputs": {str(p): sha256(p) for kind, paths in job.reads().items() if kind != "tars" for p in paths},
        "outputs": {str(p): sha256(p) for p in outputs},
        "code": code,
        "git_commit": _commit(),
        "versions": _versions(),
        "hardware": _hardware(),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(time.monotonic() - clock, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
    write_json(out / CARD, card)
