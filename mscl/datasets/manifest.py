"""The manifest: one table of all selected videos of a data set, independent of its format.

One row per video, sorted by clip_id. Columns:
clip_id, path, split: text
label: int32, -1 if unknown
class_name: text
start, end: float64, in seconds; NaN: the start or end of the file
shard: int32
status: ok, missing or empty
reason: why the video cannot be used; "" if status is ok
group: text, the recording that the clip is cut from (`mscl.datasets.groups`); only where a recording has several clips

In a written manifest, `attrs["notes"]` holds sentences on what the table leaves out (`mscl.datasets.left_out`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets import find, formats, left_out, subset
from mscl.machine.files import atomic_write
from mscl.stages.jobs import FOLD, GROUP, ManifestJob

COLUMNS = ["clip_id", "path", "split", "label", "class_name", "start", "end", "shard", "status", "reason"]


def annotated_videos(name: str, dataset: Dataset) -> pd.DataFrame:
    """The selected videos of data set `name`, after holdout and subset. The video files are not looked for.

    One row per video (columns: `annotations.COLUMNS` and `group`). Raises ValueError that names the file and the row and says how to fix it
    if the annotations cannot be used.
    """
    table = formats.reader_of(dataset).read_annotations(dataset)
    for split in dataset.annotated:
        if not (table["split"] == split).any():
            path = dataset.root / dataset.annotations[split]
            raise ValueError(f"data set '{name}': {path} has no video for split '{split}'; download the annotation files again")
    return subset.choose(name, table, dataset)


def build_manifest(name: str, dataset: Dataset, folds: Sequence[int] = ()) -> pd.DataFrame:
    """Read the annotations of data set `name` and look for its videos.

    For each of `folds` there is a further column of splits (`jobs.FOLD`); "" where a fold does not use the video. A missing or empty
    video is a row with a status and a reason. Raises ValueError that names the file and the row and says how to fix it if the annotations cannot be used or the video folder does not exist.
    """
    table = _with_folds(name, dataset, folds).sort_values("clip_id", ignore_index=True)
    table[["path", "status", "reason"]] = find_videos(dataset, table["file"].tolist())
    table["shard"] = np.array([shard_of(c, dataset.shards) for c in table["clip_id"]], np.int32)
    group = [GROUP] if table[GROUP].duplicated().any() else []
    return table[[*COLUMNS, *group, *(f"{FOLD}{fold}" for fold in folds)]]


def _with_folds(name: str, dataset: Dataset, folds: Sequence[int]) -> pd.DataFrame:
    """The videos that the data set's own fold or one of `folds` uses."""
    table = annotated_videos(name, dataset)
    for fold in folds:
        other = annotated_videos(name, dataset.of_fold(fold))
        more = other[~other["clip_id"].isin(table["clip_id"])]
        table = pd.concat([table, more.assign(split="")], ignore_index=True)
        table[f"{FOLD}{fold}"] = table["clip_id"].map(other.set_index("clip_id")["split"]).fillna("")
    columns = [f"{FOLD}{fold}" for fold in folds]
    return table.fillna(dict.fromkeys(columns, ""))


def find_videos(dataset: Dataset, files: list[str]) -> list[find.Found]:
    """(path, status, reason) of each expected file, in the order of `files`. Raises ValueError if there is no video folder."""
    videos = dataset.root / dataset.videos
    if not videos.is_dir():
        raise ValueError(f"{videos}: no such folder; put the videos there or correct root and videos in the configuration")
    return formats.find_videos(dataset, videos, files)


def shard_of(clip_id: str, shards: int) -> int:
    """The shard of a clip, from a hash of its id: the same on every machine and independent of the other clips."""
    return int.from_bytes(hashlib.sha1(clip_id.encode(), usedforsecurity=False).digest(), "big") % shards


def summary(name: str, table: pd.DataFrame, splits: list[str]) -> str:
    """One line about a manifest: how many videos each split has, and how many of them are missing or empty."""
    parts = []
    for split in splits:
        status = table["status"][table["split"] == split].value_counts()
        absent = ", ".join(f"{status[s]:,} {s}" for s in ("missing", "empty") if s in status)
        parts.append(f"{split} {status.sum():,}" + (f" ({absent})" if absent else ""))
    return f"{name}: {len(table):,} videos: {'; '.join(parts)}"


def write_manifest(job: ManifestJob, out: Path) -> None:
    """Build the manifest of `job`, write it atomically to the parquet file `out`, and print its summary and its notes.

    Raises ValueError as `build_manifest` does.
    """
    table = build_manifest(job.name, job.dataset, job.folds)
    table.attrs = {"notes": left_out.notes(job.dataset, table)}
    with atomic_write(out) as draft:
        table.to_parquet(draft, index=False)
    print("\n".join([summary(job.name, table, job.dataset.splits), *(f"{job.name}: {note}" for note in table.attrs["notes"])]))


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest. Raises ValueError that names the file if it is missing or is not a manifest."""
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
        raise ValueError(f"{path}: not a manifest (no column '{absent[0]}'); delete it and run the manifest stage again")
    return table
