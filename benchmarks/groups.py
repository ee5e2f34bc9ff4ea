"""Batch norm in groups: the whole batch through the network with norms that know the groups, or one group after another.

    python -m benchmarks.groups [--config config.yaml] [--model r18] [--method moco] [--batch 32] [--groups 4] [--seconds 20]

`together` is how mscl computes; `one after another` is what it did before and still does with a network that has other norms;
`one group` is what the batch costs without groups. Times of a whole step, medians of interleaved steps, one thread on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.common import machine, versions
from benchmarks.step import STEPS, synthetic
from mscl.config.schema import load_config
from mscl.models.build import build_method
from mscl.models.networks.blocks import GroupedBatchNorm3d
from mscl.stages import build
from mscl.stages.jobs import PretrainJob
from mscl.training.hardware import place, prepare_device
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import train_step


def one_after_another(model: nn.Module) -> nn.Module:
    """The model with torch's own batch norm, whose groups go through the network one after another."""
    for module in model.modules():
        if isinstance(module, GroupedBatchNorm3d):
            module.__class__ = nn.BatchNorm3d
    return model


def step_of(job: PretrainJob, groups: int, device: torch.device, prepare: Callable[[nn.Module], nn.Module]) -> Callable[[], None]:
    """A step of the engine with this number of groups."""
    torch.manual_seed(0)
    job = job.model_copy(update={"contrast": job.contrast.model_copy(update={"bn_groups": groups})})
    model = place(prepare(build_method(job.net, job.contrast, job.switches)), device, job.kernels).train()
    data, step, optimizer = synthetic(job, job.optim.batch, device), PretrainStep(model, job), make_optimizer(model, job.optim)
    number = iter(range(STEPS))
    return lambda: train_step(step, data, optimizer, job.optim, 0, next(number), STEPS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--model", default="r18")
    parser.add_argument("--method", default="moco")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    a = parser.parse_args()
    config, device = load_config(a.config), prepare_device("auto", 1)
    job = build.pretrain_job(config, a.model, a.method, 0)
    queue = job.contrast.model_copy(update={"queue": job.contrast.queue // a.batch * a.batch})
    job = job.model_copy(update={"contrast": queue, "optim": job.optim.model_copy(update={"batch": a.batch})})
    print(f"{machine()}; {versions('torch')}; {device}; {a.config} {a.model} {a.method}, batch {a.batch} in {a.groups} groups")
    ways = {
        "one group": step_of(job, 1, device, lambda model: model),
        "together": step_of(job, a.groups, device, lambda model: model),
        "one after another": step_of(job, a.groups, device, one_after_another),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    began = time.perf_counter()
    while time.perf_counter() - began < a.seconds or len(times["one after another"]) < 4:
        for name, way in ways.items():
            at = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - at)
    took = {name: statistics.median(found[1:]) for name, found in times.items()}
    for name, seconds in took.items():
        print(f"{name:18s} {1000 * seconds:9.1f} ms, {seconds / took['one after another']:.3f} x one after another")


if __name__ == "__main__":
    main()
