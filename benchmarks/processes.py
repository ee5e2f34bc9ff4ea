"""A pretraining step shared by two processes (gloo), compared with one process that has half the batch.

    python -m benchmarks.processes [--config config.yaml] [--model r18] [--batch 32] [--methods moco mscl] [--seconds 20] [--rounds 3]

Ways, one after another in each round: `alone`, one process with half the batch; `apart`, two such processes at once that exchange
nothing, which tells what the machine itself loses; `shared`, two processes as `compute.processes: 2` runs them; `ddp`, the same with
`torch.nn.parallel.DistributedDataParallel` in place of `mean_gradients`, which then averages no scalars either. Each process has
one thread.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from benchmarks.common import machine, versions
from benchmarks.step import synthetic
from mscl.config.schema import load_config
from mscl.models import distributed
from mscl.models.build import build_method
from mscl.stages import build
from mscl.stages.jobs import PretrainJob, dumps, loads
from mscl.training.hardware import place, prepare_device
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import train_step

WAYS = {"alone": 1, "apart": 2, "shared": 2, "ddp": 2}  # way -> processes
TOTAL = 10**6  # pretended length of the training


class Wrapped:
    """A method whose forward goes through DistributedDataParallel; everything else is its own."""

    def __init__(self, model: torch.nn.Module):
        self._own = model
        self._forward = DistributedDataParallel(
            model, forward_sync_buffers=False, static_graph=True, gradient_as_bucket_view=True
        )

    def __call__(self, *views: Any) -> Any:
        return self._forward(*views)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def measure(rank: int, way: str, text: str, batch: int, seconds: float, port: int, found: Any) -> None:
    """One process of a way: put the median time of its steps into `found`."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ["WORLD_SIZE"] = "2" if way in ("shared", "ddp") else "1"
    job = loads(PretrainJob, text)
    device = prepare_device("cpu", 1, job.kernels)
    distributed.start(device)
    torch.manual_seed(0)
    model = place(build_method(job.net, job.contrast, job.switches), device, job.kernels).train()
    step, optimizer = PretrainStep(model, job), make_optimizer(model, job.optim)
    if way == "ddp":
        step.model = Wrapped(model)
        own = distributed.mean_gradients
        distributed.mean_gradients = lambda parameters, values: own({}, values)  # it has averaged them during backward
    data, times, began = synthetic(job, batch // 2, device), [], time.perf_counter()
    enough = False
    for number in range(TOTAL):
        at = time.perf_counter()
        train_step(step, data, optimizer, job.optim, 0, number, TOTAL)
        times.append(time.perf_counter() - at)
        enough = at - began > seconds and number > 3
        if distributed.largest([int(enough)], device)[0]:  # the same number of steps in both
            break
    found.put(statistics.median(times[1:]))


def run(way: str, job: PretrainJob, batch: int, seconds: float) -> float:
    """Seconds of one step by one way: the mean over its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = mp.get_context("spawn").SimpleQueue()
    mp.spawn(measure, (way, dumps(job), batch, seconds, port, found), nprocs=WAYS[way])
    return statistics.mean(found.get() for _ in range(WAYS[way]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--model", default="r18")
    parser.add_argument("--methods", nargs="*", default=["moco", "mscl"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    config = load_config(a.config)
    print(f"{machine()}; {versions('torch')}; gloo, one thread a process, {a.config} {a.model}, batch {a.batch} in two halves")
    for method in a.methods:
        job = build.pretrain_job(config, a.model, method, 0)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(a.rounds):
            for way in WAYS:
                times[way].append(run(way, job, a.batch, a.seconds / a.rounds))
        one = statistics.median(times["alone"])
        parts = (f"{way} {1000 * (s := statistics.median(t)):.1f} ms ({s / one:.3f})" for way, t in times.items())
        print(f"{method:9s} {', '.join(parts)} (shared ÷ alone: at most 1.15)")


if __name__ == "__main__":
    main()
