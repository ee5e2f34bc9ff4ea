"""Run cards: a record of the run that produced a result.

A card holds the command, the job, the seed, the hashes of inputs, outputs and code, the git commit, package versions, hardware,
wall time (s) and peak memory (MB), so that every cell of a table can be traced.
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

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "opencv-python-headless", "simplejpeg", "pydantic", "snakemake")


def commit_of(checkout: Path) -> tuple[str, str]:
    """(git commit of `checkout`, with '+' when it has local changes; why it is empty).

    The commit of a repository around the checkout is not taken: it says nothing about this code.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()

    try:
        top = git("rev-parse", "--show-toplevel")
        if Path(top).resolve() != checkout.resolve():
            return "", "the code is not a git repository of its own, it lies in another one"
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "mscl") else ""), ""
    except FileNotFoundError:
        return "", "git is not installed"
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        if "not a git repository" in said:
            return "", "the code is not in a git repository"
        return "", f"git says: {said.splitlines()[0].removeprefix('fatal: ')}" if said else "git failed"


def _versions() -> dict[str, str]:
    """The versions of Python and of the main packages."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _hardware() -> dict[str, str | int]:
    """The CPU, the number of cores that this process may use, and the GPU if there is one."""
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
    """The largest resident memory of this process or of any finished child process, in MB."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) / 1024


@contextlib.contextmanager
def run_card(out: Path, stage: str, job: Job, outputs: Iterable[Path]) -> Iterator[None]:
    """Context manager that writes `out`/run.json when its body ends without an error.

    An older card is deleted first, so that no card describes a failed run. The inputs are the files that the job reads; of a
    store these are the indexes, which contain the hashes of their tars. With several processes only the first (RANK 0) writes a
    card.
    """
    if int(os.environ.get("RANK", 0)):
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / CARD).unlink(missing_ok=True)
    started, clock = datetime.now(UTC), time.monotonic()
    code = STAGES[stage].code_hashes(job)  # at the start: an edit of the code during a long run does not affect the run
    yield
    settings = job.model_dump(mode="json")
    commit, why = commit_of(CHECKOUT)
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
        "git_commit": commit,
        "no_git_commit": why,
        "versions": _versions(),
        "hardware": _hardware(),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(time.monotonic() - clock, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
    write_json(out / CARD, card)
