"""The cost of the networks per video: FLOPs (counted without computing), bytes of the weights, measured training steps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from mscl.config.recipes import Optim
from mscl.config.schema import Config
from mscl.config.settings import FlowConfig
from mscl.models.build import build_method
from mscl.models.networks.build import build_backbone
from mscl.planning.rates import CPU_TFLOPS
from mscl.stages import build, jobs
from mscl.training.clips import random_batch
from mscl.training.finetune import Classifier, FinetuneStep
from mscl.training.hardware import place, prepare_device
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import Step, train_step
from mscl.watch.dry import counted, on_meta
from mscl.watch.flops import PAIR, finetune_flops, pretrain_flops


def feature_flops(job: jobs.FinetuneJob) -> float:
    """FLOPs per clip in a test or in feature extraction: forward pass of the backbone only."""
    model = on_meta(lambda: build_backbone(job.net)).eval()
    with torch.no_grad(), counted(model) as counter:
        model(torch.empty(1, 3, job.finetune.frames, job.finetune.test_size, job.finetune.test_size))
    return counter.cost().flops


def raft_flops(flow: FlowConfig) -> float:
    """FLOPs of one flow field by RAFT-large at `flow.size`: its updates cost the same, so two are counted."""
    size = tuple(max(128, -(-side // 8) * 8) for side in flow.size)  # sides that RAFT takes; a program may take others
    first, update = _raft_flops(size)
    share = flow.size[0] * flow.size[1] / (size[0] * size[1])
    return share * (first + (flow.iterations - 1) * update)


@functools.cache
def _raft_flops(size: tuple[int, int]) -> tuple[float, float]:
    """Of the first update with the encoders before it, and of each further one."""
    from mscl.machine.torchvision import torchvision

    model, ends = on_meta(lambda: torchvision.models.optical_flow.raft_large(weights=None)).eval(), []
    with torch.no_grad(), counted(model) as counter:
        model.mask_predictor.register_forward_hook(
            lambda *_: ends.append(counter.cost().flops)
        )  # the last operations of an update
        image = torch.empty(1, 3, *size)
        model(image, image, num_flow_updates=2)
    return ends[0], ends[1] - ends[0]


class Sizes(NamedTuple):
    """Bytes of the networks of a training: the final weights, all of the state (momentum copies, queues), trained weights, optimiser."""

    weights: int
    state: int
    trained: int
    moments: int

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint."""
        return self.state + self.moments


def sizes_of(model: nn.Module, kept: nn.Module, recipe: Optim) -> Sizes:
    """The sizes of a model of which `kept` is stored as the result."""
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return Sizes(_state(kept), _state(model), trained, trained * (2 if recipe.optimizer == "adamw" else 1))


def _state(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def trains_on(config: Config) -> str:
    """`gpu` or `cpu`: the device on which this configuration trains. `cuda` means `gpu` even if this machine has none."""
    gpu = config.compute.device == "cuda" or (config.compute.device == "auto" and torch.cuda.is_available())
    return "gpu" if gpu else "cpu"


def is_here(device: str) -> bool:
    """Whether the device (`gpu` or `cpu`) can be measured on this machine."""
    return device == "cpu" or torch.cuda.is_available()


def measured_steps(config: Config, classes: int, device: str, seconds: float) -> dict[str, float]:
    """{"<model>/<method>" or "<model>/finetune/<target>": device seconds per video}, from real training steps at full size.

    Takes about `seconds` in total. The batch size is the configured one, halved until it fits into the GPU memory or until a
    step on a CPU is short enough; a network without such a batch size is left out. Loading frames from disk is not included.
    Raises ValueError if even the smallest batch does not fit into the GPU memory.
    """
    chosen = prepare_device("cuda" if device == "gpu" else "cpu", config.compute.threads, config.compute.kernels)
    networks = sum(len(config.pretrained_of(name)) + len(config.targets_of(name)) for name in config.models)
    each, found = seconds / networks, {}
    bearable = float("inf") if device == "gpu" else each * CPU_TFLOPS * 1e12 * config.compute.threads
    for name in config.models:
        for method in config.pretrained_of(name):
            job = build.pretrain_job(config, name, method, config.seeds[0])
            if batch := _batch(job.optim.batch, job.contrast.bn_groups, pretrain_flops(job), bearable):
                found[f"{name}/{method}"] = _fitting(_timed_pretrain, job, batch, job.contrast.bn_groups, chosen, each)
        for target in config.targets_of(name):
            job = build.finetune_job(config, target.name, name, config.methods_of(name)[0], config.seeds[0])
            if batch := _batch(job.finetune.batch, 1, finetune_flops(job, classes), bearable):
                timed = partial(_timed_finetune, classes)
                found[f"{name}/finetune/{target.name}"] = _fitting(timed, job, batch, 1, chosen, each)
    return found


def _batch(recipe: int, groups: int, flops: float, bearable: float) -> int:
    """The configured batch size, halved until a step has at most `bearable` FLOPs; 0 if a batch-norm group has under 2 videos."""
    batch = recipe
    while batch * flops > bearable and batch % (2 * groups) == 0:
        batch //= 2
    return batch if batch * flops <= bearable and batch >= PAIR * groups else 0


def _fitting(timed: Callable[..., float], job: jobs.Job, batch: int, groups: int, device: torch.device, seconds: float) -> float:
    """Seconds per video, at the largest batch size that fits into the GPU memory."""
    while True:
        try:
            return timed(job, batch, device, seconds) / batch
        except torch.cuda.OutOfMemoryError:
            if batch % (2 * groups) or batch < 2 * PAIR * groups:
                raise ValueError(
                    f"models: even a batch of {batch} videos does not fit into the memory of this GPU; plan with --no-probe"
                ) from None
            batch //= 2
            torch.cuda.empty_cache()


def _timed_pretrain(job: jobs.PretrainJob, batch: int, device: torch.device, seconds: float) -> float:
    contrast = job.contrast.model_copy(update={"queue": job.contrast.queue // batch * batch})
    model = place(build_method(job.net, contrast, job.switches), device, job.kernels)
    data = random_batch(job.switches, job.clip, job.net.size, batch)
    return _timed(model, PretrainStep(model, job), job.optim, data, device, seconds)


def _timed_finetune(classes: int, job: jobs.FinetuneJob, batch: int, device: torch.device, seconds: float) -> float:
    model = place(Classifier(job.net, job.finetune, classes), device, job.kernels)
    pixels = (batch, job.finetune.frames, job.net.size, job.net.size, 3)
    data = {"clip": torch.randint(0, 256, pixels, dtype=torch.uint8), "label": torch.zeros(batch, dtype=torch.long)}
    return _timed(model, FinetuneStep(model, job), job.finetune, data, device, seconds)


def _timed(model: nn.Module, step: Step, recipe: Optim, data: dict, device: torch.device, seconds: float) -> float:
    """Median seconds of at least two training steps, after one warm-up step."""
    model.train()
    optimizer, times = make_optimizer(model, recipe), []
    data = {name: tensor.to(device) for name, tensor in data.items()}
    while len(times) < 3 or sum(times) < seconds:
        _wait(device)
        began = time.perf_counter()
        train_step(step, data, optimizer, recipe, 0, 0, 1)
        _wait(device)
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[len(times[1:]) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
