"""Pooled features of a frozen backbone, one row per video (method.md §8, retrieval)."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader

from mscl.training.augment import normalise
from mscl.training.clips import UniformClips
from mscl.training.hardware import autocast


@torch.no_grad()
def extract_features(backbone: torch.nn.Module, clips: UniformClips, device: torch.device, workers: int = 0) -> np.ndarray:
    """Mean over each video's uniform centre-cropped clips: (videos, feature_dim) float32, in the order of `clips.rows`."""
    backbone.eval()
    out = []
    for batch in DataLoader(clips, batch_size=max(1, 32 // clips.clips), num_workers=workers):
        B, K = batch["clip_KTHWC"].shape[:2]
        x = normalise(batch["clip_KTHWC"].flatten(0, 1).to(device)).contiguous(memory_format=torch.channels_last_3d)
        with autocast(device):
            features = backbone(x)
        out.append(features.float().view(B, K, -1).mean(1).cpu())
    return torch.cat(out).numpy()
