"""Which GPUs this process may use, and which of them is free: told without torch, so that the workflow can ask, too.

On a machine with several GPUs each job takes its own by lock files, so that jobs which start together do not meet.
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

_claimed: list[int] = []  # handles of lock files of this process; the GPU is free again when the process ends, however it ends


def visible(device_files: Path = Path("/dev")) -> list[str]:
    """Names of the GPUs that CUDA would show here, as CUDA_VISIBLE_DEVICES has them; as CUDA does, it stops at the first that is none."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in given.split(",")]
        end = next((i for i, name in enumerate(names) if not name or name.startswith("-") or name == "NoDevFiles"), len(names))
        return names[:end]
    count = sum(path.name[6:].isdigit() for path in device_files.glob("nvidia*"))
    return [str(n) for n in range(count or _told_by_driver())]


def _told_by_driver() -> int:
    """GPUs without device files of their own, as under WSL; 0 without NVIDIA's driver."""
    if (program := shutil.which("nvidia-smi")) is None:
        return 0
    try:
        run = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return 0 if run.returncode else sum(line.startswith("GPU ") for line in run.stdout.splitlines())


def claim(names: list[str], count: int = 1, folder: Path | None = None) -> list[int]:
    """Take the first `count` GPUs of `names` that no other mscl process holds; returns their positions.

    A lock file per GPU: of this machine, or of this Slurm job, since a job of Slurm may have GPUs with names of its own.
    ValueError when fewer are free; then none is held.
    """
    folder = folder or _lock_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    kind = folder.lstat()
    if not stat.S_ISDIR(kind.st_mode) or kind.st_uid != os.getuid():  # anybody may write to /tmp
        raise ValueError(f"{folder}: not a folder of yours; remove it, or set TMPDIR to one that is")
    held: dict[int, int] = {}
    for position, name in enumerate(names):
        if len(held) < count and (handle := _lock(folder / f"{name.strip().replace('/', '_')}.lock")) is not None:
            held[position] = handle
    if len(held) < count:
        for handle in held.values():
            os.close(handle)
        free = f"{len(held)} of {len(names)} GPUs are free and {count} are needed" if held else f"all {len(names)} GPUs are taken"
        raise ValueError(f"{free}: other jobs hold the rest; run snakemake with --resources gpu={len(names)}")
    _claimed.extend(held.values())
    return list(held)


def _lock_folder() -> Path:
    place = f"mscl-gpus-{os.getuid()}"
    if job := os.environ.get("SLURM_JOB_ID"):
        place += f"-{job}"
    return Path(tempfile.gettempdir()) / place


def _lock(path: Path) -> int | None:
    """A handle that holds the lock, None where another process does."""
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
    """Keep for the program that this process becomes, and for its children, one GPU per process: CUDA_VISIBLE_DEVICES names them.

    Nothing to do where there is no GPU. ValueError when there are fewer GPUs than processes, or too few are free.
    """
    names = visible()
    if not names:
        return
    if len(names) < processes:
        raise ValueError(
            f"compute.processes: {processes} processes need a GPU each and {len(names)} can be used here; "
            "lower it, or set compute.device: cpu"
        )
    chosen = claim(names, processes)
    for handle in _claimed:
        os.set_inheritable(handle, True)  # the locks outlive exec
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[position] for position in chosen)
