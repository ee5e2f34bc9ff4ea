"""One shard of videos to frames: ffmpeg in parallel, one tar and one index out."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from mscl.config.datasets import FramesConfig
from mscl.stages.codehash import code_hash
from mscl.stages.jobs import FramesJob
from mscl.store.parallel import in_order
from mscl.store.writer import ShardWriter, part_key
from mscl.video import decord_io
from mscl.video.ffmpeg import Decoded, decode
from mscl.watch.progress import tqdm

SCHEMA = pa.schema([
    ("clip_id", pa.string()), ("status", pa.string()), ("reason", pa.string()),
    ("width", pa.int32()), ("height", pa.int32()),  # of the JPEGs
    ("fps", pa.float64()),  # NaN when unknown
    ("raw_frames", pa.int32()),  # frames that decoded, kept or not; 0 when none did
    ("frame", pa.list_(pa.int32())), ("pts", pa.list_(pa.float64())),
    ("offset", pa.list_(pa.int64())), ("size", pa.list_(pa.int64())),
])  # fmt: skip


def extract_shard(job: FramesJob, manifest: Path, shard: int, out_tar: Path, out_index: Path, workers: int = 1) -> None:
    """Extract every manifest row of `shard`; a bad video becomes a row with a reason, never a crash or another video.

    `workers` ffmpeg processes run at a time. A killed job goes on where it stopped, see `mscl.store.writer`.
    """
    rows = read_rows(manifest, shard)
    _some_are_here(manifest, shard, [row["path"] for row in rows if row["status"] == "ok"])
    name = f"frames {Path(out_tar).parent.name}/{shard:04d}"
    with ShardWriter(out_tar, out_index, SCHEMA, part_key(job, code_hash(__name__), rows), job.shards) as writer:
        before = writer.done
        done = in_order(lambda row: (row, _video(row, job.frames)), rows[before:], workers)
        for row, video in tqdm(done, name, len(rows), initial=before, unit="video", mininterval=5):
            writer.add(*_index_row(row, video, job.frames))
        writer.commit(len(rows))


def _some_are_here(manifest: Path, shard: int, paths: list[str]) -> None:
    """Raise ValueError where every video is gone: a disk is not mounted, or the videos were removed after use."""
    if paths and not any(os.path.exists(path) for path in paths):
        raise ValueError(
            f"{manifest}: none of the {len(paths)} videos of shard {shard} is here any more (the first is {paths[0]}); bring them "
            "back (generated or downloaded ones by snakemake -R dataset download), or list what there is by snakemake -R manifest"
        )


def read_rows(manifest: Path, shard: int) -> list[dict]:
    """The manifest rows of one shard, in order of clip_id; ValueError when the file is no manifest."""
    columns = ["clip_id", "path", "status", "reason", "start", "end", "shard"]
    try:
        absent = set(columns) - set(pq.read_schema(manifest).names)
        if absent:
            raise ValueError(f"{manifest}: not a manifest, it has no column {', '.join(sorted(absent))}")
        table = pq.read_table(manifest, columns=columns, filters=[("shard", "==", shard)], partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{manifest}: not a readable manifest, make it again ({' '.join(str(error).split())[:120]})") from None
    rows = table.sort_by("clip_id").to_pylist()
    return [row | {k: math.nan if row[k] is None else row[k] for k in ("start", "end")} for row in rows]


def _video(row: dict, frames: FramesConfig) -> Decoded | None:
    """Decode one manifest row; None for a video that the manifest already counts out."""
    if row["status"] != "ok":
        return None
    try:
        with open(row["path"], "rb") as file:
            head = file.read(8)
    except OSError as error:
        return Decoded(error=f"listed in the manifest and not readable now ({error.strerror}); make the manifest again")
    if head == b"ffconcat":  # ffmpeg would decode other files, which it names
        return Decoded(error="a list of videos (ffconcat), not a video")
    video = decode(row["path"], frames, row["start"], row["end"])
    if video.jpegs:
        try:
            video.fps = decord_io.rate(row["path"])
        except decord_io.VideoError:
            pass  # ffmpeg read it: its own word on the rate stays
        video.fps = video.fps if np.isfinite(video.fps) else _measured_rate(video.pts)
    return video


def _measured_rate(pts: list[float]) -> float:
    span = pts[-1] - pts[0] if len(pts) > 1 else 0.0
    return (len(pts) - 1) / span if span > 0 else float("nan")


def _index_row(row: dict, video: Decoded | None, frames: FramesConfig) -> tuple[dict, list[bytes]]:
    """The index row of a video and the JPEGs that it has."""
    jpegs = video.jpegs if video else []
    kept = np.arange(len(jpegs), dtype=np.int32) * frames.step
    height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2] if jpegs else (0, 0)
    status, reason = (row["status"], row["reason"]) if video is None else ("ok" if jpegs else "broken", video.error)
    return {
        "clip_id": row["clip_id"], "status": status, "reason": reason, "width": width, "height": height,
        "fps": video.fps if jpegs else float("nan"), "raw_frames": len(video.pts) if jpegs else 0,
        "frame": kept, "pts": [video.pts[i] for i in kept] if jpegs else [],
    }, jpegs  # fmt: skip
