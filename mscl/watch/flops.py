"""Count what training steps cost, without computing: floating-point operations (FLOPs) per video. And look up a GPU's peak rate.

Both give the MFU (model FLOPs utilization): the fraction of the GPU's published peak rate that a run uses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mscl.models.build import build_method
from mscl.models.method import Method
from mscl.models.networks.build import build_backbone
from mscl.models.networks.flow_resnet import FLOW_TEMPORAL_STRIDE
from mscl.models.view import View
from mscl.stages import jobs
from mscl.watch.dry import Cost, counted, on_meta

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


def pretrained(job: jobs.PretrainJob) -> Method:
    """The networks of a pretraining, without content.

    With one batch-norm group: groups split the batch, but do not change the work per video.
    """
    return on_meta(lambda: build_method(job.net, job.contrast.model_copy(update={"bn_groups": 1}), job.switches))


def finetuned(job: jobs.FinetuneJob, classes: int) -> nn.ModuleDict:
    """The networks of a finetuning, or of linear evaluation if `job` is one, without content."""
    model = on_meta(lambda: nn.ModuleDict({"backbone": (b := build_backbone(job.net)), "fc": nn.Linear(b.feature_dim, classes)}))
    model["backbone"].requires_grad_(not isinstance(job, jobs.LinearJob))
    return model


def pretrain_cost(job: jobs.PretrainJob, model: Method, videos: int = PAIR) -> Cost:
    """The cost of one training step on a batch of `videos`: all networks of the method, forward and backward, and the queue.

    `model` is that of `pretrained`, and is used up.
    """
    shape = (videos, 3, job.clip.frames, job.net.size, job.net.size)
    with counted(model, autocast=True) as counter:
        views = [_Images(torch.empty(shape), start_B=torch.empty(videos)) for _ in range(job.switches.clips)]
        losses, _ = model(*views)
        sum(losses.values()).backward()
    return counter.cost()


def finetune_cost(job: jobs.FinetuneJob, model: nn.ModuleDict, videos: int = PAIR) -> Cost:
    """The cost of one step of finetuning, or of linear evaluation, on a batch of `videos`; `model`, of `finetuned`, is used up."""
    frozen = isinstance(job, jobs.LinearJob)
    with counted(model) as counter:
        with torch.set_grad_enabled(not frozen):
            features = model["backbone"](torch.empty(videos, 3, job.finetune.frames, job.net.size, job.net.size))
        F.cross_entropy(model["fc"](features), torch.zeros(videos, dtype=torch.long)).backward()
    return counter.cost()


def pretrain_flops(job: jobs.PretrainJob) -> float:
    """FLOPs per video of a pretraining step, forward and backward (a multiply-add is 2 FLOPs)."""
    return pretrain_cost(job, pretrained(job)).flops / PAIR


def finetune_flops(job: jobs.FinetuneJob, classes: int) -> float:
    """FLOPs per video of a step of finetuning or linear evaluation; the number of `classes` hardly matters."""
    return finetune_cost(job, finetuned(job, classes)).flops / PAIR


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
