"""Count the floating-point operations (FLOPs) of the networks per video, without computing, and look up a GPU's peak rate.

Both give the MFU (model FLOPs utilization): the fraction of the GPU's published peak rate that a run uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mscl.models.build import build_method
from mscl.models.networks.build import build_backbone
from mscl.models.networks.flow_resnet import FLOW_TEMPORAL_STRIDE
from mscl.models.view import View
from mscl.stages import jobs

PAIR = 2  # number of videos in a counted step: batch norm needs two at the smallest sizes
# Dense bfloat16 TFLOP/s (without sparsity) from the manufacturers' data sheets, by a part of the device's name.
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "GH200": 989, "A100": 312, "A40": 150, "A30": 165,
    "A10": 125, "L40S": 362, "L40": 181, "L4": 121, "RTX 6000 Ada": 364, "A6000": 155, "4090": 165, "3090": 71,
}  # fmt: skip


class _Images(View):
    """A view with flow images of the right shape and no content; computing them needs no matrix products."""

    def flow_image(self) -> torch.Tensor:
        batch, channels, times, height, width = self.rgb_BCTHW.shape
        return torch.empty(batch, channels, times // FLOW_TEMPORAL_STRIDE, height, width)

    rotated_image = edge_image = crossed_image = rotated_crossed_image = flow_image


@contextmanager
def counted(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Count the operations of the body on fake tensors, which have a shape but no content; `model` must be built on `meta`.

    Batch norms are replaced by the identity: they count no operations, but would take half of the time.
    """
    with FakeTensorMode():
        for part in list(model.modules()):
            for name, child in part.named_children():
                if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
                    setattr(part, name, nn.Identity())
            for name, p in part._parameters.items():
                if p is not None:
                    part._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), requires_grad=p.requires_grad)
            for name, b in part._buffers.items():
                if b is not None:
                    part._buffers[name] = torch.empty(b.shape, dtype=b.dtype)
        with FlopCounterMode(display=False) as counter:
            yield counter


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The model of `build()` on the `meta` device, without memory for its weights."""
    with torch.device("meta"):
        return build()


def pretrain_flops(job: jobs.PretrainJob) -> float:
    """FLOPs per video of one training step of all networks of the method, forward and backward (a multiply-add is 2 FLOPs).

    Counted with one batch-norm group: groups split the batch, but do not change the work per video. The products with the queue
    are included.
    """
    model = on_meta(lambda: build_method(job.net, job.contrast.model_copy(update={"bn_groups": 1}), job.switches))
    shape = (PAIR, 3, job.clip.frames, job.net.size, job.net.size)
    with counted(model) as counter:
        views = [_Images(torch.empty(shape), start_B=torch.empty(PAIR)) for _ in range(job.switches.clips)]
        losses, _ = model(*views)
        sum(losses.values()).backward()
    return counter.get_total_flops() / PAIR


def finetune_flops(job: jobs.FinetuneJob, classes: int) -> float:
    """FLOPs per video of one finetuning step, forward and backward; the number of `classes` hardly matters."""
    model = on_meta(lambda: nn.ModuleDict({"backbone": (b := build_backbone(job.net)), "fc": nn.Linear(b.feature_dim, classes)}))
    with counted(model) as counter:
        features = model["backbone"](torch.empty(PAIR, 3, job.finetune.frames, job.net.size, job.net.size))
        F.cross_entropy(model["fc"](features), torch.zeros(PAIR, dtype=torch.long)).backward()
    return counter.get_total_flops() / PAIR


def linear_flops(job: jobs.LinearJob, classes: int) -> float:
    """FLOPs per video of one step of linear evaluation: the backbone forward, and the linear layer forward and backward."""
    model = on_meta(lambda: nn.ModuleDict({"backbone": (b := build_backbone(job.net)), "fc": nn.Linear(b.feature_dim, classes)}))
    model["backbone"].eval()
    with counted(model) as counter:
        with torch.no_grad():
            features = model["backbone"](torch.empty(PAIR, 3, job.finetune.frames, job.net.size, job.net.size))
        F.cross_entropy(model["fc"](features), torch.zeros(PAIR, dtype=torch.long)).backward()
    return counter.get_total_flops() / PAIR


def mfu(flops: float, device: torch.device) -> Callable[[float], float] | None:
    """A function from clips per second to MFU, for `flops` FLOPs per video; None on a CPU or an unknown GPU.

    With several processes, clips per second are the total of all processes, and the peak rate is that of all their GPUs.
    """
    if device.type != "cuda":
        return None
    from mscl.models import distributed

    name = torch.cuda.get_device_name(device)
    peak = next((v * 1e12 for word, v in PEAK_TFLOPS.items() if word in name), None)
    return (lambda clips_per_second: clips_per_second * flops / (peak * distributed.size())) if peak else None
