"""Extract the frames of one shard of videos with parallel ffmpeg processes into one tar file and one index."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from mscl.config.datasets import FramesConfig
from mscl.stages.codehash import code_hash
from mscl.stages.jobs import FramesJob
from mscl.store import videos
from mscl.store.parallel import in_order
from mscl.store.writer import MEMBERS, ShardWriter, part_key
from mscl.video.ffmpeg import Decoded, decode
from mscl.video.program import program
from mscl.watch.progress import tqdm

COLUMNS = {
    "clip_id": pa.string(),
    "status": pa.string(),  # ok, missing, empty or broken
    "reason": pa.string(),  # "" if there is nothing to report
    "note": pa.string(),  # interlaced, HDR, transparent: see docs/datasets.md; usually ""
    "width": pa.int32(),  # of the JPEGs, pixels
    "height": pa.int32(),
    "fps": pa.float64(),  # frames per second of the video; NaN if unknown
    "raw_frames": pa.int32(),  # decoded frames, stored or not; 0 if the video cannot be decoded
    "frame": pa.list_(pa.int32()),  # raw frame numbers of the stored frames
    "pts": pa.list_(pa.float64()),  # presentation times of the stored frames, seconds
    **MEMBERS,
}
SCHEMA = pa.schema(list(COLUMNS.items()))


def schema_of(frames: FramesConfig) -> pa.Schema:
    """The columns of an index; without stored images, those by which each use decodes the video again, and how."""
    if frames.keep == "all":
        return SCHEMA
    columns = {name: kind for name, kind in COLUMNS.items() if name != "offset"} | videos.COLUMNS
    return pa.schema(list(columns.items()), {videos.FRAMES: frames.model_dump_json(), videos.FFMPEG: program().version})


def extract_shard(job: FramesJob, manifest: Path, shard: int, out_tar: Path, out_index: Path, workers: int = 1) -> None:
    """Extract every manifest row of `shard`. A bad video becomes a row with a reason; it never stops the job.

    `workers` ffmpeg processes run at a time. A killed job resumes where it stopped (see `mscl.store.writer`). Raises ValueError
    if the manifest cannot be read, if no ffmpeg works, if none of the videos exists any more, or if another process is writing this shard.
    """
    rows = read_rows(manifest, shard)
    used = program()  # a missing or crippled ffmpeg is reported before any video is called broken
    _some_are_here(manifest, shard, [row["path"] for row in rows if row["status"] == "ok"])
    made_from = [rows, stamps(rows), *([used.version] if job.frames.keep == "none" else [])]
    key = part_key(job, code_hash(__name__), made_from)
    with ShardWriter(out_tar, out_index, schema_of(job.frames), key, job.shards) as writer:
        before = writer.done
        done = in_order(lambda row: (row, _video(row, job.frames, Path(out_tar).parent)), rows[before:], workers)
        for row, video in tqdm(done, total=len(rows), initial=before, unit="video"):
            writer.add(*_index_row(row, video, job.frames))
        writer.commit(len(rows))


def _some_are_here(manifest: Path, shard: int, paths: list[str]) -> None:
    """Raise ValueError if every video is missing: a disk is not mounted, or the videos were deleted after use."""
    if paths and not any(os.path.exists(path) for path in paths):
        raise ValueError(
            f"{manifest}: none of the {len(paths)} videos of shard {shard} exists any more (the first is {paths[0]}); restore them "
            "(generated or downloaded ones: snakemake -R dataset download), or list the videos again (snakemake -R manifest)"
        )


def read_rows(manifest: Path, shard: int) -> list[dict]:
    """The manifest rows of one shard, sorted by clip_id. Raises ValueError if the file is not a readable manifest."""
    columns = ["clip_id", "path", "status", "reason", "start", "end", "shard"]
    try:
        absent = set(columns) - set(pq.read_schema(manifest).names)
        if absent:
            raise ValueError(f"{manifest}: not a manifest (no column {', '.join(sorted(absent))})")
        table = pq.read_table(manifest, columns=columns, filters=[("shard", "==", shard)], partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{manifest}: not a readable manifest, make it again ({' '.join(str(error).split())[:120]})") from None
    rows = table.sort_by("clip_id").to_pylist()
    return [row | {k: math.nan if row[k] is None else row[k] for k in ("start", "end")} for row in rows]


def stamps(rows: list[dict]) -> list[list[int] | None]:
    """[size in bytes, time of the last change in ns] of the video of each row, None if it is missing: they change when it is replaced."""
    return [[found.st_size, found.st_mtime_ns] if (found := _stat(row["path"])) else None for row in rows]


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _video(row: dict, frames: FramesConfig, folder: Path) -> Decoded | None:
    """Decode one manifest row, with temporary files in `folder`; None if its status in the manifest is not ok."""
    if row["status"] != "ok":
        return None
    try:
        with open(row["path"], "rb"):
            pass
    except OSError as error:
        return Decoded(error=f"in the manifest, but cannot be opened now ({error.strerror}); make the manifest again")
    video = decode(row["path"], frames, row["start"], row["end"], folder)
    if video.jpegs and not np.isfinite(video.fps):
        video.fps = _measured_rate(video.pts)
    return video


def _measured_rate(pts: list[float]) -> float:
    """Mean frames per second from presentation times in seconds; NaN if unknown."""
    span = pts[-1] - pts[0] if len(pts) > 1 else 0.0
    return (len(pts) - 1) / span if span > 0 else float("nan")


def _index_row(row: dict, video: Decoded | None, frames: FramesConfig) -> tuple[dict, Sequence[bytes]]:
    """(index row, JPEGs) of a video."""
    jpegs = video.jpegs if video else []
    kept = np.arange(len(jpegs), dtype=np.int32) * frames.step
    height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2] if jpegs else (0, 0)
    status, reason = row["status"], row["reason"]
    if video is not None:
        status, reason = "ok" if jpegs else "broken", video.error
    index_row = {
        "clip_id": row["clip_id"],
        "status": status,
        "reason": reason,
        "note": video.note if video else "",
        "width": width,
        "height": height,
        "fps": video.fps if jpegs else float("nan"),
        "raw_frames": len(video.pts) if jpegs else 0,
        "frame": kept,
        "pts": [video.pts[i] for i in kept] if jpegs else [],
    }
    if frames.keep == "none":
        found = _stat(row["path"])
        index_row |= {key: row[key] for key in ("path", "start", "end")} | {"bytes": found.st_size if found else 0}
    return index_row, jpegs
