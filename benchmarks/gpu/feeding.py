"""Can the loader processes of this machine feed this device from the store?"""

from __future__ import annotations

import os
import time

import numpy as np
import torch
from torch.utils.data import Dataset

from benchmarks.feeding import Ready
from benchmarks.gpu import store
from benchmarks.gpu.bench import Bench
from mscl.models.build import build_method
from mscl.stages import jobs
from mscl.training.clips import PretrainClips, pretrain_rows
from mscl.training.hardware import place
from mscl.training.loader import loading
from mscl.training.pretrain import PretrainStep
from mscl.training.recipe import make_optimizer
from mscl.training.step import begin_step

STEPS = 200  # at most, of the training from the store
VIDEOS, FRAMES = 48, 150  # videos of the store, kept frames of each: 10 seconds at 30 fps, every second frame


def feeding(bench: Bench) -> None:
    """Clips per second of 1, 2, 4… loader processes; then R18 and MSCL trained from the store, and from one sample in memory."""
    videos, frames, height, width, batch = (VIDEOS, FRAMES, 256, 340, 32) if bench.gpu else (4, 24, 48, 64, 4)
    clips = _clips(bench, videos, frames, height, width, batch)
    cores = len(os.sched_getaffinity(0))
    counts = [n for n in (1, 2, 4, 8, 16) if n <= cores] if bench.gpu else [0, 1]
    for workers in counts:
        rate = _rate(bench, clips, workers, batch)
        bench.add("feeding", workers=workers, **{"clips/s": rate})
        if workers == 1:
            bench.rates["loading"] = 1 / rate
    job = bench.pretrain_job("r18", "mscl", batch)
    memory, _ = _training(bench, job, Ready(clips), counts[-1])
    stored, waiting = _training(bench, job, clips, counts[-1])
    rates = {"clips/s": stored, "from memory": memory, "share of the time waiting for data": waiting}
    bench.add("feeding", workers=f"{counts[-1]}, training r18/mscl", **rates)


def _training(bench: Bench, job: jobs.PretrainJob, clips: Dataset, workers: int) -> tuple[float, float]:
    """(clips per second, share of the time that steps wait for a batch), once every loader process has given its first batches."""
    torch.manual_seed(0)
    model, batch = place(build_method(job.net, job.contrast, job.switches), bench.device, job.kernels).train(), job.optim.batch
    step, optimizer = PretrainStep(model, job), make_optimizer(model, job.optim)
    batches = [[i % len(clips) for i in range(at, at + batch)] for at in range(0, STEPS * batch, batch)]
    warm = min(2 * workers + 3, STEPS // 2) if bench.gpu else 2
    with loading(clips, batches, workers, pin=bench.gpu) as loader:
        waited, seen, began = 0.0, 0, 0.0
        for number in range(STEPS if bench.gpu else 4):
            if number == warm:
                bench.sync()
                waited, seen, began = 0.0, 0, time.perf_counter()
            asked = time.perf_counter()
            data = {k: v.to(bench.device, non_blocking=True) for k, v in next(loader).items()}
            waited += time.perf_counter() - asked
            begin_step(step, data, optimizer, job.optim, 0, number, STEPS)
            seen += batch
            if number > 2 * warm and time.perf_counter() - began > 12:
                break
        bench.sync()
        seconds = time.perf_counter() - began
    return seen / seconds, waited / seconds


def _clips(bench: Bench, videos: int, frames: int, height: int, width: int, batch: int) -> PretrainClips:
    folder, rng, step = bench.folder / "feeding", np.random.default_rng(0), 2 if bench.gpu else 1
    names = [f"clip{n:03d}" for n in range(videos)]
    for kind in ("frames", "flow"):
        (folder / kind).mkdir(parents=True)
    store.write_frames(
        folder / "frames", ((n, store.panned(rng, frames, height, width)) for n in names), videos, step, quality=90
    )
    flow = bench.config.flow.model_copy(update={} if bench.gpu else {"gap": 2})
    store.made_up_flow(folder / "flow", names, frames, step, flow, height, width)
    store.write_manifest(folder / "manifest.parquet", dict.fromkeys(names, 0), dict.fromkeys(names, "train"))
    job: jobs.PretrainJob = bench.pretrain_job("r18", "mscl", batch)
    rows = pretrain_rows((store.source("feeding", folder, True),), "train")
    repeat = 40 if bench.gpu else 2
    return PretrainClips(rows * repeat, job.clip, job.augment, job.switches, job.net.size, 0)


def _rate(bench: Bench, clips: PretrainClips, workers: int, batch: int) -> float:
    """Clips per second that arrive on the device, after the loader processes have started."""
    order = np.random.default_rng(workers).permutation(len(clips)).tolist()
    batches = [order[at : at + batch] for at in range(0, len(order) - batch + 1, batch)]
    with loading(clips, batches, workers, pin=bench.gpu) as loader:
        for _ in range(min(2 * workers, len(batches) - 2) or 1):  # until every process has given its first batch
            next(loader)
        began, seen = time.perf_counter(), 0
        for sample in loader:
            tensors = {k: v.to(bench.device, non_blocking=True) for k, v in sample.items()}
            seen += len(next(iter(tensors.values())))
            if time.perf_counter() - began > (3 if bench.gpu else 0.2):
                break
        torch.cuda.synchronize() if bench.gpu else None
        return seen / (time.perf_counter() - began)
