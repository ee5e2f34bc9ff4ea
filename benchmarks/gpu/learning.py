"""A real run: generated clips through the pipeline's own flow, pretraining with MSCL and finetuning, at full width. Does it learn?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.gpu import store
from benchmarks.gpu.bench import Bench
from mscl.config.datasets import Embedded
from mscl.config.schema import Config, load_config
from mscl.datasets.generated.embedded import Clip, clip_scene, clips
from mscl.datasets.generated.render import render
from mscl.stages import build, jobs
from mscl.stages.layout import HISTORY, METRICS, WEIGHTS
from mscl.training.engine import Machine
from mscl.training.finetune import finetune
from mscl.training.pretrain import pretrain

DEMO = Path(__file__).parents[2] / "config.yaml"
CLIPS = {"motion_kinetics": {"train": 512}, "motion_ssv2": {"train": 360, "validation": 180}}
TINY_CLIPS = {"motion_kinetics": {"train": 8}, "motion_ssv2": {"train": 12, "validation": 12}}
FULL = {"width": 64, "flow_width": 16, "neck": 128, "size": 64}
PRETRAIN, FINETUNE = (24, 32), (16, 32)  # epochs, batch


def learning(bench: Bench) -> None:
    """The demo's clips, more of them; r3d_18 of full width; the last numbers against the first."""
    config, began = load_config(DEMO), time.perf_counter()
    for name, counts in (CLIPS if bench.gpu else TINY_CLIPS).items():
        _store(bench, config, name, counts)
    bench.note("learning", f"making frames and DIS flow of the clips took {time.perf_counter() - began:.0f} s")
    workers = min(6, len(os.sched_getaffinity(0))) if bench.gpu else 0
    out, began = bench.folder / "pretrain", time.perf_counter()
    out.mkdir()
    pretrain(_pretrain_job(bench, config), out, Machine(workers))
    history = pd.read_csv(out / HISTORY)
    columns = [c for c in history if c.startswith(("acc_", "knn_top1", "loss_rgb"))]
    for column in columns:
        known = history[column].dropna()
        bench.add("learning", what=f"pretraining, {column}", first=float(known.iloc[0]), last=float(known.iloc[-1]))
    bench.note("learning", f"pretraining took {time.perf_counter() - began:.0f} s")
    for name, weights in (("MSCL", out / WEIGHTS), ("random", None)):
        if bench.left() < 0 and name == "random":
            bench.note("learning", "no time left for finetuning from random weights")
            return
        began, folder = time.perf_counter(), bench.folder / f"finetune-{name}"
        folder.mkdir()
        finetune(_finetune_job(bench, config, weights), folder, Machine(workers))
        found = json.loads((folder / METRICS).read_text())
        first = float(pd.read_csv(folder / HISTORY)["train_top1"].iloc[0])
        bench.add("learning", what=f"finetuning from {name} weights: train top-1", first=first, last=_last(folder))
        bench.add("learning", what=f"finetuning from {name} weights: test top-1", first=found["chance"], last=found["top1"])
        bench.note("learning", f"finetuning from {name} weights took {time.perf_counter() - began:.0f} s")


def _last(folder: Path) -> float:
    return float(pd.read_csv(folder / HISTORY)["train_top1"].iloc[-1])


def _store(bench: Bench, config: Config, name: str, counts: dict[str, int]) -> None:
    """The frames, flow and manifest of one generated data set, without video files in between."""
    data, folder = config.datasets[name], bench.folder / name
    embedded = data.embedded.model_copy(update={"clips": counts})
    found = clips(embedded, data.format)
    for kind in ("frames", "flow"):
        (folder / kind).mkdir(parents=True)
    store.write_frames(folder / "frames", _rendered(embedded, data.format, found), len(found), data.frames.step, quality=90)
    store.write_manifest(folder / "manifest.parquet", {c.clip_id: c.program for c in found}, {c.clip_id: c.split for c in found})
    if name in build.flow_datasets(config):
        store.dis_flow(folder, config.flow, config.mds, len(os.sched_getaffinity(0)))


def _rendered(embedded: Embedded, format: str, found: tuple[Clip, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, frames) of every clip, rendered by as many processes as there are cores."""
    asked = [(embedded, format, clip.clip_id) for clip in found]
    with get_context("spawn").Pool(min(len(os.sched_getaffinity(0)), 12)) as pool:
        yield from zip((clip.clip_id for clip in found), pool.imap(_one, asked, chunksize=4))


def _one(asked: tuple[Embedded, str, str]) -> np.ndarray:
    return render(clip_scene(*asked))


def _net(bench: Bench) -> dict:
    return FULL if bench.gpu else {}


def _pretrain_job(bench: Bench, config: Config) -> jobs.PretrainJob:
    job = build.pretrain_job(config, "r18", "mscl", 0)
    epochs, batch = PRETRAIN if bench.gpu else (2, 4)
    watched = job.monitor.model_copy(update={"source": store.source("motion_ssv2", bench.folder / "motion_ssv2", False)})
    return job.model_copy(
        update={
            "net": job.net.model_copy(update=_net(bench)),
            "optim": job.optim.model_copy(update={"epochs": epochs, "batch": batch, "lr": 1e-3}),
            "sources": (store.source("motion_kinetics", bench.folder / "motion_kinetics", True),),
            "monitor": watched.model_copy(update={"every": max(1, epochs // 4), "videos": 360 if bench.gpu else 12}),
            "contrast": job.contrast.model_copy(update={"bn_groups": 2, "queue": 2048 if bench.gpu else 32}),
            "device": bench.device.type,
        }
    )


def _finetune_job(bench: Bench, config: Config, weights: Path | None) -> jobs.FinetuneJob:
    job = build.finetune_job(config, "motion_ssv2", "r18", "mscl", 0)
    epochs, batch = FINETUNE if bench.gpu else (1, 4)
    size = {"test_size": 72} if bench.gpu else {}
    return job.model_copy(
        update={
            "net": job.net.model_copy(update={k: v for k, v in _net(bench).items() if k in ("width", "size")}),
            "finetune": job.finetune.model_copy(update={"epochs": epochs, "batch": batch, "lr": 5e-4} | size),
            "weights": weights,
            "source": store.source("motion_ssv2", bench.folder / "motion_ssv2", False),
            "device": bench.device.type,
        }
    )
