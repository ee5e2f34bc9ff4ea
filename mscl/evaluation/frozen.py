"""Evaluates the features of one frozen backbone (docs/method.md §8)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from mscl.config.measures import measure
from mscl.config.module_path import load
from mscl.machine.files import write_json
from mscl.models.networks.build import build_backbone, load_backbone_weights
from mscl.stages.jobs import FrozenJob
from mscl.stages.layout import METRICS
from mscl.store.shards import Shards
from mscl.training.clips import UniformClips
from mscl.training.features import extract_features
from mscl.training.hardware import prepare_device


def evaluate_frozen(job: FrozenJob, out: Path, workers: int = 0) -> None:
    """Extract the features of both splits, compute every measure of the job, and write `out`/metrics.json.

    Without `job.weights` the backbone is randomly initialised from the seed. `workers` is the number of loader processes. Raises
    ValueError for weights of another backbone, and when a measure cannot be loaded.
    """
    device = prepare_device(job.device, job.threads)
    torch.manual_seed(job.seed)
    backbone = build_backbone(job.net)
    if job.weights is not None:
        load_backbone_weights(backbone, job.weights)
    backbone = backbone.to(device, memory_format=torch.channels_last_3d)
    rows, store = pd.read_parquet(job.source.manifest), Shards(job.source.frame_indexes())
    clips = [
        UniformClips(store, rows[(rows.split == s) & (rows.label >= 0)], job.frames, job.test_size, job.clips)
        for s in (job.train, job.test)
    ]
    train_x, test_x = (extract_features(backbone, c, device, workers) for c in clips)
    train_y, test_y = (c.rows.label.to_numpy() for c in clips)
    found = {name: load(measure(name).function)(train_x, train_y, test_x, test_y) for name in job.measures}
    metrics = {
        "measures": found,
        "videos": len(test_y),
        "skipped": len(clips[1].skipped),
        "classes": int(rows.label.max()) + 1,
        "chance": 1 / clips[0].rows.label.nunique(),
    }
    write_json(out / METRICS, metrics)
    for name, columns in found.items():
        values = ", ".join(f"{column} {value:.3f}" for column, value in columns.items())
        print(f"{name}: {values}; chance {metrics['chance']:.3f}")
