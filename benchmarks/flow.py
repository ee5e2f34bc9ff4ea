"""Flow: its rate beside a plain OpenCV loop, its error against exact flow, and what `flow.step` does to the motion scores.

    python -m benchmarks.flow rate [--clips 12] [--repeats 3] [--raft WEIGHTS] [--raft-small WEIGHTS]
    python -m benchmarks.flow error [--clips 6] [--raft WEIGHTS] [--raft-small WEIGHTS]
    python -m benchmarks.flow step VIDEO...

The plain loop is the usual code: read a JPEG as grey, resize, DISOpticalFlow.calc (medium preset), one thread. `with storing`
also resizes u and v to the stored size, clips them to 20 pixels, and encodes two JPEGs. Ours is `flow_shard`: the same without
clipping, plus motion scores (MDS), tar, index and checksum. On a GPU with weights also the rate of RAFT.

`error`: generated videos, whose exact flow is known. End-point error over the pixels whose target is visible, and the rank
correlation (Spearman) of a video's motion scores with those of its exact flow. RAFT is left out where its weights are not given.

`step`: DIS on real videos. Scores at step n against those of the same starts at step 1.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks.common import cpu_seconds, kinetics_like, machine, manifest, versions
from mscl.config.datasets import FramesConfig
from mscl.config.schema import load_config
from mscl.config.settings import FlowConfig, MDSConfig
from mscl.datasets.generated.embedded import exact_flow, write_dataset
from mscl.flow.estimate import make_estimator
from mscl.flow.grid import stored_size
from mscl.flow.mds import allowed_starts, differences, of_fields, score_clip, start_scores
from mscl.flow.shard import field_pairs, flow_shard
from mscl.stages.jobs import FlowJob, FramesJob
from mscl.store.jpeg import decode_gray, decode_rgb
from mscl.store.shards import Shards
from mscl.video.extract import extract_shard
from mscl.video.ffmpeg import decode

ROOT = Path(__file__).resolve().parents[1]
SIZE = (256, 320)  # H, W of generated videos
FLOW = FlowConfig(method="dis", gap=8, size=(384, 640), short_side=128)


def bare(index: Path, store: bool) -> int:
    """The plain loop. Returns the number of computed fields."""
    cv2.setNumThreads(1)
    shards, fields = Shards([index]), 0
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = FLOW.size
    for row in range(len(shards)):
        grey = []
        for k in range(len(shards.frames(row))):
            picture = cv2.imdecode(np.frombuffer(shards.read(row, k), np.uint8), cv2.IMREAD_GRAYSCALE)
            grey.append(cv2.resize(picture, (width, height)))
        small = stored_size((shards.clips["height"][row], shards.clips["width"][row]), FLOW.short_side)
        for a, b in field_pairs(shards.frames(row), FLOW.gap):
            flow = dis.calc(grey[a], grey[b], None)
            fields += 1
            if store:
                flow = cv2.resize(flow, small[::-1], interpolation=cv2.INTER_AREA)
                for plane in np.clip(flow * (127 / 20) + 128, 0, 255).astype(np.uint8).transpose(2, 0, 1):
                    cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, FLOW.quality])
    return fields


def ours(index: Path, out: Path) -> None:
    """The work of the rule, with one worker."""
    shutil.rmtree(out, ignore_errors=True)
    job = FlowJob(flow=FLOW, mds=MDSConfig(), device="cpu")
    flow_shard(job, index, index.with_suffix(".tar"), out / "0.tar", out / "0.parquet", workers=1)


def raft(index: Path, method: str, weights: Path, precision: str) -> float:
    """The rate of RAFT on the GPU in fields/s, after a first clip to warm up."""
    flow = FLOW.model_copy(update={"method": method, "weights": weights, "precision": precision})
    shards, estimator = Shards([index]), make_estimator(flow, "cuda")
    fields, began = 0, 0.0
    for row in range(len(shards)):
        pairs = field_pairs(shards.frames(row), flow.gap)
        frames = np.stack([decode_rgb(shards.read(row, k)) for k in range(len(shards.frames(row)))])
        estimator(frames, pairs)
        fields, began = (fields + len(pairs), began) if row else (0, time.perf_counter())
    return fields / (time.perf_counter() - began)


def rate(a: argparse.Namespace) -> None:
    """Print the rates."""
    with tempfile.TemporaryDirectory() as scratch:
        tmp = Path(scratch)
        videos = kinetics_like(tmp / "videos", min(a.clips, 6))
        manifest({f"{n:04d}": videos[n % len(videos)] for n in range(a.clips)}).to_parquet(tmp / "m.parquet")
        index = tmp / "frames.parquet"
        extract_shard(
            FramesJob(frames=FramesConfig(step=2, short_side=256)), tmp / "m.parquet", 0, index.with_suffix(".tar"), index, 2
        )
        fields = bare(index, store=False)
        ways = {
            "plain loop": lambda: bare(index, False),
            "plain loop with storing": lambda: bare(index, True),
            "mscl flow": lambda: ours(index, tmp / "out"),
        }
        cpu = {name: statistics.median(found) for name, found in _in_turns(a.repeats, ways).items()}
        for name in ways:
            print(f"{name:24s} {1000 * cpu[name] / fields:6.2f} ms of CPU per field")
        for rival in ("plain loop", "plain loop with storing"):
            print(f"ratio of rates, mscl / {rival}: CPU time {cpu[rival] / cpu['mscl flow']:.2f}")
        for method, weights in _rafts(a):
            for precision in ("float32", "tf32") if torch.cuda.is_available() else ():
                found = raft(index, method, weights, precision)
                print(f"{method} {precision}, batch {FLOW.batch}: {found:.1f} fields/s on {torch.cuda.get_device_name()}")
        if not (_rafts(a) and torch.cuda.is_available()):
            print("RAFT: not measured here (no GPU, or no weights)")


def _in_turns(repeats: int, ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """CPU seconds of each way. They take turns, so that other load on the machine, which slows the memory, affects all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(cpu_seconds(way))
    return found


