"""Flow of one shard, compared with a plain OpenCV loop on the same stored frames; on a GPU also the rate of RAFT in fields/s.

    python -m benchmarks.flow [--clips 12] [--repeats 3] [--raft WEIGHTS]

The plain loop is the usual code: read a JPEG as grey, resize, DISOpticalFlow.calc (medium preset), one thread. `with storing`
also resizes u and v to the stored size, clips them to 20 pixels, and encodes two JPEGs. Ours is `flow_shard`: the same without
clipping, plus motion scores (MDS), tar, index and checksum.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.common import cpu_seconds, interleaved, kinetics_like, machine, manifest, versions
from mscl.config.datasets import FramesConfig
from mscl.config.schema import FlowConfig, MDSConfig
from mscl.flow.estimate import make_estimator
from mscl.flow.grid import stored_size
from mscl.flow.shard import field_pairs, flow_shard
from mscl.stages.jobs import FlowJob, FramesJob
from mscl.store.jpeg import decode_rgb
from mscl.store.shards import Shards
from mscl.video.extract import extract_shard

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


def raft(index: Path, weights: Path, precision: str) -> float:
    """The rate of RAFT-large on the GPU in fields/s, after a first clip to warm up."""
    import time

    flow = FLOW.model_copy(update={"method": "raft", "weights": weights, "precision": precision})
    shards, estimator = Shards([index]), make_estimator(flow, "cuda")
    fields, began = 0, 0.0
    for row in range(len(shards)):
        pairs = field_pairs(shards.frames(row), flow.gap)
        frames = np.stack([decode_rgb(shards.read(row, k)) for k in range(len(shards.frames(row)))])
        estimator(frames, pairs)
        fields, began = (fields + len(pairs), began) if row else (0, time.perf_counter())
    return fields / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--raft", type=Path, help="torchvision's raft_large weights, for a machine with a GPU")
    a = parser.parse_args()
    print(f"{machine()}; {versions('opencv-python-headless', 'torch', 'torchvision')}")
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
        wall, cpu = interleaved(a.repeats, **ways), {name: cpu_seconds(way) for name, way in ways.items()}
        for name, seconds in wall.items():
            print(f"{name:24s} {fields / seconds:7.1f} fields/s   {1000 * cpu[name] / fields:6.2f} ms of CPU per field")
        for rival in ("plain loop", "plain loop with storing"):
            print(
                f"ratio of rates, mscl / {rival}: wall time {wall[rival] / wall['mscl flow']:.2f}, CPU time {cpu[rival] / cpu['mscl flow']:.2f}"
            )
        if a.raft and torch.cuda.is_available():
            for precision in ("float32", "bfloat16"):
                print(
                    f"RAFT-large {precision}, batch {FLOW.batch}: {raft(index, a.raft, precision):.1f} fields/s on {torch.cuda.get_device_name()}"
                )
        else:
            print("RAFT: not measured here (no GPU, or no weights)")


if __name__ == "__main__":
    main()
