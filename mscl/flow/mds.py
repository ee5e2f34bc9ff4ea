"""Motion Differential Sampling: at which starts of a video does the motion change most?

Per field t, as it was computed, before it is reduced and quantised for the store: motion boundaries m_t (Sobel of u and v) ->
attention A_t (pooled, upsampled, max 1) -> guided colour image G_t = A_t * colourwheel(flow_t). d_t = mean |G_t - G_{t+1}|; a
start's score averages d over its clip.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from mscl.config.schema import MDSConfig
from mscl.flow.colour import colourwheel, unit_radius

COMPUTED = (384, 640)  # H, W of the paper's field, in whose pixels `pool` is


def motion(flow_THW2: np.ndarray) -> np.ndarray:
    """m_t: root of the summed squared 3x3 Sobel responses, x and y, of u and v; (T, H, W) float32. Borders are mirrored."""
    out = np.empty(flow_THW2.shape[:3], np.float32)
    for t, field in enumerate(flow_THW2):
        field = np.ascontiguousarray(field, np.float32)
        dx, dy = cv2.Sobel(field, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(field, cv2.CV_32F, 0, 1, ksize=3)
        out[t] = np.sqrt((dx * dx + dy * dy).sum(-1))
    return out


def attention(motion_THW: np.ndarray, pool: int) -> np.ndarray:
    """A_t: m_t average-pooled, bilinearly upsampled back, divided by its max. A field without motion boundaries has A = 0.

    Pooled as by a kernel of `pool` x `pool` pixels with stride `pool` on a field of 384 x 640 (H x W), so for 28 into 13 x 22 cells
    of its first 364 rows and 616 columns; on a field of another size the kernel scales with it: the same cells.
    """
    m_T1HW = torch.from_numpy(np.ascontiguousarray(motion_THW, np.float32))[:, None]
    (rows, h), (columns, w) = (_cells(pool, full, n) for full, n in zip(COMPUTED, m_T1HW.shape[-2:]))
    cells = F.adaptive_avg_pool2d(m_T1HW[..., :h, :w], (rows, columns))
    a_THW = F.interpolate(cells, size=m_T1HW.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    top = a_THW.amax((1, 2), keepdim=True)
    return torch.where(top > 0, a_THW / top.clamp_min(torch.finfo(torch.float32).tiny), 0.0).numpy()


def _cells(pool: int, full: int, pixels: int) -> tuple[int, int]:
    """(number of cells along an axis of `pixels`, pixels that they cover); the axis has `full` pixels in the paper's field."""
    count = max(1, full // pool)
    return min(count, pixels), max(1, round(pixels * min(1.0, count * pool / full)))


def guided(flow_THW2: np.ndarray, pool: int) -> np.ndarray:
    """G_t: the colour-wheel image (0..255) weighted by the attention, (T, 3, H, W) float32."""
    flow_T2HW = torch.from_numpy(np.ascontiguousarray(flow_THW2, np.float32)).permute(0, 3, 1, 2)
    return 255 * colourwheel(unit_radius(flow_T2HW)).numpy() * attention(motion(flow_THW2), pool)[:, None]


def differences(chunks: Iterable[np.ndarray], pool: int) -> np.ndarray:
    """d_t = spatial mean of the Euclidean distance (over the channels) of G_t and G_{t+1}; 0 for the last. (T,) float32.

    `chunks`: the video's fields in order, as any number of (t, H, W, 2) arrays, so that a long video need not fit in memory.
    """
    found, last = [], None
    for chunk in chunks:
        g = guided(chunk, pool)
        g, last = (g if last is None else np.concatenate([last, g])), g[-1:]
        found.append(np.sqrt(((g[1:] - g[:-1]) ** 2).sum(1)).mean((1, 2)))
    return np.concatenate([*found, np.zeros(1 if found else 0)]).astype(np.float32)


def start_scores(d_T: np.ndarray, mds: MDSConfig) -> np.ndarray:
    """Score of every start i: sum of d at i, i+stride, ... (`fields` terms, those past the end dropped) / fields."""
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