def _rafts(a: argparse.Namespace) -> list[tuple[str, Path]]:
    return [(method, weights) for method, weights in (("raft", a.raft), ("raft-small", a.raft_small)) if weights]


class Generated(NamedTuple):
    """A generated video, whose exact flow is known."""

    frames: np.ndarray  # THWC uint8
    pairs: list[tuple[int, int]]
    flow: np.ndarray  # exact, of the pairs, (N, H, W, 2)
    valid: np.ndarray  # where the target is visible, (N, H, W) bool
    bytes: float  # of a stored frame


def generated(clips: int, folder: Path, frames: FramesConfig) -> Iterator[Generated]:
    """Videos of SIZE and 64 frames in the Kinetics layout, stored as `frames` says; they are rendered into `folder` if not there."""
    dataset = load_config(ROOT / "config.yaml").datasets["motion_kinetics"]
    embedded = dataset.embedded.model_copy(update={"clips": {"train": clips}, "size": SIZE[::-1], "frames": 64})
    write_dataset(dataset.model_copy(update={"embedded": embedded, "root": folder}))
    for path in sorted((folder / dataset.videos).rglob(f"*{dataset.row.suffix}"))[:clips]:
        jpegs = list(decode(path, frames).jpegs)
        pairs = field_pairs(np.arange(len(jpegs)) * frames.step, FLOW.gap)
        starts = (frames.step * i for i, _ in pairs)
        exact, valid = zip(*(exact_flow(embedded, dataset.format, path.stem, i, i + FLOW.gap, SIZE) for i in starts))
        pictures = np.stack([decode_rgb(j) for j in jpegs])
        yield Generated(pictures, pairs, np.stack(exact), np.stack(valid), float(np.mean([len(j) for j in jpegs])))


def error(a: argparse.Namespace) -> None:
    """Print the error of each method against exact flow."""
    methods = [("dis", None), *_rafts(a)]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for clip in generated(a.clips, Path(scratch), FramesConfig(step=2, short_side=SIZE[0], quality=2)):
            scores = score_clip([clip.flow], MDSConfig())[0]
            moving = clip.valid & (np.linalg.norm(clip.flow, axis=-1) > 0.5)
            for method, weights in methods:
                flow = FLOW.model_copy(update={"method": method, "weights": weights, "size": SIZE})
                found = np.stack(make_estimator(flow, "auto")(clip.frames, clip.pairs))
                off = np.linalg.norm(found - clip.flow, axis=-1)
                agrees = rank(score_clip([found], MDSConfig())[0], scores)
                row = {
                    "EPE, px": off[clip.valid].mean(),
                    "EPE of what moves, px": off[moving].mean(),
                    "MDS rank correlation": agrees,
                }
                rows.append({"method": method} | row)
    print(f"{a.clips} generated videos at {SIZE[0]} x {SIZE[1]}, gap {FLOW.gap}")
    print(pd.DataFrame(rows).groupby("method", sort=False).mean().round(3).to_markdown())
    for method in {"raft", "raft-small"} - {method for method, _ in methods}:
        print(f"{method}: not measured here (no weights given)")


def step(a: argparse.Namespace) -> None:
    """Print what `flow.step` does to d, to the scores and to the starts."""
    rows = []
    for path in a.videos:
        frames = np.stack([decode_gray(j) for j in decode(path, FramesConfig(step=2, short_side=256)).jpegs])
        pairs, estimate = field_pairs(np.arange(len(frames)) * 2, FLOW.gap), make_estimator(FLOW, "cpu")
        fields = [field for at in range(0, len(pairs), 16) for field in estimate(frames, pairs[at : at + 16])]
        d = {n: differences([fields[::n]], MDSConfig().pool) for n in (1, 2, 4)}
        scores = {n: start_scores(d[n], of_fields(MDSConfig(), n)) for n in d}
        allowed = allowed_starts(scores[1])[0]
        for n in (2, 4):
            chosen, before = allowed_starts(scores[n])[0], allowed[::n]
            rows.append({
                "flow.step": n,
                "mean d, times that at step 1": d[n][:-1].mean() / d[1][:-1].mean(),
                "rank correlation of scores": rank(scores[n], scores[1][::n]),
                "allowed starts that step 1 allows, %": 100 * before[chosen].mean(),
                "starts that step 1 allows and that stay, %": 100 * chosen[before].mean(),
                "allowed starts per video": chosen.sum(),
                "at step 1": allowed.sum(),
            })  # fmt: skip
    table = pd.DataFrame(rows).groupby("flow.step")
    print(f"{len(a.videos)} videos, DIS at {FLOW.size[0]} x {FLOW.size[1]}")
    print(table.mean().round(2).T.to_markdown())
    print(f"smallest rank correlation: {table['rank correlation of scores'].min().round(2).to_dict()}")


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation (Spearman)."""
    return float(pd.Series(a).corr(pd.Series(b), method="spearman"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["rate", "error", "step"])
    parser.add_argument("videos", type=Path, nargs="*", help="of `step`")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--raft", type=Path, help="torchvision's raft_large weights")
    parser.add_argument("--raft-small", type=Path, help="torchvision's raft_small weights")
    a = parser.parse_args()
    print(f"{machine()}; {versions('opencv-python-headless', 'torch', 'torchvision')}")
    {"rate": rate, "error": error, "step": step}[a.part](a)


if __name__ == "__main__":
    main()
