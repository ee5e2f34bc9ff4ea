"""The error of stored flow: end-point error, agreement of the motion scores (MDS), bytes per field.

    python -m benchmarks.quantisation VIDEO...

Reference: DIS at 384 x 640, as float32 at the size of the extracted frames (short side 256). Each stored form is decoded, resized
to the grid of the reference, and compared there. MDS: rank correlation (Spearman) of the scores of a video with those of the
reference, and the share of the allowed starts of the reference that are still allowed. Numbers are means over the fields, then
over the videos.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.common import machine, versions
from mscl.config.datasets import FramesConfig
from mscl.config.schema import FlowConfig, MDSConfig
from mscl.flow.estimate import make_estimator
from mscl.flow.grid import stored_size, to_grid
from mscl.flow.mds import score_clip
from mscl.flow.quantise import decode_field, encode_field
from mscl.flow.shard import field_pairs
from mscl.store.jpeg import decode_gray
from mscl.video.ffmpeg import decode

GAP, FRAMES = 8, FramesConfig(step=2, short_side=256)
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
    "float32, 256": (256, lambda f: (f, f.size * 4)),
    "float16, 128": (128, half),
    "8-bit PNG, 128": (128, lossless),
    "mscl quality 100, 256": (256, ours(100)),
    "mscl quality 95, 256": (256, ours(95)),
    "mscl quality 100, 128": (128, ours(100)),
    "mscl quality 95, 128 (default)": (128, ours(95)),
    "mscl quality 90, 128": (128, ours(90)),
    "mscl quality 75, 128": (128, ours(75)),
    "mscl quality 95, 64": (64, ours(95)),
    "two JPEGs clipped to 20 px, quality 95, 128": (128, clipped(20 / 2, 95)),  # 20 px at 256 are 10 px at 128
}


def one_video(path: Path) -> list[dict]:
    """One row per form of storage for one video."""
    flow = FlowConfig(gap=GAP, size=(384, 640), short_side=256)
    frames = np.stack([decode_gray(j) for j in decode(path, FRAMES).jpegs])
    pairs = field_pairs(np.arange(len(frames)) * FRAMES.step, GAP)
    reference = np.stack(make_estimator(flow, "cpu")(frames, pairs))
    scores, allowed, _ = score_clip([reference], MDSConfig())
    rows = []
    for name, (side, way) in WAYS.items():
        small = stored_size(frames.shape[1:3], side)
        decoded, sizes = zip(*(way(to_grid(field, small)) for field in reference))
        back = np.stack([to_grid(field, reference.shape[1:3]) for field in decoded])
        error = np.linalg.norm(back - reference, axis=-1)
        theirs, kept, _ = score_clip([np.stack(decoded)], MDSConfig())
        rows.append(
            {
                "storage": name,
                "EPE, px at 256": error.mean(),
                "EPE / motion, %": 100 * error.mean() / np.linalg.norm(reference, axis=-1).mean(),
                "MDS rank correlation": pd.Series(scores).corr(pd.Series(theirs), method="spearman"),
                "allowed kept, %": 100 * (kept & allowed).sum() / allowed.sum(),
                "bytes per field": np.mean(sizes),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", type=Path, nargs="+")
    videos = parser.parse_args().videos
    table = pd.DataFrame([row for video in videos for row in one_video(video)])
    table = table.groupby("storage", sort=False).mean()
    print(f"{machine()}; {versions('opencv-python-headless', 'simplejpeg', 'numpy')}; {len(videos)} videos\n")
    formats = {
        "EPE, px at 256": ".3f",
        "EPE / motion, %": ".1f",
        "MDS rank correlation": ".3f",
        "allowed kept, %": ".1f",
        "bytes per field": ",.0f",
    }
    print("| storage | " + " | ".join(formats) + " |\n|---" + "|---:" * len(formats) + "|")
    for name, row in table.iterrows():
        print(f"| {name} | " + " | ".join(format(row[c], f) for c, f in formats.items()) + " |")


if __name__ == "__main__":
    main()
