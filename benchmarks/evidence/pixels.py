"""Videos with real pixels and a known motion: a piece of one footage moves over another, and both play.

    python -m benchmarks.evidence.pixels --footage ../videos --out data/pixels/videos --without R6llTwEh07w
    snakemake --cores all --configfile benchmarks/evidence/pixels.yaml

`--footage` holds `kinetics400`, `ucf101` and `hmdb51` as folders of videos; each is used for one split, so that no footage is in two of them.
The piece moves as the object of a generated scene does: in `pieces`, for pretraining, in any heading, and in `orders`, with labels, by
two shifts along the axes whose order and direction is the class. The same footage and seed give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path

import cv2
import numpy as np

from mscl.config.datasets import Dataset
from mscl.config.validation import parse
from mscl.datasets.generated.embedded import Clip, write_dataset
from mscl.datasets.generated.motion import Scene

FOOTAGE = {"kinetics": {"train": "kinetics400"}, "ssv2": {"train": "ucf101", "validation": "hmdb51"}}  # layout -> split -> folder
FRAMES = 32
SUFFIXES = (".mp4", ".avi", ".webm", ".mkv")
WINDOW = (0.45, 0.7)  # side of a piece of footage, in short sides
TO_INDEX = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])  # continuous coordinates to those of pixel centres


def footage(root: Path, folder: str, without: list[str]) -> list[np.ndarray]:
    """The videos of a folder as arrays (T, H, W, 3) uint8, in the order of their paths. Raises ValueError if none is long enough."""
    paths = sorted(path for path in (root / folder).rglob("*") if path.suffix in SUFFIXES)
    read_ones = (read(path) for path in paths if not any(word in path.name for word in without))
    if not (found := [video for video in read_ones if len(video) >= FRAMES]):
        raise ValueError(
            f"{root / folder}: no video of {FRAMES} frames; give the folder that holds kinetics400, ucf101 and hmdb51"
        )
    return found


def read(path: Path) -> np.ndarray:
    """All frames (T, H, W, 3) uint8 RGB of a video, scaled down to a short side of at most 240 pixels."""
    video, frames = cv2.VideoCapture(str(path)), []
    while (answer := video.read())[0]:
        scale = min(1.0, 240 / min(answer[1].shape[:2]))
        small = cv2.resize(answer[1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else answer[1]
        frames.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def compose(behind_THWC: np.ndarray, on_top_THWC: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """`scene.frames` frames (T, H, W, 3) uint8: a disc of one footage, which moves as the object of the scene, over a window of another.

    Both footages play, from frames of their own. Pixels are copied by one resampling; the disc's edge is softened over a pixel.
    """
    width, height = scene.size
    back, front = (_window(video, scene.frames, rng) for video in (behind_THWC, on_top_THWC))
    canvas = 4 * math.ceil(scene.radius * scene.short)  # pixels of the disc's picture, about twice what is shown of it
    y, x = (np.mgrid[:canvas, :canvas] + 0.5) * 2 / canvas - 1  # -1..1, the coordinates of the object
    alpha = np.clip((1 - np.hypot(x, y)) * canvas / 4, 0, 1)[..., None].astype(np.float32)
    to_object = np.array([[2 / canvas, 0, 1 / canvas - 1], [0, 2 / canvas, 1 / canvas - 1], [0, 0, 1]])
    frames = []
    for t in range(scene.frames):
        disc = cv2.resize(front[t], (canvas, canvas), interpolation=cv2.INTER_AREA)
        layer = np.concatenate([disc * alpha, alpha], 2)
        drawn = cv2.warpAffine(layer, (TO_INDEX @ scene.pose(t).matrix @ to_object)[:2], (width, height), flags=cv2.INTER_AREA)
        picture = cv2.resize(back[t], (width, height), interpolation=cv2.INTER_AREA)
        frames.append(cv2.convertScaleAbs(picture * (1 - drawn[..., 3:]) + drawn[..., :3]))
    return np.stack(frames)


def _window(video_THWC: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Consecutive frames of a square somewhere in the footage, (T, S, S, 3)."""
    count, height, width, _ = video_THWC.shape
    first, side = int(rng.integers(count - frames + 1)), round(rng.uniform(*WINDOW) * min(height, width))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return video_THWC[first : first + frames, top : top + side, left : left + side]


def make(out: Path, format: str, counts: dict[str, int], seed: int, given: Path, without: list[str]) -> None:
    """Write one data set: for pretraining in the Kinetics layout, or one with labels in the SSv2 layout."""
    embedded = {"clips": counts, "scenes": "order", "seed": seed, "frames": FRAMES, "size": [64, 64]}
    names = {"kinetics": {"train": "annotations/train.csv"}, "ssv2": {s: f"{s}.json" for s in ("labels", *counts)}}[format]
    values = {"format": format, "root": str(out), "annotations": names, "shards": 1, "embedded": embedded}
    videos = {split: footage(given, FOOTAGE[format][split], without) for split in counts}

    def draw(clip: Clip, scene: Scene) -> np.ndarray:
        digest = hashlib.sha256(f"{seed}/{clip.clip_id}".encode()).digest()
        rng, chosen = np.random.default_rng(list(np.frombuffer(digest, np.uint32))), videos[clip.split]
        behind, on_top = rng.choice(len(chosen), 2, replace=False)
        return compose(chosen[behind], chosen[on_top], scene, rng)

    write_dataset(parse(Dataset, values, "pixels"), draw=draw)
    print(
        f"{out}: " + ", ".join(f"{split} {count} videos from {len(videos[split])} of footage" for split, count in counts.items())
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--footage", type=Path, required=True)
    options.add_argument("--without", nargs="*", default=[], help="words in the names of files that are left out")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seed", type=int, default=31)
    given = options.parse_args()
    make(given.out / "pieces", "kinetics", {"train": 1200}, given.seed, given.footage, given.without)
    make(given.out / "orders", "ssv2", {"train": 640, "validation": 640}, given.seed + 1, given.footage, given.without)


if __name__ == "__main__":
    main()
