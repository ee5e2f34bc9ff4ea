"""Pooled features of a frozen backbone, one row per video (method.md §8, retrieval)."""

from __future__ import annotations

import numpy as np
import torch

from mscl.config.settings import Kernels
from mscl.training.clips import UniformClips
from mscl.training.hardware import DEFAULT
from mscl.training.partial import Partial, over_videos


def extract_features(
    backbone: torch.nn.Module,
    clips: UniformClips,
    device: torch.device,
    workers: int = 0,
    partial: Partial | None = None,
    kernels: Kernels = DEFAULT,
) -> np.ndarray:
    """Mean over each video's clips: (videos, feature_dim) float32, in the order of `clips.rows`."""
    backbone.eval()
    at_once = max(1, 32 // clips.views)
    return over_videos(backbone, clips, at_once, device, workers, partial, kernels, backbone.colours).numpy()
