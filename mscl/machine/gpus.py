"""Which GPUs this process may use and which of them are free, determined without torch, so that the workflow can use it too.

On a machine with several GPUs each job claims its own by lock files, so that jobs that start together use different GPUs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

_claimed: list[int] = []  # open lock files of this process; a GPU is free again when the process ends, for whatever reason


def visible(device_files: Path = Path("/dev")) -> list[str]:
    """Names of the GPUs that CUDA would use, as in CUDA_VISIBLE_DEVICES. Like CUDA, it stops at the first invalid name."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in given.split(",")]
        end = next((i for i, name in enumerate(names) if not name or name.startswith("-") or name == "NoDevFiles"), len(names))
        return names[:end]
    count = sum(path.name[6:].isdigit() for path in device_files.glob("nvidia*"))
    return [str(n) for n in range(count or _count_by_driver())]


def _count_by_driver() -> int:
    """Number of GPUs by nvidia-smi, for systems without GPU device files such as WSL; 0 without NVIDIA's driver."""
    if (program := shutil.which("nvidia-smi")) is None:
        return 0
    try:
        run = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return 0 if run.returncode else sum(line.startswith("GPU ") for line in run.stdout.splitlines())


def claim(names: list[str], count: int = 1, folder: Path | None = None) -> list[int]:
    """Claim the first `count` GPUs of `names` that no other mscl process holds; returns their positions in `names`.

    There is one lock file per GPU, in `folder`. By default the folder is per machine, or per Slurm job, because GPU names
    inside a Slurm job may be local to the job. Raises ValueError if fewer are free (then none is claimed) or `folder` belongs
    to another user.
    """
    folder = folder or _lock_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    kind = folder.lstat()
    if not stat.S_ISDIR(kind.st_mode) or kind.st_uid != os.getuid():  # every user can write to /tmp
        raise ValueError(f"{folder}: not a folder that you own; remove it, or set TMPDIR to a folder that you own")
    held: dict[int, int] = {}
    for position, name in enumerate(names):
        if len(held) < count and (handle := _lock(folder / f"{name.strip().replace('/', '_')}.lock")) is not None:
            held[position] = handle
    if len(held) < count:
        for handle in held.values():
            os.close(handle)
        free = (
            f"{len(held)} of {len(names)} GPUs are free, but {count} are needed" if held else f"all {len(names)} GPUs are taken"
        )
        raise ValueError(f"{free}: other jobs use the rest; run snakemake with --resources gpu={len(names)}")
    _claimed.extend(held.values())
    return list(held)


def _lock_folder() -> Path:
    place = f"mscl-gpus-{os.getuid()}"
    if job := os.environ.get("SLURM_JOB_ID"):
        place += f"-{job}"
    return Path(tempfile.gettempdir()) / place


def _lock(path: Path) -> int | None:
    """A file descriptor that holds the lock; None if another process holds it."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno != errno.EWOULDBLOCK:
            raise
        return None
    return handle


def claim_for_processes(processes: int) -> None:
    """Claim one GPU per process for the program that replaces this process (exec) and its children; sets CUDA_VISIBLE_DEVICES.

    Does nothing without a GPU. Raises ValueError if there are fewer GPUs than processes, or too few are free.
    """
    names = visible()
    if not names:
        return
    if len(names) < processes:
        raise ValueError(
            f"compute.processes: {processes} processes need one GPU each, but {len(names)} can be used here; "
            "lower compute.processes, or set compute.device: cpu"
        )
    chosen = claim(names, processes)
    for handle in _claimed:
        os.set_inheritable(handle, True)  # the locks survive exec
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[position] for position in chosen)
