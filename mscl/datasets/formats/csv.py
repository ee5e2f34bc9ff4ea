"""A CSV file of paths: the column `path`, and optionally `label`, `clip_id`, `split`, `group`, and `start` and `end` in seconds.

With the column `split` one file can serve several splits. With `start` and `end` several rows can be parts of one video. Rows of
one `group` are of one recording (`mscl.datasets.groups`).
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import PUBLISHED_SPLIT, Dataset
from mscl.datasets.formats.annotations import annotation_files, checked, class_list, class_numbers, read_csv, refuse

_NUMBER = re.compile(r"(-?[0-9]+)(?:\.0*)?")  # pandas and spreadsheets write whole numbers as 10.0
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]+|-?[0-9]+\.?[0-9]*[eE][-+]?[0-9]+")
KNOWN = ("path", "label", "clip_id", "split", "start", "end", "group")
HIGHEST = 99_999  # highest allowed label: a classifier has one output per number up to the highest label

HOW = "write one row per video there (see docs/datasets.md)"


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """All rows of each split, one row per clip (columns: `annotations.COLUMNS`).

    Labels that are all whole numbers, also written as 10.0, are used unchanged. Else classes are numbered by the `labels` file, or in sorted order.
    Without a column `label` every label is -1. Raises ValueError that names the file and the row and says how to fix it.
    """
    files = annotation_files(dataset)
    sheets = {path: _read(path) for path in dict.fromkeys(files.values())}
    folder = dataset.root / dataset.videos
    chosen = {split: _rows_of(sheets[path], path, split) for split, path in files.items()}
    table = pd.concat([_split(chosen[split], path, split, folder) for split, path in files.items()], ignore_index=True)
    if "group" in table:
        table["group"] = table["group"].fillna("")  # another split's file may not have the column
    table["label"], table["class_name"] = _labels(table["class_name"], dataset)
    table = checked(table, files)
    written = pd.concat([rows["path"] for rows in chosen.values()])
    table.attrs["backslashes"] = int(_backslashed(written).sum() - _backslashed(table["file"]).sum())
    return table


def _read(path: Path) -> pd.DataFrame:
    rows = read_csv(path)
    rows.columns = [str(name).strip().lower() for name in rows.columns]
    if "path" not in rows:
        _refuse_plain_list(path, rows.columns)
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


def _refuse_plain_list(path: Path, header: pd.Index) -> None:
    """Raise ValueError for a list `path label` without a header, as MMAction2 has it; `header` is its first row."""
    if len(header) == 1 and re.fullmatch(r"\S.*\s+\d+", header[0]):
        raise ValueError(
            f"{path}: '{header[0]}' is a row of a list 'path label' (as for MMAction2), not a header; write a first line path,label "
            "and a comma instead of the last space of each row"
        )


def _backslashed(paths: pd.Series) -> pd.Series:
    return paths.str.contains("\\", regex=False)


def _slashes(paths: pd.Series, folder: Path) -> pd.Series:
    """Paths with slashes where they are written with backslashes; a file whose name really contains a backslash keeps it."""
    windows = _backslashed(paths)
    return paths.where(~windows, paths[windows].map(lambda p: p if (folder / p).exists() else p.replace("\\", "/")))


def _published(split: str) -> str:
    return PUBLISHED_SPLIT.get(split.lower(), split)


def _rows_of(rows: pd.DataFrame, path: Path, split: str) -> pd.DataFrame:
    """The rows of one split, as they are written."""
    if "split" in rows:
        held = sorted(set(rows["split"]))
        rows = rows[rows["split"].map(_published) == _published(split)]
        if rows.empty:
            raise ValueError(f"{path}: no row of split '{split}'; its column split holds {', '.join(held) or 'nothing'}")
    if rows.empty:
        raise ValueError(f"{path}: has no video for split '{split}'; add rows")
    return rows


def _split(rows: pd.DataFrame, path: Path, split: str, folder: Path) -> pd.DataFrame:
    """The annotations of one split's rows; class_name holds the label as text."""
    rows = rows.assign(path=_slashes(rows["path"], folder))
    drive = rows["path"].str.match(r"[A-Za-z]:/")
    refuse(path, rows, "path", drive, "is a path of Windows; give the path on this machine, or one relative to the video folder")
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
    table = {"clip_id": named, "split": split, "class_name": text, "start": start, "end": end, "file": rows["path"]}
    return pd.DataFrame(table | ({"group": rows["group"]} if "group" in rows else {}))


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
    source = dataset.root / dataset.annotations[dataset.annotated[0]]
    whole = given.map(lambda word: _NUMBER.fullmatch(word))
    if whole.isna().any():
        if given.map(lambda word: bool(_NUMBER.fullmatch(word) or _FRACTION.fullmatch(word))).all():
            raise ValueError(
                f"{source}: label '{given[whole.isna()].iloc[0]}' is not a whole number; give class names or whole numbers from 0"
            )
        return text.map(class_numbers(text.unique(), dataset)).fillna(-1), text
    number = whole.map(lambda match: int(match[1]))
    names = class_list(dataset)
    highest = HIGHEST if names is None else len(names) - 1
    outside = number[(number < 0) | (number > highest)]
    if len(outside):
        where = (
            f"they go up to {HIGHEST}" if names is None else f"there are {len(names)} classes in {dataset.annotations['labels']}"
        )
        raise ValueError(f"{source}: label {outside.iloc[0]} cannot be used: labels count from 0, and {where}; correct it")
    label = number.reindex(text.index).fillna(-1)
    return label, label.map(dict(enumerate(names)) if names else _as_written(whole, number)).fillna("")


def _as_written(whole: pd.Series, number: pd.Series) -> dict[int, str]:
    """{label: its name}: the number as the file writes it, such as 001; where it is written in several ways, the plain number."""
    written: dict[int, set[str]] = {}
    for n, word in zip(number, whole.map(lambda match: match[1]), strict=True):
        written.setdefault(n, set()).add(word)
    return {n: words.pop() if len(words) == 1 else str(n) for n, words in written.items()}
