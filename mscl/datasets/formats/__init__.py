"""One file per data-set format: how its annotations are read, where its videos lie, how to get it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mscl.config.datasets import Dataset
from mscl.config.formats import FORMATS
from mscl.config.module_path import load
from mscl.datasets import find


def reader_of(dataset: Dataset) -> ModuleType:
    """The module of a data set's format (`mscl.config.formats.Format` says what it has)."""
    if dataset.row.module not in {row.module for row in FORMATS.values()}:
        load(dataset.format)  # which says what is wrong with a module path
    return importlib.import_module(dataset.row.module)


def how_to_get(dataset: Dataset) -> str:
    """A sentence on where the data set comes from."""
    return getattr(reader_of(dataset), "HOW", "put its files there")


def find_videos(dataset: Dataset, folder: Path, files: Sequence[str]) -> list[find.Found]:
    """Where the videos lie; of a format that does not say, at exactly the paths of its annotations."""
    return getattr(reader_of(dataset), "find_videos", find.by_path)(folder, files)
