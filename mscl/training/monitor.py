"""Is the network still learning something? A k-NN test on videos that pretraining never sees, every few epochs.

It looks at the query encoder in eval mode and draws nothing at random: training goes on as if it had not been there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from mscl.measures.neighbours import leave_one_out
from mscl.models import distributed
from mscl.models.moco import Encoder
from mscl.stages.jobs import PretrainJob
from mscl.store.shards import Shards
from mscl.training.clips import UniformClips, group_numbers
from mscl.training.features import extract_features

COLLAPSED = 0.1


def choose(manifest: pd.DataFrame, split: str, videos: int) -> pd.DataFrame:
    """`videos` labelled rows of a split, evenly over the order of their clip_ids: always the same ones."""
    rows = manifest[(manifest.split == split) & (manifest.label >= 0) & (manifest.status == "ok")].sort_values("clip_id")
    if rows.empty:
        return rows
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(videos, len(rows))).round().astype(int))]


def spread(z_ND: torch.Tensor) -> float:
    """How far apart normalised embeddings lie: 1 where they fill the sphere evenly, 0 where all are one point."""
    return (z_ND.std(0, correction=0).square().sum().sqrt()).item()


class Monitor:
    """`measure(epoch, last)` gives columns of the history: `knn_top1`, `knn_chance`, `spread`; {} where none is due."""

    def __init__(self, job: PretrainJob, encoder: Encoder, device: torch.device, workers: int = 0):
        self.every, self.encoder, self.device, self.workers = job.monitor.every, encoder, device, workers
        self.kernels = job.kernels
        source = job.monitor.source
        rows = choose(pd.read_parquet(source.manifest), job.monitor.split, job.monitor.videos)
        self.clips = UniformClips(Shards(source.frame_indexes()), rows, job.clip.frames, job.net.size)
        if len(self.clips) < 2:
            raise ValueError(
                f"pretrain.monitor: {Path(source.manifest)} has {len(self.clips)} usable labelled videos in split "
                f"'{job.monitor.split}'; name another split, or leave monitor out"
            )
        self.labels, self.groups = self.clips.rows.label.to_numpy(np.int64), group_numbers(self.clips.rows)

    def measure(self, epoch: int, last: bool) -> dict[str, float]:
        if (epoch % self.every and not last) or distributed.rank():
            return {}
        features = extract_features(self.encoder.backbone, self.clips, self.device, self.workers, kernels=self.kernels)
        self.encoder.eval()  # a head may have batch norms, too
        with torch.no_grad():
            z = F.normalize(self.encoder.head(torch.from_numpy(features).to(self.device)).float(), dim=1).cpu()
        self.encoder.train()
        found = {"knn_top1": leave_one_out(features, self.labels, groups_N=self.groups), "spread": spread(z)}
        found["knn_chance"] = np.bincount(self.labels).max() / len(self.labels)
        if found["spread"] < COLLAPSED:
            print(
                f"epoch {epoch}: embeddings of different videos lie together (spread {found['spread']:.3f}): the network has collapsed",
                file=sys.stderr,
            )
        return found
