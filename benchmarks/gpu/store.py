"""A store of frames and flow with made-up videos, written as the pipeline writes it; no video file and no ffmpeg are needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import simplejpeg

from mscl.config.settings import FlowConfig, MDSConfig
from mscl.datasets.manifest import COLUMNS
from mscl.flow.mds import allowed_starts
from mscl.flow.quantise import encode_field
from mscl.flow.shard import SCHEMA as FLOW
from mscl.flow.shard import flow_shard
from mscl.stages.jobs import FlowJob, Source
from mscl.store.writer import ShardWriter
from mscl.video.extract import SCHEMA as FRAMES

SHARD = "0000"


def write_frames(folder: Path, clips: Iterable[tuple[str, np.ndarray]], count: int, step: int, quality: int) -> None:
    """One shard of `count` clips (name, frames (T, H, W, 3) uint8); kept frames are `step` raw frames apart."""
    with ShardWriter(folder / f"{SHARD}.tar", folder / f"{SHARD}.parquet", FRAMES, "benchmark", 1) as writer:
        for name, frames in clips:
            height, width = frames.shape[1:3]
            row = {"clip_id": name, "status": "ok", "reason": "", "note": "", "width": width, "height": height, "fps": 30.0}
            numbers = [step * k for k in range(len(frames))]
            row |= {"raw_frames": step * len(frames), "frame": numbers, "pts": [n / 30 for n in numbers]}
            writer.add(row, [simplejpeg.encode_jpeg(np.ascontiguousarray(f), quality, "RGB", "420") for f in frames])
        writer.commit(count)


def write_manifest(path: Path, labels: dict[str, int], splits: dict[str, str]) -> None:
    """The manifest of the clips: all usable, in shard 0."""
    rows = [
        {
            "clip_id": name,
            "path": "",
            "split": splits[name],
            "label": label,
            "class_name": str(label),
            "start": np.nan,
            "end": np.nan,
        }
        | {"shard": 0, "status": "ok", "reason": ""}
        for name, label in labels.items()
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(path, index=False)


def source(name: str, folder: Path, flow: bool) -> Source:
    return Source(
        name=name,
        manifest=folder / "manifest.parquet",
        frames=folder / "frames",
        flow=folder / "flow" if flow else None,
        shards=1,
    )


def dis_flow(folder: Path, flow: FlowConfig, mds: MDSConfig, workers: int) -> None:
    """The flow of a store of frames, by the pipeline's own stage with DIS."""
    job = FlowJob(flow=flow.model_copy(update={"method": "dis", "weights": None}), mds=mds, device="cpu")
    files = [folder / kind / f"{SHARD}.{end}" for kind, end in (("frames", "parquet"), ("frames", "tar"), ("flow", "tar"))]
    flow_shard(job, *files, folder / "flow" / f"{SHARD}.parquet", workers)


def panned(rng: np.random.Generator, frames: int, height: int, width: int) -> np.ndarray:
    """A window that moves over a texture with the spectrum of natural pictures (amplitude 1/f^1.4); (T, H, W, 3) uint8."""
    h, w = 2 * height, 2 * width
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    frequency[0, 0] = 1
    planes = [np.fft.irfft2(np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**1.4, (h, w)) for _ in range(3)]
    grey = planes[0] / planes[0].std()
    picture = np.stack([128 + 45 * grey + 12 * p / p.std() for p in planes], -1).clip(0, 255).astype(np.uint8)
    t = np.arange(frames)
    tops = (height / 2 * (1 + np.sin(t / 9 + rng.uniform(0, 6)))).astype(int)
    lefts = (width / 2 * (1 + np.cos(t / 13 + rng.uniform(0, 6)))).astype(int)
    return np.stack([picture[y : y + height, x : x + width] for y, x in zip(tops, lefts)])


def made_up_flow(folder: Path, names: list[str], frames: int, step: int, flow: FlowConfig, height: int, width: int) -> None:
    """A store of smooth random fields: what is in them does not matter to the time of reading them."""
    rng = np.random.default_rng(0)
    plane = (flow.short_side, round(flow.short_side * width / height))
    payloads = [
        encode_field(
            cv2.resize(rng.normal(0, 5, (6, 8, 2)).astype(np.float32), plane[::-1], interpolation=cv2.INTER_CUBIC), flow.quality
        )
        for _ in range(16)
    ]
    kept = [step * k for k in range(frames - flow.gap // step)]
    score = rng.random(len(kept)).astype(np.float32)
    with ShardWriter(folder / f"{SHARD}.tar", folder / f"{SHARD}.parquet", FLOW, "benchmark", 1) as writer:
        for name in names:
            used = [payloads[k % len(payloads)] for k in range(len(kept))]
            row = {
                "clip_id": name,
                "status": "ok",
                "reason": "",
                "width": plane[1],
                "height": plane[0],
                "frame": kept,
                "note": "",
            }
            row |= {"scale": [u[1] for u in used], "radius": [u[2] for u in used]}
            row |= {"score": score.tolist(), "allowed": allowed_starts(score)[0].tolist()}
            writer.add(row, [u[0] for u in used])
        writer.commit(len(names))
