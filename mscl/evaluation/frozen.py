"""Linear probe and retrieval of one frozen backbone (method.md §8)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from mscl.machine.files import write_json
from mscl.measures.probe import linear_probe
from mscl.measures.retrieval import retrieval
from mscl.models.networks.build import build_backbone, load_backbone_weights
from mscl.stages.jobs import FrozenJob
from mscl.store.shards import Shards
from mscl.training.clips import UniformClips
from mscl.training.features import extract_features
from mscl.training.hardware import prepare_device


def evaluate_frozen(job: FrozenJob, weights: Path | None, out: Path, workers: int = 0) -> None:
    """Features of both splits -> `metrics.json` in `out`; `weights` None measures a random initialisation."""
    device = prepare_device(job.device, job.threads)
    torch.manual_seed(job.seed)
    backbone = build_backbone(job.net)
    if weights is not None:
        load_backbone_weights(backbone, weights)
    backbone = backbone.to(device, memory_format=torch.channels_last_3d)
    rows, store = pd.read_parquet(job.source.manifest), Shards(job.source.frame_indexes())
    clips = [
        UniformClips(store, rows[(rows.split == s) & (rows.label >= 0)], job.frames, job.test_size, job.clips)
        for s in (job.train, job.test)
    ]
    train_x, test_x = (extract_features(backbone, c, device, workers) for c in clips)
    train_y, test_y = (c.rows.label.to_numpy() for c in clips)
    metrics = {
        "probe_top1": linear_probe(train_x, train_y, test_x, test_y)["top1"],
        "retrieval": retrieval(train_x, train_y, test_x, test_y),
        "videos": len(test_y),
        "skipped": len(clips[1].skipped),
        "classes": int(rows.label.max()) + 1,
        "chance": 1 / clips[0].rows.label.nunique(),
    }
    write_json(out / "metrics.json", metrics)
    print(f"probe top-1 {metrics['probe_top1']:.3f}, R@1 {metrics['retrieval']['1']:.3f}, chance {metrics['chance']:.3f}")
