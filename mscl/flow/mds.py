"""Motion Differential Sampling: at which starts of a video does the motion change most?

Per field t, as it was computed, before it is reduced and quantised for the store: motion boundaries m_t (Sobel of u and v) ->
attention A_t (pooled, upsampled, max 1) -> guided colour image G_t = A_t * colourwheel(flow_t). d_t = mean |G_t - G_{t+1}|; a
start's score averages d over its clip.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from mscl.config.settings import MDSConfig
from mscl.flow.colour import HUES, wheel

COMPUTED = (384, 640)  # H, W of the paper's field, in whose pixels `pool` is
ROWS = 64  # rows of a picture at a time, so that what is computed of them stays in the processor's cache
NEAR = np.float32(1 - 1e-5)  # of the largest squared radius: pixels that may have the largest radius


def motion(flow_HW2: np.ndarray) -> np.ndarray:
    """m_t: root of the summed squared 3x3 Sobel responses, x and y, of u and v; (H, W) float32. Borders are mirrored."""
    return _motion(cv2.split(np.ascontiguousarray(flow_HW2, np.float32)))


def _motion(planes: Sequence[np.ndarray]) -> np.ndarray:
    total = 0.0
    for plane in planes:
        dx, dy = cv2.Sobel(plane, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(plane, cv2.CV_32F, 0, 1, ksize=3)
        dx *= dx
        dy *= dy
        dx += dy
        total = dx + total
    return np.sqrt(total, out=total)


def attention(motion_HW: np.ndarray, pool: int) -> np.ndarray:
    """A_t: m_t average-pooled, bilinearly upsampled back, divided by its max. A field without motion boundaries has A = 0.

    Pooled as by a kernel of `pool` x `pool` pixels with stride `pool` on a field of 384 x 640 (H x W), so for 28 into 13 x 22 cells
    of its first 364 rows and 616 columns; on a field of another size the kernel scales with it: the same cells.
    """
    m_11HW = torch.from_numpy(np.ascontiguousarray(motion_HW, np.float32))[None, None]
    (rows, h), (columns, w) = (_cells(pool, full, n) for full, n in zip(COMPUTED, motion_HW.shape))
    cells = F.adaptive_avg_pool2d(m_11HW[..., :h, :w], (rows, columns))
    a_HW = F.interpolate(cells, size=motion_HW.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    top = a_HW.max()
    return np.divide(a_HW, max(top, np.finfo(np.float32).tiny), out=a_HW) if top > 0 else np.zeros_like(a_HW)


def _cells(pool: int, full: int, pixels: int) -> tuple[int, int]:
    """(number of cells along an axis of `pixels`, pixels that they cover); the axis has `full` pixels in the paper's field."""
    count = max(1, full // pool)
    return min(count, pixels), max(1, round(pixels * min(1.0, count * pool / full)))


def guided(flow_HW2: np.ndarray, pool: int) -> np.ndarray:
    """G_t: the colour-wheel image (0..255) weighted by the attention, (3, H, W) float32.

    The colours are those of `mscl.flow.colour.colourwheel` of the field divided by its largest radius, in a third of the time.
    """
    u, v = planes = cv2.split(np.ascontiguousarray(flow_HW2, np.float32))
    weight, radius = attention(_motion(planes), pool), _largest_radius(u, v) + np.float32(1e-5)
    out = np.empty((3, *u.shape), np.float32)
    for at in range(0, len(u), ROWS):
        rows = slice(at, at + ROWS)
        _colour(u[rows] / radius, v[rows] / radius, out[:, rows])
        out[:, rows] *= 255
        out[:, rows] *= weight[rows]
    return out


def _largest_radius(u: np.ndarray, v: np.ndarray) -> np.float32:
    """As `torch.linalg.vector_norm` rounds it, which is slow and so looks only at pixels that may have the largest."""
    squared = u * u
    squared += v * v
    near = squared >= squared.max() * NEAR
    return np.float32(torch.linalg.vector_norm(torch.from_numpy(np.stack([u[near], v[near]], 1)), dim=1).max())


def _colour(u: np.ndarray, v: np.ndarray, out_3HW: np.ndarray) -> None:
    """Write the colours, 0..1, of vectors of radius at most 1."""
    radius = np.minimum(np.hypot(u, v), np.float32(1))
    hue = torch.atan2(torch.from_numpy(-v), torch.from_numpy(-u)).numpy()
    hue /= np.float32(math.pi)
    hue += 1
    hue *= (HUES - 1) / 2
    low = hue.astype(np.uint8)
    hue -= low
    for colour, (lack, step) in zip(out_3HW, _tables()):
        part = cv2.LUT(low, step)
        part *= hue
        part += cv2.LUT(low, lack)
        part *= radius
        np.subtract(1, part, out=colour)


@functools.cache
def _tables() -> list[tuple[np.ndarray, np.ndarray]]:
    """Per channel: 1 - colour of each hue, and the step to the next, as tables for `cv2.LUT`."""
    lack = np.zeros((3, 256), np.float32)
    lack[:, :HUES] = 1 - wheel().T / 255
    step = np.zeros_like(lack)
    step[:, :HUES] = np.roll(lack[:, :HUES], -1, 1) - lack[:, :HUES]
    return list(zip(lack, step))


def differences(chunks: Iterable[np.ndarray], pool: int) -> np.ndarray:
    """d_t = spatial mean of the Euclidean distance (over the channels) of G_t and G_{t+1}; 0 for the last. (T,) float32.

    `chunks`: the video's fields in order, as any number of sequences of (H, W, 2) arrays, so that a long video need not fit in memory.
    """
    found, last = [], None
    for field in (field for chunk in chunks for field in chunk):
        g = guided(field, pool)
        if last is not None:
            found.append(_distance(last, g))
        last = g
    return np.array(found if last is None else [*found, 0], np.float32)


def _distance(a_3HW: np.ndarray, b_3HW: np.ndarray) -> np.float32:
    """Spatial mean of the Euclidean distance over the channels. Overwrites `a_3HW`."""
    for at in range(0, a_3HW.shape[1], ROWS):
        off = a_3HW[:, at : at + ROWS]
        np.subtract(b_3HW[:, at : at + ROWS], off, out=off)
        off *= off
        off[0] += off[1]
        off[0] += off[2]
        np.sqrt(off[0], out=off[0])
    return a_3HW[0].mean()


def of_fields(mds: MDSConfig, step: int) -> MDSConfig:
    """`mds` with its stride in stored fields, of which every step-th kept frame has one; the setting is in kept frames."""
    return mds.model_copy(update={"stride": mds.stride // step})


def start_scores(d_T: np.ndarray, mds: MDSConfig) -> np.ndarray:
    """Score of every start i: sum of d at i, i+stride (in stored fields), ... (`fields` terms, those past the end dropped) / fields."""
    padded = np.concatenate([np.asarray(d_T, np.float64), np.zeros(mds.stride * mds.fields)])
    return sum(padded[j * mds.stride :][: len(d_T)] for j in range(mds.fields)).astype(np.float32) / np.float32(mds.fields)


def allowed_starts(scores_T: np.ndarray) -> tuple[np.ndarray, str]:
    """(allowed, note): a start is allowed iff its score exceeds the video's median.

    If no start exceeds it (one field only, or constant motion), `note` gives the reason and only start 0 is used.
    """
    allowed = scores_T > np.median(scores_T) if len(scores_T) else np.zeros(0, bool)
    if allowed.any():
        return allowed, ""
    why = "only one flow field" if len(scores_T) == 1 else "motion does not change, so no start scores above the median"
    return allowed, f"{why}; start 0 is used"


def score_clip(chunks: Iterable[np.ndarray], mds: MDSConfig) -> tuple[np.ndarray, np.ndarray, str]:
    """(scores float32, allowed bool, note) of one video's fields; see `differences` for `chunks`."""
    scores = start_scores(differences(chunks, mds.pool), mds)
    return scores, *allowed_starts(scores)
