"""Where clips are cut: random and central boxes, positions in a video, and reading them from the store, as uint8 arrays."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np

from mscl.config.settings import ClipConfig
from mscl.flow.quantise import decode_planes
from mscl.store.jpeg import decode_rgb
from mscl.store.shards import Shards

cv2.setNumThreads(0)  # a loader process is one thread

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the frame


def crop_box(rng: np.random.Generator, aspect: float, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """A random-resized-crop box (torchvision's rule): ten tries, then the largest central box within `ratio`.

    `aspect` is the frame's width / height.
    """
    for _ in range(10):
        share = rng.uniform(*area)
        r = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w, h = np.sqrt(share * r / aspect), np.sqrt(share * aspect / r)
        if w <= 1 and h <= 1:
            left, top = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
            return left, top, left + w, top + h
    r = min(max(aspect, ratio[0]), ratio[1])
    return centre_box(aspect, r)


def centre_box(aspect: float, ratio: float = 1.0) -> Box:
    """The largest central box of the given width / height, in a frame of `aspect`."""
    w, h = min(1.0, ratio / aspect), min(1.0, aspect / ratio)
    return (1 - w) / 2, (1 - h) / 2, (1 + w) / 2, (1 + h) / 2


def crop_boxes(aspect: float, crops: int) -> list[Box]:
    """The central square of a frame of width / height `aspect`; with 3 crops, those at both ends of the longer side as well."""
    left, top, right, bottom = centre_box(aspect)
    if crops == 1:
        return [(left, top, right, bottom)]
    return [(left + s * left, top + s * top, right + s * left, bottom + s * top) for s in (-1, 0, 1)]


def _crop(image: np.ndarray, box: Box, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Cut `box` (to the nearest pixel) out of an HWC or HW image and resize it to size x size, into `out` if given.

    Area averaging where it shrinks, bilinear where it grows.
    """
    h, w = image.shape[:2]
    left, top = round(box[0] * w), round(box[1] * h)
    right, bottom = max(round(box[2] * w), left + 1), max(round(box[3] * h), top + 1)
    how = cv2.INTER_AREA if min(right - left, bottom - top) >= size else cv2.INTER_LINEAR
    return cv2.resize(image[top:bottom, left:right], (size, size), out, interpolation=how)


def read_clip(shards: Shards, row: int, positions: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Frames at `positions` (indices of kept frames, ascending) of one video, cropped: (T, size, size, 3) uint8."""
    side = int(size / max(min(box[2] - box[0], box[3] - box[1]), 1e-6))  # decode no larger than the crop needs
    clip = np.empty((len(positions), size, size, 3), np.uint8)
    shards.will_read(row, positions)
    for t, k in enumerate(positions):
        if t and k == positions[t - 1]:  # a short video holds its last frame
            clip[t] = clip[t - 1]
        else:
            _crop(shards.image(row, int(k), partial(decode_rgb, min_side=side)), box, size, clip[t])
    return clip


def read_flow(shards: Shards, row: int, positions: np.ndarray, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields at `positions`: planes (T, size, size, 2) uint8 and factors scale / (radius + 1e-5), (T,) float32."""
    planes = np.empty((len(positions), size, size, 2), np.uint8)
    for t, k in enumerate(positions):
        u, v = shards.image(row, int(k), decode_planes)
        cv2.merge([_crop(u, box, size), _crop(v, box, size)], planes[t])
    scale, radius = (shards.column(name, row)[positions] for name in ("scale", "radius"))
    return planes, (scale / (radius + 1e-5)).astype(np.float32)


def uniform_positions(kept: int, frames: int, rng: np.random.Generator | None = None, offset: float = 0.5) -> np.ndarray:
    """`frames` positions, one in each of as many equal segments of the video.

    At `offset` of its segment, or anywhere in it when `rng` is given (training).
    """
    within = offset if rng is None else rng.uniform(0, 1, frames)
    return np.minimum(((np.arange(frames) + within) * kept / frames).astype(int), kept - 1)


def strided_positions(grid: np.ndarray, frames: int, stride: int, share: float) -> np.ndarray:
    """Positions of `frames` frames that are `stride` raw frames apart, in the sorted raw frame numbers `grid`.

    The clip starts at `share` (0 to 1) of the room that the video leaves for it; past the end of a short video, its last frame.
    """
    room = max(0, grid[-1] - grid[0] - (frames - 1) * stride)
    return positions_of(grid, grid[0] + round(share * room) + np.arange(frames) * stride)


def positions_of(grid: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices in the sorted raw frame numbers `grid` of the wanted ones; past the end, the last."""
    return np.minimum(np.searchsorted(grid, wanted), len(grid) - 1)


def possible_starts(grid: np.ndarray, allowed: np.ndarray | None, clip: ClipConfig) -> np.ndarray:
    """Raw frame numbers at which a clip may start: whole clips only where there are any, and MDS's choice among them.

    A video shorter than a clip starts at its first frame and holds its last; one in which MDS allows no start at all
    (no motion to choose by) starts at its first frame.
    """
    if allowed is not None and not allowed.any():
        return grid[:1]
    whole = grid <= grid[-1] - (clip.frames - 1) * clip.stride
    if not whole.any():
        return grid[:1]
    chosen = whole if allowed is None else whole & allowed
    return grid[chosen] if chosen.any() else grid[whole]


def key_start(rng: np.random.Generator, query: int, starts: np.ndarray, max_shift: int) -> int:
    """The query's start plus a uniform shift within ±max_shift raw frames, snapped to the nearest allowed start."""
    wanted = query + rng.integers(-max_shift, max_shift + 1)
    return starts[np.abs(starts - wanted).argmin()]
