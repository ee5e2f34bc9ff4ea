"""One module per data-set format: how to read its annotations, find its videos and obtain the data set."""

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
    """The module of a data set's format (`mscl.config.formats.Format` documents what it contains).

    Raises ValueError if the format is a module path that cannot be loaded.
    """
    if dataset.row.module not in {row.module for row in FORMATS.values()}:
        load(dataset.format)  # raises ValueError for an invalid module path
    return importlib.import_module(dataset.row.module)


def how_to_get(dataset: Dataset) -> str:
    """A sentence that says how to get the data set."""
    return getattr(reader_of(dataset), "HOW", "put its files there")


def find_videos(dataset: Dataset, folder: Path, files: Sequence[str]) -> list[find.Found]:
    """Find `files` below `folder` as the format does; by default at the exact paths in the annotations."""
    return getattr(reader_of(dataset), "find_videos", find.by_path)(folder, files)
