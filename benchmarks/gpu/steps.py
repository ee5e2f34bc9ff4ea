"""How fast are pretraining steps, how much of the device do they use, and which kernels are fastest?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.step import bare, synthetic
from mscl.models.build import build_method
from mscl.stages import jobs
from mscl.training.hardware import place
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import begin_step
from mscl.watch.flops import mfu, pretrain_flops

METHODS = ("moco", "baseline", "mscl")
SIZES = (("r18", 32), ("r18", 128), ("r50", 8), ("r50", 32))  # model, batch
KERNELS = {
    "as shipped": {},
    "contiguous": {"channels_last": False},
    "cudnn.benchmark": {"cudnn_benchmark": True},
    "compile": {"compile": True},
}
STEPS = 10**6  # pretended length of the training


def steps(bench: Bench) -> None:
    """Every method at every size: the step, and the encoders alone."""
    for model, batch in SIZES if bench.gpu else (("r18", 4),):
        for method in METHODS:
            if bench.left() < 0:
                bench.note("steps", f"no time left for {model}/{method} at batch {batch}")
                continue
            _measure(bench, model, method, batch)


def _measure(bench: Bench, model: str, method: str, batch: int) -> None:
    bench.fresh_memory()
    job = bench.pretrain_job(model, method, batch)
    try:
        step, alone = ways(bench, job)
        alone_s, step_s = bench.seconds(alone), bench.seconds(step)
    except torch.cuda.OutOfMemoryError:
        bench.note("steps", f"{model}/{method}: a batch of {batch} does not fit into the memory of this GPU")
        return
    flops = pretrain_flops(job)
    share = mfu(flops, bench.device)
    row = {"model": model, "method": method, "batch": batch, "step ms": 1000 * step_s, "clips/s": batch / step_s}
    row |= {"TFLOP/s": flops * batch / step_s / 1e12, "MFU": share(batch / step_s) if share else "–"}
    bench.add("steps", **row, **{"step ÷ encoders": step_s / alone_s, "peak GB": bench.memory()})
    bench.rates.setdefault("steps", {})[f"{model}/{method}"] = step_s / batch  # the last size is the largest
    bench.rates.setdefault("tflops", []).append(flops * batch / step_s / 1e12)


def ways(bench: Bench, job: jobs.PretrainJob) -> tuple[Callable[[], Any], Callable[[], None]]:
    """(a step of the engine, the encoder passes alone) on the same random batch."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = job.kernels.cudnn_benchmark
    batch = job.optim.batch
    model = place(build_method(job.net, job.contrast, job.switches), bench.device, job.kernels).train()
    data, step, optimizer = synthetic(job, batch, bench.device), PretrainStep(model, job), make_optimizer(model, job.optim)
    number = iter(range(STEPS))
    return lambda: begin_step(step, data, optimizer, job.optim, 0, next(number), STEPS), bare(model, job, data)


def kernels(bench: Bench) -> None:
    """MSCL on R18 with other kernels, with batch-norm groups, and the encoders as one CUDA graph."""
    batch, groups = (128, 4) if bench.gpu else (4, 2)
    shipped = None
    for name, settings in KERNELS.items():
        if bench.left() < 0 or (name == "compile" and not bench.gpu):
            bench.note("kernels", f"'{name}' was not measured: {'no time left' if bench.gpu else 'it takes minutes on a CPU'}")
            continue
        bench.fresh_memory()
        step, _ = ways(bench, bench.pretrain_job("r18", "mscl", batch, **settings))
        took = bench.seconds(step)
        shipped = shipped or took
        bench.add("kernels", kernels=name, **{"step ms": 1000 * took, "÷ as shipped": took / shipped, "peak GB": bench.memory()})
    torch.backends.cudnn.benchmark = False
    for way in ("together", "one_by_one"):
        bench.fresh_memory()
        step, _ = ways(bench, bench.pretrain_job("r18", "mscl", batch, groups, groups=way))
        row = {"step ms": 1000 * (took := bench.seconds(step)), "÷ as shipped": took / shipped, "peak GB": bench.memory()}
        bench.add("kernels", kernels=f"{groups} batch-norm groups, {way.replace('_', ' ')}", **row)
    for size in (32, 128) if bench.gpu else (4,):
        launches(bench, size)


def launches(bench: Bench, batch: int) -> None:
    """The share of a step in which the device waits for the next kernel, and the encoders replayed as one CUDA graph."""
    step, alone = ways(bench, bench.pretrain_job("r18", "mscl", batch))
    wall = bench.seconds(step)
    if not bench.gpu:
        return
    busy = busy_seconds(step)
    eager, graph = bench.seconds(alone), bench.seconds(captured(alone))
    bench.add(
        "launches",
        model="r18/mscl",
        batch=batch,
        **{
            "step ms": 1000 * wall,
            "kernels ms": 1000 * busy,
            "launch gaps": max(0.0, 1 - busy / wall),
            "encoders ms": 1000 * eager,
            "encoders as a CUDA graph ms": 1000 * graph,
        },
    )


def busy_seconds(step: Callable[[], Any], count: int = 3) -> float:
    """Seconds of kernels on the device per step, from the profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(count):
            step()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in found.key_averages()) / 1e6 / count


def captured(way: Callable[[], None]) -> Callable[[], None]:
    """`way` as a CUDA graph: its kernels are launched together."""
    torch.set_autocast_cache_enabled(False)
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                way()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            way()
    finally:
        torch.set_autocast_cache_enabled(True)
    return graph.replay
