"""The manifest: one table of every used video of a data set, whatever format it came in.

Columns, one row per video, sorted by clip_id:
clip_id | path | split | label int32 (-1 unknown) | class_name | start, end float64 (s; NaN: the video's own) |
shard int32 | status ok, missing or empty | reason ("" when ok)
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets import find, formats, subset
from mscl.machine.files import atomic_write
from mscl.stages.jobs import ManifestJob

COLUMNS = ["clip_id", "path", "split", "label", "class_name", "start", "end", "shard", "status", "reason"]


def annotated_videos(name: str, dataset: Dataset) -> pd.DataFrame:
    """The videos of data set `name` that are used, after holdout and subset, without a look for their files.

    One row per video (`annotations.COLUMNS`). Raises ValueError naming file, row and mend when the annotations cannot be used.
    """
    table = formats.reader_of(dataset).read_annotations(dataset)
    for split in dataset.annotated:
        if not (table["split"] == split).any():
            raise ValueError(f"data set '{name}': {dataset.root / dataset.annotations[split]} annotates no video for split '{split}'; "
                             "get its annotation files again")  # fmt: skip
    return subset.choose(name, table, dataset)


def build_manifest(name: str, dataset: Dataset) -> pd.DataFrame:
    """Read the annotations of data set `name` and look for its videos.

    An absent or empty video is a row with a status and a reason. Raises ValueError naming file, row and mend when
    the annotations cannot be used, or the folder of videos does not exist.
    """
    table = annotated_videos(name, dataset).sort_values("clip_id", ignore_index=True)
    table[["path", "status", "reason"]] = find_videos(dataset, table["file"].tolist())
    table["shard"] = np.array([shard_of(c, dataset.shards) for c in table["clip_id"]], np.int32)
    return table[COLUMNS]


def find_videos(dataset: Dataset, files: list[str]) -> list[find.Found]:
    """Where each expected file is, what state it is in, and why; raises ValueError without a folder of videos."""
    videos = dataset.root / dataset.videos
    if not videos.is_dir():
        raise ValueError(f"{videos}: no such folder; put the videos there or correct root and videos in the configuration")
    return formats.find_videos(dataset, videos, files)


def shard_of(clip_id: str, shards: int) -> int:
    """The shard of a clip: the same on every machine, whatever other clips there are."""
    return int.from_bytes(hashlib.sha1(clip_id.encode(), usedforsecurity=False).digest(), "big") % shards


def summary(name: str, table: pd.DataFrame, splits: list[str]) -> str:
    """One line of a manifest: how many videos each split has, how many of them are missing or empty."""
    parts = []
    for split in splits:
        status = table["status"][table["split"] == split].value_counts()
        absent = ", ".join(f"{status[s]:,} {s}" for s in ("missing", "empty") if s in status)
        parts.append(f"{split} {status.sum():,}" + (f" ({absent})" if absent else ""))
    return f"{name}: {len(table):,} videos: {'; '.join(parts)}"


def write_manifest(job: ManifestJob, out: Path) -> None:
    """Build the manifest of `job`, write it to the parquet file `out`, whole or not at all, and print its summary."""
    table = build_manifest(job.name, job.dataset)
    with atomic_write(out) as draft:
        table.to_parquet(draft, index=False)
    print(summary(job.name, table, job.dataset.splits))


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest; raises ValueError naming the file when it is absent or is none."""
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such manifest; run the manifest stage first") from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a readable parquet file ({' '.join(str(error).split())}); delete it and run the manifest stage again"
        ) from None
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise ValueError(f"{path}: no column '{absent[0]}', so this is no manifest; delete it and run the manifest stage again")
    return table
