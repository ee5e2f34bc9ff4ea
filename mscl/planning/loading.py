"""Measure the CPU time to load training samples, with the data loader's own code on a small store of available videos."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd

from mscl.config.schema import Config
from mscl.flow.shard import flow_shard
from mscl.planning.probe import Sample
from mscl.stages import build, jobs
from mscl.store.shards import Shards
from mscl.training.clips import FinetuneClips, PretrainClips, pretrain_rows
from mscl.video.extract import extract_shard

VIDEOS = 3  # number of videos in the store
QUICK = (48, 64)  # a small flow.size: the stored fields have the same size, whatever size they are computed at


def make_store(config: Config, name: str, samples: list[Sample], flow: bool, folder: Path) -> jobs.Source:
    """Extract frames, and flow if `flow` is set, of up to VIDEOS samples into `folder`, as one shard in the pretraining split."""
    source = jobs.Source(
        name=name,
        manifest=folder / f"{name}.parquet",
        frames=folder / f"{name}-frames",
        shards=1,
        flow=folder / f"{name}-flow" if flow else None,
    )
    same = {"split": config.pretrain.split, "label": 0, "class_name": "", "shard": 0, "status": "ok", "reason": ""}
    rows = [
        {"clip_id": f"clip{k}", "path": str(s.path), "start": s.start, "end": s.end} | same
        for k, s in enumerate(samples[:VIDEOS])
    ]
    pd.DataFrame(rows).to_parquet(source.manifest, index=False)
    index = source.frame_indexes()[0]
    job = build.frames_job(config, name)
    stored = job.model_copy(update={"frames": job.frames.model_copy(update={"keep": "all"})})  # decoding is a rate of its own
    extract_shard(stored, source.manifest, 0, index.with_suffix(".tar"), index)
    if flow:
        quick = config.flow.model_copy(update={"method": "dis", "size": QUICK, "command": ()})
        job, out = jobs.FlowJob(flow=quick, mds=config.mds, device="cpu"), source.flow_indexes()[0]
        flow_shard(job, index, index.with_suffix(".tar"), out.with_suffix(".tar"), out)
    return source


def measured_loading(config: Config, stores: dict[str, jobs.Source], seconds: float) -> dict[str, float]:
    """{"<model>/<method>" or "<model>/finetune/<target>": CPU seconds to load one video}; takes about `seconds` in total.

    A network is left out if none of the available videos is long enough for it.
    """
    networks = sum(len(config.pretrained_of(name)) + len(config.targets_of(name)) for name in config.models)
    each, found = seconds / networks, {}
    for name, model in config.models.items():
        for method in config.pretrained_of(name):
            job = build.pretrain_job(config, name, method, config.seeds[0])
            sources = [stores[d] for d in config.pretrain.datasets]
            sources = [s if job.switches.flow else s.model_copy(update={"flow": None}) for s in sources]
            if rows := pretrain_rows(sources, config.pretrain.split):
                found[f"{name}/{method}"] = _timed(
                    PretrainClips(rows, job.clip, job.augment, job.switches, job.net.size, job.seed), each
                )
        for target in config.targets_of(name):
            store = Shards(stores[target.dataset].frame_indexes())
            rows = pd.read_parquet(stores[target.dataset].manifest)
            clips = FinetuneClips(store, rows, config.finetune_of(target.name, name), model.size, 0)
            if len(clips):
                found[f"{name}/finetune/{target.name}"] = _timed(clips, each)
    return found


def _timed(dataset: PretrainClips | FinetuneClips, seconds: float) -> float:
    """Mean CPU seconds to load one sample, over several epochs."""
    dataset[0]
    began, before, drawn = time.monotonic(), time.process_time(), 0
    while drawn < 2 * len(dataset) or time.monotonic() - began < seconds:
        dataset.set_epoch(drawn // len(dataset))
        dataset[drawn % len(dataset)]
        drawn += 1
    return (time.process_time() - before) / drawn
