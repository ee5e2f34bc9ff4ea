"""Select the device of a job. On a machine with several GPUs, each job takes a different one."""

from __future__ import annotations

import os

import torch

from mscl.machine.gpus import claim


def pick_device(device: str) -> torch.device:
    """The torch device for `device`: cpu, cuda or auto (a GPU if there is one).

    Raises ValueError if `cuda` is requested but not available, if all GPUs are taken, or if torchrun started more processes than
    there are GPUs.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device: cuda is set, but torch finds no GPU; set auto or cpu")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if "LOCAL_RANK" in os.environ:  # torchrun: process n on a machine uses GPU n of those claimed for the job
        if (place := int(os.environ["LOCAL_RANK"])) >= count:
            raise ValueError(
                f"compute.processes: process {place + 1} on this machine has no GPU, there are {count}; start fewer processes"
            )
        torch.cuda.set_device(place)
        return torch.device("cuda", place)
    if count == 1:  # the only GPU, or the one that a scheduler assigned
        return torch.device("cuda", 0)
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    chosen = torch.device("cuda", *claim(names if len(names) == count else [str(n) for n in range(count)]))
    torch.cuda.set_device(chosen)
    return chosen


def half_precision_error(device: torch.device) -> float:
    """Largest error of a small bfloat16 Conv3d against float64, relative to the largest output; about 0.005 if it is correct.

    Some versions of cuDNN compute half-precision Conv3d incorrectly without an error.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator).to(device) for shape in ((2, 16, 4, 14, 14), (32, 16, 3, 3, 3)))
    exact = torch.nn.functional.conv3d(x.double().cpu(), weight.double().cpu(), padding=1)
    half = torch.nn.functional.conv3d(x.bfloat16(), weight.bfloat16(), padding=1).double().cpu()
    return ((half - exact).abs().max() / exact.abs().max()).item()


def memory_gb(device: torch.device) -> float:
    """Peak memory so far, in GB (1e9 bytes): allocated on the GPU, or resident memory of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
