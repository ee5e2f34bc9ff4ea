"""Frames and fields on another grid: sizes, resizing, and the vectors that go with it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Pairs = Sequence[tuple[int, int]]


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
