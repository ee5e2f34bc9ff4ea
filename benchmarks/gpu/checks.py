"""Is the arithmetic of this GPU right? A small convolution, a step of the method against the CPU, and a run that is stopped and goes on."""

from __future__ import annotations

import copy
import os
import signal
import time

import torch
from torch.utils.data import Dataset

from benchmarks.gpu.bench import Bench
from mscl.config.settings import Kernels
from mscl.machine.device import half_precision_error
from mscl.models.build import build_method
from mscl.stages import jobs
from mscl.training.clips import random_batch
from mscl.training.engine import Machine, Run
from mscl.training.hardware import CANARY, place
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import train_step

# Largest relative differences to the CPU's float32 that are still taken for rounding: of a loss term, of the gradient.
TOLERANCE = {"float32": (1e-4, 1e-2), "bfloat16": (5e-2, 0.5)}
STOP_AT = 3  # steps before the stop, of 6


def checks(bench: Bench) -> None:
    canary(bench)
    agreement(bench)
    resume(bench)


def canary(bench: Bench) -> None:
    """Some versions of cuDNN compute half-precision Conv3d wrongly without an error."""
    error = half_precision_error(bench.device)
    bench.add("checks", check="bfloat16 Conv3d", measured=error, limit=CANARY, passed=error <= CANARY)


def agreement(bench: Bench) -> None:
    """One step of MSCL with the same weights, clips and draws on the CPU and on the device, in float32 and bfloat16."""
    batch = 4
    if bench.gpu:
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # the CPU's step has the full size, too
    job = bench.pretrain_job("r18", "mscl", batch)
    job = job.model_copy(update={"contrast": job.contrast.model_copy(update={"queue": 256})})
    torch.manual_seed(0)
    model = build_method(job.net, job.contrast, job.switches)
    data = random_batch(job.switches, job.clip, job.net.size, batch)
    terms, gradients = _one_step(model, job, data, torch.device("cpu"), "float32")
    for precision, (term_limit, gradient_limit) in TOLERANCE.items():
        other, moved = _one_step(model, job, data, bench.device, precision)
        worst = max(abs(other[k] - v) / max(1.0, abs(v)) for k, v in terms.items() if k.startswith("loss"))
        far = (torch.linalg.vector_norm(moved - gradients) / torch.linalg.vector_norm(gradients)).item()
        bench.add("checks", check=f"loss terms, {precision}", measured=worst, limit=term_limit, passed=worst <= term_limit)
        bench.add("checks", check=f"gradients, {precision}", measured=far, limit=gradient_limit, passed=far <= gradient_limit)


def _one_step(
    model: torch.nn.Module, job: jobs.PretrainJob, data: dict, device: torch.device, precision: str
) -> tuple[dict[str, float], torch.Tensor]:
    """The terms of a step, and all its (clipped) gradients as one vector on the CPU."""
    job = job.model_copy(update={"kernels": Kernels(precision=precision)})
    own = place(copy.deepcopy(model), device, job.kernels).train()
    step, optimizer = PretrainStep(own, job), make_optimizer(own, job.optim)
    terms = train_step(step, {k: v.to(device) for k, v in data.items()}, optimizer, job.optim, 0, 0, 10)
    gradients = [p.grad.float().flatten().cpu() for p in own.parameters() if p.grad is not None]
    return terms, torch.cat(gradients)


class RandomClips(Dataset):
    """Clips of random content in memory; reading number `stop_at` tells this process to stop."""

    def __init__(self, job: jobs.PretrainJob, videos: int, stop_at: int | None = None):
        self.data = random_batch(job.switches, job.clip, job.net.size, videos)
        self.videos, self.stop_at, self.read = videos, stop_at, 0

    def set_epoch(self, epoch: int) -> None:
        pass

    def __len__(self) -> int:
        return self.videos

    def __getitem__(self, i: int) -> dict:
        self.read += 1
        if self.read == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {name: value[i] for name, value in self.data.items()}


def resume(bench: Bench) -> None:
    """Six steps twice, and once stopped by SIGTERM in the middle and resumed from the checkpoint: the same weights?"""
    batch = 8
    job = bench.pretrain_job("r18", "mscl", batch, bn_groups=2)
    job = job.model_copy(update={"optim": job.optim.model_copy(update={"epochs": 2, "lr": 0.01})})
    whole, again = (_trained(bench, job, f"whole{n}", None) for n in range(2))
    bench.add("checks", check="the same run twice", measured=_distance(whole, again), limit=0.0, passed=_same(whole, again))
    began = time.perf_counter()
    try:
        _trained(bench, job, "stopped", batch * STOP_AT)
        raise AssertionError("the run was not stopped")
    except SystemExit:
        pass
    went_on = _trained(bench, job, "stopped", None)
    bench.add("checks", check="stopped and resumed", measured=_distance(whole, went_on), limit=0.0, passed=_same(whole, went_on))
    bench.note(
        "checks", f"stopping, writing a checkpoint of the whole method, and going on took {time.perf_counter() - began:.1f} s"
    )


def _trained(bench: Bench, job: jobs.PretrainJob, name: str, stop_at: int | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = place(build_method(job.net, job.contrast, job.switches), bench.device, job.kernels)
    data = RandomClips(job, 3 * job.optim.batch, stop_at)
    folder = bench.folder / name
    folder.mkdir(exist_ok=True)
    Run(model, data, job.optim, 0, {"run": "acceptance"}, folder / "checkpoint.pt", Machine()).fit(PretrainStep(model, job))
    return {k: v.cpu() for k, v in model.state_dict().items()}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def _distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest relative difference of a tensor: ||a - b|| / ||a||."""
    norms = [(v.double() - b[k].double()).norm().item() / max(v.double().norm().item(), 1e-12) for k, v in a.items()]
    return max(norms)
