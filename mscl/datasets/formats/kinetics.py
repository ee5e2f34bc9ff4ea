"""Kinetics annotations: one CSV per split, `label,youtube_id,time_start,time_end,split[,is_cc]`.

The videos are the trimmed ones of the CVDF, `<youtube_id>_<start:06d>_<end:06d>.mp4`: a file is its clip, so
`start` and `end` are NaN ("the whole file") and the seconds within the YouTube video live in the name only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets.find import Found, by_name
from mscl.datasets.formats.annotations import annotation_files, checked, class_numbers, read_csv, refuse

NEEDED = ("label", "youtube_id", "time_start", "time_end")

HOW = (
    "download the videos and annotation CSVs of Kinetics-400 (CVDF: https://s3.amazonaws.com/kinetics/400/, "
    "lists k400_{{train,val,test}}_path.txt), or let `download: {{source: kinetics400}}` in datasets.{name} do it"
)


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """All annotated clips, one row each (see `annotations.COLUMNS`).

    A class is its place among the sorted labels of all the data set's files, or in the `labels` file; a test split
    without labels has -1. Raises ValueError naming file, row and mend.
    """
    files = annotation_files(dataset)
    table = pd.concat([_read_split(path, split) for split, path in files.items()], ignore_index=True)
    numbers = class_numbers(table["class_name"].unique(), dataset)
    table["label"] = table["class_name"].map(numbers).fillna(-1)
    return checked(table, files)


def _read_split(path: Path, split: str) -> pd.DataFrame:
    rows = read_csv(path)
    if split == "test" and "label" not in rows:
        rows["label"] = ""
    absent = [name for name in NEEDED if name not in rows]
    if absent:
        raise ValueError(
            f"{path}: no column '{absent[0]}' in its header ({','.join(rows.columns)}); "
            "it must be label,youtube_id,time_start,time_end,split"
        )
    for name in ("youtube_id",) if split == "test" else ("youtube_id", "label"):
        refuse(path, rows, name, rows[name].str.strip() == "", "is empty; fill it in or drop the row")
    seconds = {}
    for name in ("time_start", "time_end"):
        value = pd.to_numeric(rows[name], errors="coerce")
        wrong = value.isna() | (value < 0) | (value % 1 != 0)
        refuse(path, rows, name, wrong, "is no whole number of seconds; the file's name holds it, so correct it")
        seconds[name] = value.astype(np.int64).astype(str).str.zfill(6)
    clip_id = rows["youtube_id"].str.strip() + "_" + seconds["time_start"] + "_" + seconds["time_end"]
    return pd.DataFrame({
        "clip_id": clip_id,
        "split": split,
        "class_name": rows["label"].str.strip(),
        "file": clip_id + ".mp4",
    })  # fmt: skip


def find_videos(folder: Path, files: Sequence[str]) -> list[Found]:
    """Where the videos lie: anywhere below the folder, by name."""
    return by_name(folder, files, classes=False)
