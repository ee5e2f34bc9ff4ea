"""Optical flow between frames of a clip, by RAFT (torchvision) or DIS (OpenCV), behind one callable.

RAFT is the paper's; DIS needs no weights and no GPU, so the demo and machines without either use it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from mscl.config import FlowConfig
from mscl.device import pick_device

Pairs = Sequence[tuple[int, int]]


class Estimator(Protocol):
    """f(frames, pairs) -> one flow_HW2 float32 per pair (i, j) of positions in `frames`, which are THWC uint8 RGB.

    One that looks at brightness only (`grey`) also takes THW, which is cheaper to decode.
    """

    grey: bool

    def __call__(self, frames: np.ndarray, pairs: Pairs) -> list[np.ndarray]: ...


def make_estimator(flow: FlowConfig, device: str) -> Estimator:
    """The estimator of a configuration.

    Flow is computed at `flow.size` and returned on the grid that is stored (`stored_size`), (u, v) in pixels of that
    grid. May be called from several threads. Raises ValueError when RAFT's weights or size cannot be used.
    """
    if flow.method == "dis":
        return _Dis(flow)
    from mscl.flow.raft import Raft

    return Raft(flow, pick_device(device))


def stored_size(frame_hw: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) of a stored field: the frame's aspect, short side `short_side` but never more than the frame's."""
    h, w = frame_hw
    factor = min(1.0, short_side / min(h, w))
    return max(1, round(h * factor)), max(1, round(w * factor))


def to_grid(flow_HW2: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize a field and rescale its vectors to the pixels of the new grid."""
    h, w = flow_HW2.shape[:2]
    resized = resize(np.ascontiguousarray(flow_HW2, np.float32), size_hw)
    return resized * np.array([size_hw[1] / w, size_hw[0] / h], np.float32)


def resize(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == tuple(size_hw):
        return image
    shrinks = size_hw[0] < image.shape[0] or size_hw[1] < image.shape[1]
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class _Dis:
    grey = True

    def __init__(self, flow: FlowConfig):
        self.flow = flow
        self._own = threading.local()  # a DISOpticalFlow object keeps its pyramids: one per thread

    def __call__(self, frames: np.ndarray, pairs: Pairs) -> list[np.ndarray]:
        if not hasattr(self._own, "dis"):
            self._own.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        size = stored_size(frames.shape[1:3], self.flow.short_side)
        brightness = lambda frame: frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)  # noqa: E731
        grey = {k: resize(brightness(frames[k]), self.flow.size) for k in sorted({k for pair in pairs for k in pair})}
        return [to_grid(self._own.dis.calc(grey[i], grey[j], None), size) for i, j in pairs]
