"""What the readers of all formats share: files read with one clear sentence when they cannot be, checked rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.config.validation import did_you_mean

# Of the table a format's reader returns. `file` is where the video is expected: relative to the folder of the videos, or absolute.
COLUMNS = ["clip_id", "split", "label", "class_name", "start", "end", "file"]
# A part that is empty, "." or "..", or a control character: a clip_id becomes a folder within a tar.
_BAD_ID = r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f-\x9f]"


def annotation_file(root: Path, name: str, key: str, prefix: str = "") -> Path:
    """Path of an annotation file below `root`, by its plain name or its older prefixed one.

    Raises ValueError naming the setting (a split, "labels", or a key with dots) when neither is there.
    """
    path = root / name
    older = path.with_name(prefix + path.name)
    for candidate in (path, older):
        if candidate.is_file():
            return candidate
    also = f" (nor {older.name})" if prefix else ""
    setting = key if "." in key else f"annotations.{key}"
    raise ValueError(f"{path}: no such file{also}; put the annotations there or correct {setting} in the configuration")


def annotation_files(dataset: Dataset) -> dict[str, Path]:
    """The annotation file of each annotated split; raises ValueError naming the first that is absent."""
    return {split: annotation_file(dataset.root, dataset.annotations[split], split) for split in dataset.annotated}


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; raises ValueError naming the file when it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; get the file again") from None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of every line that is not blank, without the space around it."""
    return [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]


def read_json(path: Path, kind: type, what: str) -> Any:
    """Read JSON that must be of `kind`; raise ValueError naming the file, and the line of a mistake."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON at line {error.lineno}, column {error.colno} ({error.msg}); mend that line") from None
    if isinstance(value, kind):
        return value
    raise ValueError(f"{path}: holds a {type(value).__name__} where {what} is expected; get the file again")


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV with a header as text, absent cells as ""; raises ValueError naming the file, and the line where it can."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: the file is empty; get it again") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a readable CSV ({' '.join(str(error).split())}); mend that line or get the file again"
        ) from None
    if not isinstance(rows.index, pd.RangeIndex):  # pandas would take the first field for a name of the row
        raise ValueError(f"{path}: its rows have more fields than its header; put names that hold a comma into double quotes")
    return rows.fillna("")


def refuse(path: Path, rows: pd.DataFrame, name: str, wrong: pd.Series, sentence: str) -> None:
    """Raise ValueError for the first row of a CSV that is `wrong`; the index of `rows` counts from its header."""
    if wrong.any():
        row = wrong.index[int(np.argmax(wrong.to_numpy()))]
        raise ValueError(f"{path}: row {row + 1} after the header, {name} '{rows[name].loc[row]}' {sentence}")


def class_list(dataset: Dataset) -> list[str] | None:
    """The classes in the order of the `labels` file, one a line; None where the annotations name none."""
    if "labels" not in dataset.annotations:
        return None
    path = annotation_file(dataset.root, dataset.annotations["labels"], "labels")
    lines: dict[str, int] = {}
    for number, name in read_lines(path):
        if name in lines:
            raise ValueError(f"{path}: lines {lines[name]} and {number} are both '{name}'; name each class once")
        lines[name] = number
    return list(lines)


def class_numbers(names: Iterable[str], dataset: Dataset) -> dict[str, int]:
    """Class -> label from 0: by the `labels` file where the annotations name one, else in sorted order.

    An empty name is no class. Raises ValueError when the `labels` file lacks a class.
    """
    order = class_list(dataset)
    names = sorted(set(names) - {""})
    for name in names if order is not None else []:
        if name not in order:
            raise ValueError(f"{dataset.root / dataset.annotations['labels']}: no line '{name}', a class that the annotations name"
                             f"{hint(name, order)}")  # fmt: skip
    return {name: label for label, name in enumerate(names if order is None else order)}


def hint(word: str, known: list[str]) -> str:
    """`like`, but of many known names only the first few."""
    text = did_you_mean(word, known)
    return text if len(known) <= 20 or not text.startswith("; known") else f"; known are {', '.join(known[:5])} and others"


def checked(table: pd.DataFrame, files: dict[str, Path]) -> pd.DataFrame:
    """The COLUMNS of a reader's table; start and end are NaN, the whole file, where it has none.

    Raises ValueError for a clip_id that is no relative name, and for a clip that is listed twice, within a file or in two.
    """
    bad = table["clip_id"].str.contains(_BAD_ID, regex=True)
    if bad.any():
        row = table[bad].iloc[0]
        raise ValueError(f"{files[row['split']]}: {row['clip_id']!r} cannot name a clip; a clip_id is a relative name without empty "
                         "parts, '.', '..' or control characters: rename it")  # fmt: skip
    twice = table["clip_id"][table["clip_id"].duplicated()]
    if len(twice):
        where = [files[split].name for split in table.loc[table["clip_id"] == twice.iloc[0], "split"]]
        raise ValueError(f"{files[table.at[twice.index[0], 'split']]}: clip '{twice.iloc[0]}' is listed more than once "
                         f"({', '.join(where)}); keep one row of it")  # fmt: skip
    return table.reindex(columns=COLUMNS).astype({"start": float, "end": float, "label": np.int32})
