"""A pretraining step, compared with only the forward and backward passes of its encoders.

    python -m benchmarks.step [--model r18] [--config config/paper.yaml] [--batch 4] [--methods moco baseline mscl] [--seconds 30]

The step is that of the engine: augmentation of uint8 clips on the device, every loss with the full queue, backward, gradient
clipping, optimiser, EMA, queue. The comparison runs the same networks on prepared float tensors: query encoders (and neck)
forward and backward from a plain sum, key encoders forward. Both run on the device that torch finds, with `--threads` threads on
a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import machine, versions
from mscl.config.methods import METHODS
from mscl.config.schema import load_config
from mscl.flow.colour import colourwheel
from mscl.machine.device import memory_gb
from mscl.models.methods.mscl import MSCL
from mscl.stages import build, jobs
from mscl.training.clips import random_batch
from mscl.training.draws import Draws
from mscl.training.hardware import autocast, place, prepare_device
from mscl.training.pretrain import PretrainStep, make_views
from mscl.training.recipe import make_optimizer
from mscl.training.step import train_step

STEPS = 10**6  # pretended length of the training


def synthetic(job: jobs.PretrainJob, batch: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A random batch in the form of the loader, on the device."""
    data = random_batch(job.switches, job.clip, job.net.size, batch)
    return {name: tensor.to(device) for name, tensor in data.items()}


def bare(model: MSCL, job: jobs.PretrainJob, data: dict) -> Callable[[], None]:
    """The encoder passes of one step of the method, on tensors made once."""
    draws = Draws(0, 0, len(data["query_rgb"]), device=data["query_rgb"].device)
    query, key = make_views(data, job, draws)
    flow = job.switches.flow
    rotated = flow and (job.switches.rotated or job.switches.fra != "none")
    images = [colourwheel(v.flow_B2THW) for v in (query, key)] if flow else []

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(query.rgb_BCTHW.device):
            maps, z = model.rgb.encode_query(query.rgb_BCTHW)
            total = z.float().sum()
            if job.switches.lmcl:
                total = total + model.neck(maps).float().mean()
            model.rgb.send_keys(key.rgb_BCTHW).encode()
            for _ in range(flow + rotated):
                total = total + model.flow.encode_query(images[0])[1].float().sum()
            for _ in range(flow + (1 if job.switches.rotated else 0)):
                model.flow.send_keys(images[1]).encode()
        total.backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--model", default="r18")
    parser.add_argument("--methods", nargs="*", default=["moco", "baseline", "mscl"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30)
    a = parser.parse_args()
    if foreign := [m for m in a.methods if METHODS[m].switches.family != "mscl"]:
        parser.error(f"--methods: {', '.join(foreign)}: the comparison is only implemented for family mscl")
    config, device = load_config(a.config), prepare_device("auto", a.threads)
    print(f"{machine()}; {versions('torch')}; {device}, {a.threads} thread(s), {a.config} {a.model}, batch {a.batch}")
    for method in a.methods:
        compare(build.pretrain_job(config, a.model, method, 0), a.batch, a.seconds, device)


def compare(job: jobs.PretrainJob, batch: int, seconds: float, device: torch.device) -> None:
    """Measure both for one method and print the median times."""
    job = job.model_copy(update={"contrast": job.contrast.model_copy(update={"bn_groups": 1})})
    torch.manual_seed(0)
    model = place(MSCL(job.net, job.contrast, job.switches), device, job.kernels).train()
    data, step, optimizer = synthetic(job, batch, device), PretrainStep(model, job), make_optimizer(model, job.optim)
    numbers = iter(range(STEPS))
    ways = {"bare": bare(model, job, data), "step": lambda: train_step(step, data, optimizer, job.optim, 0, next(numbers), STEPS)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times["bare"]) < 4:
        for name, way in ways.items():
            at = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - at)
    bare_s, step_s = (statistics.median(t[1:]) for t in times.values())
    print(
        f"{job.method:9s} encoders alone {1000 * bare_s:8.1f} ms, step {1000 * step_s:8.1f} ms ({batch / step_s:.1f} clips/s), "
        f"ratio {step_s / bare_s:.3f} (target: 1.15), peak memory so far {memory_gb(device):.2f} GB"
    )


if __name__ == "__main__":
    main()
