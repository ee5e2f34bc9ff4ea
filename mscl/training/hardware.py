"""The device of a training job and how its kernels are chosen."""

from __future__ import annotations

import os
import warnings

import torch
from torch import nn

from mscl.config.settings import Kernels
from mscl.machine.device import half_precision_error, pick_device
from mscl.models import distributed
from mscl.models.networks.backbone import Backbone
from mscl.models.networks.blocks import GroupedBatchNorm3d
from mscl.models.networks.flow_resnet import FlowResNet

CANARY = 0.02  # error of a bfloat16 Conv3d, relative to its largest output, above which something is wrong
DEFAULT = Kernels()


def prepare_device(device: str, threads: int, kernels: Kernels = DEFAULT) -> torch.device:
    """The device of a training job, set up to be deterministic; on a CPU the thread count is part of the result's bits."""
    chosen = pick_device(device)
    distributed.start(chosen)
    if chosen.type == "cpu":
        torch.set_num_threads(threads)
    else:
        _warn_of_half_precision(chosen)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products on a GPU need
    torch.backends.cudnn.benchmark = kernels.cudnn_benchmark
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32: by default cuDNN rounds its inputs to 10 bits
    if kernels.compile:
        torch.use_deterministic_algorithms(True, warn_only=True)  # also of compiled kernels, whose compiler it loads: a second
    else:
        torch.set_deterministic_debug_mode("warn")  # the same without them
    torch.utils.deterministic.fill_uninitialized_memory = False  # a search aid that launches thousands of kernels a step
    return chosen


def _warn_of_half_precision(device: torch.device) -> None:
    if 90800 <= (torch.backends.cudnn.version() or 0) < 91500:
        warnings.warn("cuDNN 9.8 to 9.14 computes half-precision Conv3d wrongly or slowly; install another", stacklevel=3)
    if (error := half_precision_error(device)) > CANARY:
        warnings.warn(
            f"bfloat16 Conv3d is off by {error:.1%} here (below {CANARY:.0%} is usual); install another cuDNN", stacklevel=3
        )


def autocast(device: torch.device, kernels: Kernels = DEFAULT) -> torch.autocast:
    """The networks in the body compute in the precision of `kernels`: by default bfloat16 on a GPU, float32 on a CPU."""
    half = kernels.precision == "bfloat16" or (kernels.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)


def memory_format(kernels: Kernels) -> torch.memory_format:
    return torch.channels_last_3d if kernels.channels_last else torch.contiguous_format


def place(model: nn.Module, device: torch.device, kernels: Kernels = DEFAULT) -> nn.Module:
    """Move a model in the memory format of `kernels`, and compile its backbones where they ask for it.

    Names of weights stay. The losses, the queue and the draws stay outside of what is compiled. On a GPU batch-norm groups go one
    by one by default: only that has been measured there.
    """
    model = model.to(device, memory_format=memory_format(kernels))
    together = kernels.groups == "together" or (kernels.groups == "auto" and device.type == "cpu")
    for norm in model.modules():
        if isinstance(norm, GroupedBatchNorm3d):
            norm.together = together
    if kernels.compile:
        for part in model.modules():
            if isinstance(part, Backbone | FlowResNet):
                part.maps = torch.compile(part.maps, dynamic=False)
    return model
