"""Kinetics annotations: one CSV per split, `label,youtube_id,time_start,time_end,split[,is_cc]`.

The videos are the trimmed files from the CVDF, `<youtube_id>_<start:06d>_<end:06d>.mp4`. Each file is one clip, so
`start` and `end` are NaN (the whole file). The seconds within the YouTube video are only part of the file name.
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
    """All annotated clips, one row per clip (columns: `annotations.COLUMNS`).

    Labels number the sorted classes of all splits, or the lines of the `labels` file. A test split without labels has label -1.
    Raises ValueError that names the file and the row and says how to fix it.
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
        refuse(path, rows, name, rows[name].str.strip() == "", "is empty; fill it in or remove the row")
    seconds = {}
    for name in ("time_start", "time_end"):
        value = pd.to_numeric(rows[name], errors="coerce")
        wrong = value.isna() | (value < 0) | (value % 1 != 0)
        refuse(path, rows, name, wrong, "is not a whole number of seconds; it is part of the file name, so correct it")
        seconds[name] = value.astype(np.int64).astype(str).str.zfill(6)
    clip_id = rows["youtube_id"].str.strip() + "_" + seconds["time_start"] + "_" + seconds["time_end"]
    class_name = rows["label"].str.strip()
    return pd.DataFrame({"clip_id": clip_id, "split": split, "class_name": class_name, "file": clip_id + ".mp4"})


def find_videos(folder: Path, files: Sequence[str]) -> list[Found]:
    """Find the videos by name, anywhere below the folder."""
    return by_name(folder, files, classes=False)
