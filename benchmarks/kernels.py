"""The time of a pretraining step with different kernels, and two reference measurements.

    python -m benchmarks.kernels [--config config/paper.yaml] [--model r18] [--method mscl] [--batch 8] [--threads 2] [--seconds 90]

Kernels: as shipped, without channels_last, in bfloat16, compiled, and on a GPU with cudnn.benchmark. References: a plain training step
(forward, backward, SGD) of torchvision's r3d_18 on clips of the same size, and the rate of a matrix product in the data type of
the networks (bfloat16 on a GPU), which gives the shortest possible time for the counted operations of a step. All measurements
take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import machine, versions
from benchmarks.step import synthetic
from mscl.config.schema import load_config
from mscl.config.settings import Kernels
from mscl.machine.device import memory_gb
from mscl.machine.torchvision import torchvision
from mscl.models.build import build_method
from mscl.stages import build, jobs
from mscl.training.hardware import autocast, place, prepare_device
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import train_step
from mscl.watch.flops import mfu, pretrain_flops

WAYS = {
    "as shipped": {},
    "contiguous": {"channels_last": False},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"compile": True},
}


def step_of(
    job: jobs.PretrainJob,
    batch: int,
    device: torch.device,
    **kernels: bool | str,
) -> Callable[[], None]:
    """One pretraining step with these kernels."""
    job = job.model_copy(update={"kernels": Kernels(**kernels)})
    torch.manual_seed(0)
    model = place(build_method(job.net, job.contrast, job.switches), device, job.kernels).train()
    data, step, optimizer = synthetic(job, batch, device), PretrainStep(model, job), make_optimizer(model, job.optim)

    def run() -> None:
        torch.backends.cudnn.benchmark = job.kernels.cudnn_benchmark
        train_step(step, data, optimizer, job.optim, seed=0, number=0, total=1)

    return run


def bare_r3d18(job: jobs.PretrainJob, batch: int, device: torch.device) -> Callable[[], None]:
    """A plain training step: torchvision's network, cross-entropy, SGD; no augmentation, one clip per video."""
    model = torchvision.models.video.r3d_18(num_classes=400).to(device, memory_format=torch.channels_last_3d).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x = torch.rand(batch, 3, job.clip.frames, job.net.size, job.net.size, device=device).contiguous(
        memory_format=torch.channels_last_3d
    )
    label = torch.zeros(batch, dtype=torch.long, device=device)

    def run() -> None:
        torch.backends.cudnn.benchmark = False
        optimizer.zero_grad(set_to_none=True)
        with autocast(device):
            loss = torch.nn.functional.cross_entropy(model(x).float(), label)
        loss.backward()
        optimizer.step()

    return run


def r3d18_flops(job: jobs.PretrainJob) -> float:
    """FLOPs of the plain step per video."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = torchvision.models.video.r3d_18(num_classes=400)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(2, 3, job.clip.frames, job.net.size, job.net.size)).sum().backward()
    return counter.get_total_flops() / 2


def matrix_product(device: torch.device) -> tuple[Callable[[], None], float]:
    """A product of two square matrices, and its number of operations."""
    n, kind = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    return lambda: a @ b, 2.0 * n**3


def timed(ways: dict[str, Callable[[], None]], seconds: float, device: torch.device) -> dict[str, float]:
    """The median time of each way in seconds. They take turns, after one round to warm up and compile."""
    times: dict[str, list[float]] = {name: [] for name in ways}

    def once(way: Callable[[], None]) -> float:
        began = time.perf_counter()
        way()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    first = {name: once(way) for name, way in ways.items()}
    print(f"first calls: {', '.join(f'{k} {v:.1f} s' for k, v in first.items())}")
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times["matrix product"]) < 3:
        for name, way in ways.items():
            times[name].append(once(way))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--model", default="r18")
    parser.add_argument("--method", default="mscl")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=90)
    a = parser.parse_args()
    config, device = load_config(a.config), prepare_device("auto", a.threads)
    job = build.pretrain_job(config, a.model, a.method, 0)
    job = job.model_copy(update={"contrast": job.contrast.model_copy(update={"bn_groups": 1})})
    print(f"{machine()}; {versions('torch', 'torchvision')}; {device}, {a.threads} thread(s)")
    print(f"{a.config} {a.model} {a.method}: {job.clip.frames} x {job.net.size} x {job.net.size}, batch {a.batch}")
    named = WAYS | ({"cudnn.benchmark": {"cudnn_benchmark": True}} if device.type == "cuda" else {})
    product, operations = matrix_product(device)
    ways = {name: step_of(job, a.batch, device, **kernels) for name, kernels in named.items()}
    ways |= {"torchvision r3d_18": bare_r3d18(job, a.batch, device), "matrix product": product}
    report(timed(ways, a.seconds, device), job, a.batch, operations, device)


def report(seconds: dict[str, float], job: jobs.PretrainJob, batch: int, operations: float, device: torch.device) -> None:
    """Print the time, rate and efficiency of each way."""
    rate = operations / seconds.pop("matrix product")
    print(f"matrix product: {rate / 1e12:.3f} TFLOP/s")
    flops = {name: pretrain_flops(job) for name in seconds} | {"torchvision r3d_18": r3d18_flops(job)}
    for name, s in seconds.items():
        clips, share = batch / s, mfu(flops[name], device)
        parts = [
            f"{name:20s} {1000 * s:9.1f} ms, {clips:8.1f} videos/s, {flops[name] / 1e9:6.1f} GFLOP per video",
            f"{flops[name] * clips / rate:5.1%} of the rate of the matrix product",
        ]
        if share:
            parts.append(f"MFU {share(clips):.1%}")
        if name in WAYS or "cudnn" in name:
            parts.append(f"{s / seconds['as shipped']:.3f} x the time as shipped")
        print(", ".join(parts))
    print(f"peak memory {memory_gb(device):.2f} GB")


if __name__ == "__main__":
    main()
