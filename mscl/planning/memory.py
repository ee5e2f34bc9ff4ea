"""What a training takes, before it runs: FLOPs, bytes, and its peak memory, by a formula over what a step without content keeps."""

from __future__ import annotations

from typing import NamedTuple

from mscl.config.settings import Kernels
from mscl.planning.network import Sizes, sizes_of
from mscl.stages import jobs
from mscl.watch.dry import Cost
from mscl.watch.flops import finetune_cost, finetuned, pretrain_cost, pretrained

# Feature maps of the largest size that are in memory at the peak, beside those that are kept for the backward pass: inputs, outputs and
# gradients of layers, and on a GPU cuDNN's workspaces. The numbers for a GPU fit the peaks that were measured on an H200.
AT_ONCE = {("pretrain", "cpu"): 3, ("finetune", "cpu"): 3, ("pretrain", "gpu"): 8, ("finetune", "gpu"): 3}


class Need(NamedTuple):
    """What a training needs: FLOPs per video, sizes of its networks, and peak memory of a step in one process, both in bytes."""

    flops: float
    sizes: Sizes
    peak: float


def pretrain_need(job: jobs.PretrainJob, videos: int, device: str) -> Need:
    """Of a pretraining with `videos` at a time in one process, on `cpu` or `gpu`."""
    model = pretrained(job)
    sizes, cost = sizes_of(model, model.encoder, job.optim), pretrain_cost(job, model, videos)
    pixels = videos * job.switches.clips * 3 * job.clip.frames * job.net.size**2
    return Need(cost.flops / videos, sizes, _peak(sizes, job.kernels, pixels, cost, "pretrain", device))


def finetune_need(job: jobs.FinetuneJob, classes: int, videos: int, device: str) -> Need:
    """The same of a finetuning, or of linear evaluation if `job` is one."""
    model = finetuned(job, classes)
    sizes, cost = sizes_of(model, model, job.finetune), finetune_cost(job, model, videos)
    pixels = videos * 3 * job.finetune.frames * job.net.size**2
    return Need(cost.flops / videos, sizes, _peak(sizes, job.kernels, pixels, cost, "finetune", device))


def _peak(sizes: Sizes, kernels: Kernels, pixels: int, cost: Cost, kind: str, device: str) -> float:
    """Networks with their momentum copies and queues, optimiser state, gradients, clips, activations."""
    half = kernels.precision == "bfloat16" or (kernels.precision == "auto" and device == "gpu")
    cast = sizes.trained / 2 if half else 0  # weights in bfloat16, which autocast keeps for the step
    return sizes.checkpoint + sizes.trained + cast + 4 * pixels + cost.activations(half, AT_ONCE[kind, device])
