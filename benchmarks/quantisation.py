"""The error of stored flow: end-point error and bytes per field, by short side, JPEG quality and other forms.

    python -m benchmarks.quantisation VIDEO...
    python -m benchmarks.quantisation --generated 8

Each stored form is decoded, resized to the grid of the frames (short side 256), and compared there. Of videos: with the DIS flow
at 384 x 640 that was stored. Of generated videos: with the exact flow, after storing the exact flow, and after storing DIS flow, at
the pixels whose target is visible. Means over the fields, then over the videos. Motion scores (MDS) are no matter of storage: they
are computed before a field is stored (`mscl.flow.shard`).
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.common import machine, versions
from benchmarks.flow import FLOW, Generated, generated
from mscl.config.datasets import FramesConfig
from mscl.flow.estimate import make_estimator
from mscl.flow.grid import stored_size, to_grid
from mscl.flow.quantise import decode_field, encode_field
from mscl.flow.shard import field_pairs
from mscl.store.jpeg import decode_gray
from mscl.video.ffmpeg import decode

FRAMES = FramesConfig(step=2, short_side=256)
MOST = 60  # frames of a video that are used
Way = Callable[[np.ndarray], tuple[np.ndarray, int]]  # field -> (decoded field, bytes)


def ours(quality: int) -> Way:
    """The store's own form."""

    def way(field: np.ndarray) -> tuple[np.ndarray, int]:
        jpeg, scale, _ = encode_field(field, quality)
        return decode_field(jpeg, scale), len(jpeg) + 8  # scale and radius are in the index

    return way


def clipped(bound: float, quality: int) -> Way:
    """The usual form: two JPEGs, with flow clipped to ±bound pixels."""

    def way(field: np.ndarray) -> tuple[np.ndarray, int]:
        planes = np.rint(np.clip(field, -bound, bound) * (127 / bound)) + 128
        jpegs = [
            cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for p in planes.astype(np.uint8).transpose(2, 0, 1)
        ]
        back = np.stack([cv2.imdecode(j, cv2.IMREAD_GRAYSCALE) for j in jpegs], -1).astype(np.float32)
        return (back - 128) * np.float32(bound / 127), sum(map(len, jpegs))

    return way


def lossless(field: np.ndarray) -> tuple[np.ndarray, int]:
    """The store's planes as PNG: only the error of 8 bits."""
    scale = float(np.abs(field).max()) or 1.0
    planes = np.rint(field * (127 / scale)) + 128
    stacked = np.concatenate([planes[..., 0], planes[..., 1]]).astype(np.uint8)
    return (planes.astype(np.float32) - 128) * np.float32(scale / 127), len(cv2.imencode(".png", stacked)[1])


def half(field: np.ndarray) -> tuple[np.ndarray, int]:
    """float16."""
    return field.astype(np.float16).astype(np.float32), field.size * 2


WAYS: dict[str, tuple[int, Way]] = {
    "float16, 128": (128, half),
    "8-bit PNG, 128": (128, lossless),
    **{f"mscl quality {quality}, {side}": (side, ours(quality)) for side in (256, 128) for quality in (100, 95, 92, 90, 85, 75)},
    **{f"mscl quality {quality}, {side}": (side, ours(quality)) for side in (112, 96, 64) for quality in (95, 90)},
    "two JPEGs clipped to 20 px, quality 95, 128": (128, clipped(20 / 2, 95)),  # 20 px at 256 are 10 px at 128
}


def stored(fields: np.ndarray, side: int, way: Way) -> tuple[np.ndarray, float]:
    """(fields after storing them with this short side, on the grid that they came on; bytes per field)."""
    grid = fields.shape[1:3]
    decoded, sizes = zip(*(way(to_grid(field, stored_size(grid, side))) for field in fields))
    return np.stack([to_grid(field, grid) for field in decoded]), float(np.mean(sizes))


def length(fields: np.ndarray) -> np.ndarray:
    return np.linalg.norm(fields, axis=-1)


def one_video(path: Path) -> list[dict]:
    """One row per form of storage for one video."""
    frames = np.stack([decode_gray(j) for j in itertools.islice(decode(path, FRAMES).jpegs, MOST)])
    pairs = field_pairs(np.arange(len(frames)) * FRAMES.step, FLOW.gap)
    fields = np.stack([to_grid(field, frames.shape[1:3]) for field in make_estimator(FLOW, "cpu")(frames, pairs)])
    rows = []
    for name, (side, way) in WAYS.items():
        back, size = stored(fields, side, way)
        error, motion = length(back - fields).mean(), length(fields).mean()
        rows.append({"storage": name, "EPE, px": error, "EPE / motion, %": 100 * error / motion, "bytes per field": size})
    return rows


def of_generated(clip: Generated) -> list[dict]:
    """One row per form of storage for one generated video."""
    flow = FLOW.model_copy(update={"size": clip.flow.shape[1:3]})
    found, exact = np.stack(make_estimator(flow, "cpu")(clip.frames, clip.pairs)), clip.flow
    rows = []
    for name, (side, way) in {"as computed": (256, lambda field: (field, 4 * field.size)), **WAYS}.items():
        (kept, _), (back, size) = stored(exact, side, way), stored(found, side, way)
        errors = [length(fields - exact)[clip.valid].mean() for fields in (kept, back)]
        rows.append(
            {"storage": name, **dict(zip(("EPE, px: exact flow, stored", "DIS, stored"), errors)), "bytes per field": size}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--generated", type=int, default=0, help="use so many generated videos")
    a = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = generated(a.generated, Path(folder), FRAMES) if a.generated else ()
        rows = [row for clip in made for row in of_generated(clip)] + [row for video in a.videos for row in one_video(video)]
    print(f"{machine()}; {versions('opencv-python-headless', 'simplejpeg', 'numpy')}; {a.generated or len(a.videos)} videos\n")
    print(pd.DataFrame(rows).groupby("storage", sort=False).mean().to_markdown(floatfmt=",.3f"))


if __name__ == "__main__":
    main()
