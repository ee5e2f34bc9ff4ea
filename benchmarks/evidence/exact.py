"""The exact flow of generated videos, as a program for `flow.method: command` (docs/flow-programs.md): an upper bound for any estimator.

    snakemake --cores all --configfile config/evidence.yaml benchmarks/evidence/exact.yaml

The program is given pictures only. It finds the clip and the frame of each by its content among the stored frames, and answers what the renderer knows.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from mscl.config.overlay import read_config
from mscl.config.schema import load_config
from mscl.datasets.generated.embedded import exact_flow
from mscl.flow.grid import resize
from mscl.store.jpeg import decode_rgb
from mscl.store.shards import Shards

Known = dict[bytes, set[tuple[str, int]]]  # content of a picture -> the (clip, raw frame) that look so


def known_pictures(frames: Path, size_hw: tuple[int, int]) -> Known:
    """All stored frames of a data set, as the flow stage shows them. Two frames of a still scene may look alike."""
    shards, known = Shards(sorted(frames.glob("*.parquet"))), defaultdict(set)
    for row, clip in shards.clips.iterrows():
        for k, frame in enumerate(shards.frames(row)):
            known[content(resize(decode_rgb(shards.read(row, k)), size_hw))].add((clip["clip_id"], int(frame)))
    return known


def content(picture_HWC: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture_HWC)).digest()


def place(known: Known, pictures: dict[int, np.ndarray]) -> tuple[str, int]:
    """The (clip, raw frame of picture 0) that fits all pictures {position in the clip's kept frames: picture}.

    Needs `frames.step: 1`. Raises ValueError when none or several fit.
    """
    fits = [{(clip, frame - k) for clip, frame in known.get(content(p), ())} for k, p in pictures.items()]
    found = set.intersection(*fits)
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} clips and frames show these {len(pictures)} pictures; give the folder that they are stored in"
        )
    return found.pop()


def answer(asked: Path, known: Known, flow_of) -> None:
    with open(asked, newline="", encoding="utf-8") as file:
        rows = [(*(int(Path(name).stem) for name in row[:2]), row[2]) for row in csv.reader(file)]
    positions = sorted({k for i, j, _ in rows for k in (i, j)})
    pictures = {k: cv2.cvtColor(cv2.imread(str(asked.parent / f"{k:04d}.png")), cv2.COLOR_BGR2RGB) for k in positions}
    clip, first = place(known, pictures)
    for i, j, field in rows:
        np.savez(field, flow=flow_of(clip, first + i, first + j))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config", type=Path, required=True)
    options.add_argument("--dataset", required=True, help="one that has the setting 'embedded'")
    options.add_argument("--frames", type=Path, required=True, help="folder of its stored frames")
    given = options.parse_args()
    config = load_config(read_config(given.config), str(given.config))
    data, size = config.datasets[given.dataset], tuple(config.flow.size)
    known = known_pictures(given.frames, size)
    for line in sys.stdin:
        answer(Path(line.strip()), known, lambda clip, i, j: exact_flow(data.embedded, data.format, clip, i, j, size)[0])
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main()
