"""Kinetics annotations: one CSV per split, `label,youtube_id,time_start,time_end,split[,is_cc]`.

The videos are the trimmed ones of the CVDF, `<youtube_id>_<start:06d>_<end:06d>.mp4`: a file is its clip, so
`start` and `end` are NaN ("the whole file") and the seconds within the YouTube video live in the name only.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.dataset_config import Dataset
from mscl.datasets.annotations import COLUMNS, annotation_file, no_duplicates

NEEDED = ("label", "youtube_id", "time_start", "time_end")


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """All annotated clips: clip_id, split, label, class_name, start, end (see `annotations.COLUMNS`).

    A class is its place among the sorted labels of all the data set's files; a test split without labels has -1.
    Raises ValueError naming file, row and mend.
    """
    files = {split: annotation_file(dataset.root, dataset.annotations[split], split) for split in dataset.splits}
    table = pd.concat([_read_split(path, split) for split, path in files.items()], ignore_index=True)
    no_duplicates(table, files)
    names = sorted(set(table["class_name"].unique()) - {""})
    table["label"] = table["class_name"].map({name: k for k, name in enumerate(names)}).fillna(-1).astype(np.int32)
    table["start"] = table["end"] = math.nan
    return table[COLUMNS]


def _read_split(path: Path, split: str) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: the file is empty; get it again") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a readable CSV ({' '.join(str(error).split())}); mend that line or get the file again"
        ) from None
    if split == "test" and "label" not in rows:
        rows["label"] = ""
    absent = [name for name in NEEDED if name not in rows]
    if absent:
        raise ValueError(
            f"{path}: no column '{absent[0]}' in its header ({','.join(rows.columns)}); "
            "it must be label,youtube_id,time_start,time_end,split"
        )
    for name in ("youtube_id",) if split == "test" else ("youtube_id", "label"):
        _refuse(path, rows, name, rows[name].str.strip() == "", "is empty; fill it in or drop the row")
    seconds = {}
    for name in ("time_start", "time_end"):
        value = pd.to_numeric(rows[name], errors="coerce")
        wrong = value.isna() | (value < 0) | (value % 1 != 0)
        _refuse(path, rows, name, wrong, "is no whole number of seconds; the file's name holds it, so correct it")
        seconds[name] = value.astype(np.int64).astype(str).str.zfill(6)
    return pd.DataFrame({
        "clip_id": rows["youtube_id"].str.strip() + "_" + seconds["time_start"] + "_" + seconds["time_end"],
        "split": split,
        "class_name": rows["label"].str.strip(),
    })  # fmt: skip


def _refuse(path: Path, rows: pd.DataFrame, name: str, wrong: pd.Series, sentence: str) -> None:
    if wrong.any():
        first = int(np.argmax(wrong.to_numpy()))
        raise ValueError(f"{path}: row {first + 1} after the header, {name} '{rows[name].iloc[first]}' {sentence}")
