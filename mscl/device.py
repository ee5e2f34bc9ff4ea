"""Which processor a job runs on; on a machine with several GPUs, each job takes one of its own."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path

import torch

_claimed: list[int] = []  # handles of lock files of this process; the GPU is free again when the process ends, however it ends


def pick_device(device: str) -> torch.device:
    """`auto` is a GPU where there is one; ValueError when `cuda` is asked for and absent, or all GPUs are taken."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device: cuda was asked for but torch sees no GPU; set auto or cpu")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if "LOCAL_RANK" in os.environ:  # torchrun: process n of a machine takes its GPU n
        if (place := int(os.environ["LOCAL_RANK"])) >= count:
            raise ValueError(f"compute.processes: process {place + 1} of this machine has no GPU, there are {count}; start fewer")
        torch.cuda.set_device(place)
        return torch.device("cuda", place)
    if count == 1:  # the only one, or the one that a scheduler gave
        return torch.device("cuda", 0)
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    chosen = torch.device("cuda", claim(names if len(names) == count else [str(n) for n in range(count)]))
    torch.cuda.set_device(chosen)
    return chosen


def claim(names: list[str], folder: Path | None = None) -> int:
    """Take the first GPU of `names` that no other mscl process of this machine holds; returns its position.

    A lock file per GPU, so that jobs which start together on one workstation do not meet. ValueError when all are taken.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"mscl-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    kind = folder.lstat()
    if not stat.S_ISDIR(kind.st_mode) or kind.st_uid != os.getuid():  # anybody may write to /tmp
        raise ValueError(f"{folder}: not a folder of yours; remove it, or set TMPDIR to one that is")
    for position, name in enumerate(names):
        path = folder / f"{name.strip().replace('/', '_')}.lock"
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno != errno.EWOULDBLOCK:
                raise
            continue
        _claimed.append(handle)
        return position
    raise ValueError(f"all {len(names)} GPUs are taken by other jobs; run snakemake with --resources gpu={len(names)}")


def half_precision_error(device: torch.device) -> float:
    """Largest error of a small bfloat16 Conv3d against float32, relative to the largest output; about 0.005 where all is well.

    Some versions of cuDNN compute half-precision Conv3d wrongly, in silence.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator).to(device) for shape in ((2, 16, 4, 14, 14), (32, 16, 3, 3, 3)))
    exact = torch.nn.functional.conv3d(x.double().cpu(), weight.double().cpu(), padding=1)
    half = torch.nn.functional.conv3d(x.bfloat16(), weight.bfloat16(), padding=1).double().cpu()
    return ((half - exact).abs().max() / exact.abs().max()).item()
