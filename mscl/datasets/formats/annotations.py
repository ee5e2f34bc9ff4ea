"""Functions that the readers of all formats share: reading files with clear error messages, and checking rows."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.config.validation import did_you_mean
from mscl.datasets.find import one_form

# Columns of the table that a reader returns. `file`: expected path of the video, relative to the video folder or absolute.
COLUMNS = ["clip_id", "split", "label", "class_name", "start", "end", "file"]
_CELL = r'(?:\s*"(?:[^"]|"")*"\s*|[^",]*)'  # a cell of a CSV file: quoted, or without any quote
_CSV_LINE = re.compile(f"{_CELL}(?:,{_CELL})*")
# An empty part, ".", ".." or a control character. Not allowed, because a clip_id becomes a folder inside a tar file.
_BAD_ID = r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f-\x9f]"


def annotation_file(root: Path, name: str, key: str, prefix: str = "") -> Path:
    """Path of the annotation file `root / name`, or of the older file name with `prefix`.

    Raises ValueError that names the setting `key` (a split, "labels", or a key with dots) if neither file exists.
    """
    path = root / name
    older = path.with_name(prefix + path.name)
    for candidate in (path, older):
        if candidate.is_file():
            return candidate
    also = f" (nor {older.name})" if prefix else ""
    setting = key if "." in key else f"annotations.{key}"
    raise ValueError(f"{path}: no such file{also}; put the file there or correct {setting} in the configuration")


def annotation_files(dataset: Dataset) -> dict[str, Path]:
    """{split: annotation file} of every annotated split. Raises ValueError that names the first missing file."""
    return {split: annotation_file(dataset.root, dataset.annotations[split], split) for split in dataset.annotated}


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, in composed form (`find.one_form`).

    Raises ValueError if the file is not UTF-8.
    """
    try:
        return one_form(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; download the file again") from None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, stripped text) of every line that is not blank."""
    return [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]


def read_json(path: Path, kind: type, what: str) -> Any:
    """Read a JSON file whose value must be of type `kind` (`what` in words). Raises ValueError that names the file and line."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON at line {error.lineno}, column {error.colno} ({error.msg}); fix that line") from None
    if isinstance(value, kind):
        return value
    raise ValueError(f"{path}: holds a {type(value).__name__}, expected {what}; download the file again")


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file with a header as text, missing cells as "". Raises ValueError that names the file, and the line if known."""
    text = read_text(path)
    _refuse_stray_quotes(path, text)
    try:
        rows = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skipinitialspace=True)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: the file is empty; download it again") from None
    except pd.errors.ParserError as error:
        raise ValueError(
            f"{path}: not a readable CSV file ({' '.join(str(error).split())}); fix that line or download the file again"
        ) from None
    if not isinstance(rows.index, pd.RangeIndex):  # pandas would use the first field as the row name
        raise ValueError(f"{path}: its rows have more fields than its header; put names that contain a comma into double quotes")
    return rows.fillna("")


def _refuse_stray_quotes(path: Path, text: str) -> None:
    """Raise ValueError for the first line with an unpaired quote: a reader of CSV would join it with the lines below."""
    for number, line in enumerate(text.split("\n") if '"' in text else (), 1):
        if '"' in line and not _CSV_LINE.fullmatch(line):
            raise ValueError(
                f"{path}: line {number} has a stray double quote ({line.strip()[:80]}); put the whole cell into double quotes and "
                "write each quote inside it twice"
            )


def refuse(path: Path, rows: pd.DataFrame, name: str, wrong: pd.Series, sentence: str) -> None:
    """Raise ValueError with `sentence` for the first `wrong` row of a CSV file; the index of `rows` counts from the header."""
    if wrong.any():
        row = wrong.index[int(np.argmax(wrong.to_numpy()))]
        raise ValueError(f"{path}: row {row + 1} after the header, {name} '{rows[name].loc[row]}' {sentence}")


def class_list(dataset: Dataset) -> list[str] | None:
    """The classes of the `labels` file, one per line, in order; None without such a file. Raises ValueError for a repeated class."""
    if "labels" not in dataset.annotations:
        return None
    path = annotation_file(dataset.root, dataset.annotations["labels"], "labels")
    lines: dict[str, int] = {}
    for number, name in read_lines(path):
        if name in lines:
            raise ValueError(f"{path}: lines {lines[name]} and {number} are both '{name}'; list each class once")
        lines[name] = number
    return list(lines)


def class_numbers(names: Iterable[str], dataset: Dataset) -> dict[str, int]:
    """{class: label from 0}, in the order of the `labels` file if there is one, else in sorted order.

    An empty name is not a class. Raises ValueError if a class is missing from the `labels` file.
    """
    order = class_list(dataset)
    names = sorted(set(names) - {""})
    for name in names if order is not None else []:
        if name not in order:
            labels = dataset.root / dataset.annotations["labels"]
            raise ValueError(f"{labels}: no line for class '{name}', which the annotations use{hint(name, order)}")
    return {name: label for label, name in enumerate(names if order is None else order)}


def hint(word: str, known: list[str]) -> str:
    """The text of `did_you_mean`; with more than 20 known names and no similar one, only the first five are listed."""
    text = did_you_mean(word, known)
    return text if len(known) <= 20 or not text.startswith("; known") else f"; known are {', '.join(known[:5])} and others"


def checked(table: pd.DataFrame, files: dict[str, Path]) -> pd.DataFrame:
    """The COLUMNS of a reader's table, and `group` if it has it. Missing `start` and `end` are NaN: the whole file.

    Raises ValueError for an invalid clip_id, and for a clip that is listed twice, in one file or in two.
    """
    bad = table["clip_id"].str.contains(_BAD_ID, regex=True)
    if bad.any():
        row = table[bad].iloc[0]
        raise ValueError(
            f"{files[row['split']]}: {row['clip_id']!r} cannot name a clip; a clip_id is a relative name without empty parts, '.', "
            "'..' or control characters: rename it"
        )
    twice = table["clip_id"][table["clip_id"].duplicated()]
    if len(twice):
        where = [files[split].name for split in table.loc[table["clip_id"] == twice.iloc[0], "split"]]
        path = files[table.at[twice.index[0], "split"]]
        raise ValueError(f"{path}: clip '{twice.iloc[0]}' is listed more than once ({', '.join(where)}); keep one row of it")
    columns = [*COLUMNS, "group"] if "group" in table else COLUMNS
    return table.reindex(columns=columns).astype({"start": float, "end": float, "label": np.int32})
