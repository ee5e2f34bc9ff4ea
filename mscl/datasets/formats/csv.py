"""A CSV file of paths: the column `path`, and optionally `label`, `clip_id`, `split`, and `start` and `end` in seconds.

With the column `split` one file can serve several splits. With `start` and `end` several rows can be parts of one video.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import PUBLISHED_SPLIT, Dataset
from mscl.datasets.find import Found, by_path
from mscl.datasets.formats.annotations import annotation_files, checked, class_list, class_numbers, read_csv, refuse

KNOWN = ("path", "label", "clip_id", "split", "start", "end")
HIGHEST = 99_999  # highest allowed label: a classifier has one output per number up to the highest label

HOW = "write one row per video there (see docs/datasets.md)"


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """All rows of each split, one row per clip (columns: `annotations.COLUMNS`).

    Labels that are all whole numbers are used unchanged. Else classes are numbered by the `labels` file, or in sorted order.
    Without a column `label` every label is -1. Raises ValueError that names the file and the row and says how to fix it.
    """
    files = annotation_files(dataset)
    sheets = {path: _read(path) for path in dict.fromkeys(files.values())}
    folder = dataset.root / dataset.videos
    table = pd.concat([_split(sheets[path], path, split, folder) for split, path in files.items()], ignore_index=True)
    table["label"], table["class_name"] = _labels(table["class_name"], dataset)
    return checked(table, files)


def _read(path: Path) -> pd.DataFrame:
    rows = read_csv(path)
    rows.columns = [str(name).strip().lower() for name in rows.columns]
    if "path" not in rows:
        raise ValueError(
            f"{path}: no column 'path' in its header ({','.join(rows.columns)}); the first line must name the columns: path, and "
            f"any of {', '.join(KNOWN[1:])}"
        )
    for name in rows.columns:
        near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.75)
        if near and near[0] not in rows:
            raise ValueError(f"{path}: unknown column '{name}'; did you mean '{near[0]}'?")
    rows = rows.apply(lambda column: column.str.strip())
    refuse(path, rows, "path", rows["path"] == "", "is empty; fill it in or remove the row")
    return rows


def _published(split: str) -> str:
    return PUBLISHED_SPLIT.get(split.lower(), split)


def _split(rows: pd.DataFrame, path: Path, split: str, folder: Path) -> pd.DataFrame:
    """The rows of one split; class_name holds the label as text."""
    if "split" in rows:
        held = sorted(set(rows["split"]))
        rows = rows[rows["split"].map(_published) == _published(split)]
        if rows.empty:
            raise ValueError(f"{path}: no row of split '{split}'; its column split holds {', '.join(held) or 'nothing'}")
    if rows.empty:
        raise ValueError(f"{path}: has no video for split '{split}'; add rows")
    text = rows["label"] if "label" in rows else pd.Series("", rows.index)
    if (text != "").any():  # a whole split may have no labels, but not a single row of a labelled split
        refuse(path, rows, "label", text == "", "is empty; fill it in or remove the row")
    named = rows["clip_id"] if "clip_id" in rows else rows["path"].map(lambda p: default_id(p, folder))
    refuse(path, rows.assign(clip_id=named), "clip_id", named == "", "is empty; fill it in or remove the row")
    twice = named[named.duplicated(keep=False)]
    if len(twice):
        first, second = twice.index[twice == twice.iloc[0]][:2] + 1
        raise ValueError(
            f"{path}: rows {first} and {second} after the header are both clip '{twice.iloc[0]}'; remove one, or give the parts of "
            "one video different names in a column clip_id"
        )
    start, end = (_seconds(rows, path, name) for name in ("start", "end"))
    if (start.notna() | end.notna()).any():
        refuse(path, rows, "end", ~(end > start.fillna(0)) & end.notna(), "is not after the start; correct one of the two")
    return pd.DataFrame({"clip_id": named, "split": split, "class_name": text, "start": start, "end": end, "file": rows["path"]})


def default_id(path: str, folder: Path) -> str:
    """A path without its suffix: relative to `folder` if it is below it, else relative to the root of the file system."""
    place = os.path.splitext(os.path.normpath(path))[0]
    if not os.path.isabs(place):
        return place
    base = os.path.abspath(folder) + os.sep
    return place.removeprefix(base).lstrip(os.sep)


def _seconds(rows: pd.DataFrame, path: Path, name: str) -> pd.Series:
    """A column of times in seconds; NaN (the start or end of the video) if empty or absent."""
    if name not in rows:
        return pd.Series(np.nan, rows.index)
    value = pd.to_numeric(rows[name], errors="coerce").astype(float)
    wrong = (rows[name] != "") & ~(np.isfinite(value) & (value >= 0))
    refuse(path, rows, name, wrong, "is not a time in seconds (0 or more); correct it or leave it empty")
    return value


def _labels(text: pd.Series, dataset: Dataset) -> tuple[pd.Series, pd.Series]:
    """(label, class name) of every row from the label as text."""
    given = text[text != ""]
    if given.empty:
        return pd.Series(-1, text.index), text
    if not given.map(lambda word: bool(re.fullmatch(r"-?[0-9]+", word))).all():
        return text.map(class_numbers(text.unique(), dataset)).fillna(-1), text
    number = given.map(int)
    names = class_list(dataset)
    highest = HIGHEST if names is None else len(names) - 1
    outside = number[(number < 0) | (number > highest)]
    if len(outside):
        source = dataset.root / dataset.annotations[dataset.annotated[0]]
        where = (
            f"they go up to {HIGHEST}" if names is None else f"there are {len(names)} classes in {dataset.annotations['labels']}"
        )
        raise ValueError(f"{source}: label {outside.iloc[0]} cannot be used: labels count from 0, and {where}; correct it")
    label = number.reindex(text.index).fillna(-1)

    def class_name(n: float) -> str:
        if n < 0:
            return ""
        return names[int(n)] if names else str(int(n))

    return label, label.map(class_name)


def find_videos(folder: Path, files: Sequence[str]) -> list[Found]:
    """Find the videos at the exact paths in the CSV file."""
    return by_path(folder, files)
