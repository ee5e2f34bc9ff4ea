"""What the readers of both formats share: files read with one clear sentence when they cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = ["clip_id", "split", "label", "class_name", "start", "end"]  # of the table a format's reader returns


def annotation_file(root: Path, name: str, key: str, prefix: str = "") -> Path:
    """Path of an annotation file below `root`, by its plain name or its older prefixed one.

    Raises ValueError naming the setting when neither is there.
    """
    path = root / name
    older = path.with_name(prefix + path.name)
    for candidate in (path, older):
        if candidate.is_file():
            return candidate
    also = f" (nor {older.name})" if prefix else ""
    raise ValueError(f"{path}: no such file{also}; put the annotations there or correct annotations.{key} in the configuration")


def read_json(path: Path, kind: type, what: str) -> Any:
    """Read JSON that must be of `kind`; raise ValueError naming the file, and the line of a mistake."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON at line {error.lineno}, column {error.colno} ({error.msg}); mend that line") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; get the file again") from None
    if isinstance(value, kind):
        return value
    raise ValueError(f"{path}: holds a {type(value).__name__} where {what} is expected; get the file again")


def no_duplicates(table: pd.DataFrame, files: dict[str, Path]) -> None:
    """Raise ValueError when a clip is listed twice, within a file or in two."""
    twice = table["clip_id"][table["clip_id"].duplicated()]
    if len(twice):
        where = [files[split].name for split in table.loc[table["clip_id"] == twice.iloc[0], "split"]]
        raise ValueError(f"{files[table.at[twice.index[0], 'split']]}: clip '{twice.iloc[0]}' is listed more than once "
                         f"({', '.join(where)}); keep one row of it")  # fmt: skip
