"""Videos with real pixels and a known motion: a window moves over footage that plays.

    python -m benchmarks.evidence.pixels --footage ../videos --out data/pixels/videos --without R6llTwEh07w
    snakemake --cores all --configfile benchmarks/evidence/pixels.yaml

`--footage` holds `kinetics400`, `ucf101` and `hmdb51` as folders of videos; each is used for one split, so that no footage is in two of them.
What is in the window moves as the object of a generated scene does: `pans`, for pretraining, by shift, zoom and turn in any heading, and
`orders`, with labels, by two shifts along the axes whose order and direction is the class. The same footage and seed give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
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
WINDOW = (0.45, 0.7)  # side of the window, in short sides of the footage


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


def pan(video_THWC: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """`scene.frames` frames (T, H, W, 3) of a window on consecutive frames of the footage; what is in it moves as the object of the scene."""
    count, height, width, _ = video_THWC.shape
    first = int(rng.integers(count - scene.frames + 1))
    side = rng.uniform(*WINDOW) * min(height, width)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    scale = scene.short / side
    window = np.array([[scale, 0, -left * scale], [0, scale, -top * scale], [0, 0, 1]])
    start = np.linalg.inv(scene.pose(0).matrix)
    return np.stack(
        [
            cv2.warpAffine(
                video_THWC[first + t],
                (scene.pose(t).matrix @ start @ window)[:2],
                scene.size,
                flags=cv2.INTER_AREA,
                borderMode=cv2.BORDER_REFLECT_101,
            )
            for t in range(scene.frames)
        ]
    )


def make(out: Path, format: str, counts: dict[str, int], seed: int, given: Path, without: list[str]) -> None:
    """Write one data set: for pretraining in the Kinetics layout, or one with labels in the SSv2 layout."""
    scenes = {"kinetics": "programs", "ssv2": "order"}[format]
    embedded = {"clips": counts, "scenes": scenes, "seed": seed, "frames": FRAMES, "size": [64, 64]}
    names = {"kinetics": {"train": "annotations/train.csv"}, "ssv2": {s: f"{s}.json" for s in ("labels", *counts)}}[format]
    values = {"format": format, "root": str(out), "annotations": names, "shards": 1, "embedded": embedded}
    videos = {split: footage(given, FOOTAGE[format][split], without) for split in counts}

    def draw(clip: Clip, scene: Scene) -> np.ndarray:
        digest = hashlib.sha256(f"{seed}/{clip.clip_id}".encode()).digest()
        rng, chosen = np.random.default_rng(list(np.frombuffer(digest, np.uint32))), videos[clip.split]
        return pan(chosen[int(rng.integers(len(chosen)))], scene, rng)

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
    make(given.out / "pans", "kinetics", {"train": 1200}, given.seed, given.footage, given.without)
    make(given.out / "orders", "ssv2", {"train": 640, "validation": 640}, given.seed + 1, given.footage, given.without)


if __name__ == "__main__":
    main()
