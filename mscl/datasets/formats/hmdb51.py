"""HMDB51 annotations: for each class and fold a file `<class>_test_split<N>.txt` with lines `name.avi 1`.

1 is a training video, 2 a test video, 0 a video that the fold does not use. Names contain `!`, `&` and brackets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets.find import Found, by_name
from mscl.datasets.formats.annotations import checked, class_numbers, read_lines

FLAGS = {"train": "1", "test": "2"}
_FILE = re.compile(r"([^.].*)_test_split([123])\.txt")

HOW = (
    "download hmdb51_org.rar and test_train_splits.rar (HMDB's page at the Serre lab) and unpack them, including "
    "the RAR file of each class, or let `download: {{source: hmdb51}}` in datasets.{name} do it"
)


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """The training and test clips of the fold, one row per clip (columns: `annotations.COLUMNS`); clip_id is class/name.

    Labels number the classes in sorted order. Raises ValueError that names the file and the line and says how to fix it.
    """
    folders = {split: dataset.root / dataset.annotations[split] for split in dataset.annotated}
    files = {folder: class_files(folder, dataset.fold) for folder in dict.fromkeys(folders.values())}
    listed = {folder: _read_fold(found) for folder, found in files.items()}
    numbers = class_numbers((name for found in files.values() for name in found), dataset)
    rows = [
        (f"{name}/{PurePosixPath(video).stem}", split, numbers[name], name, f"{name}/{video}")
        for split, folder in folders.items()
        for name, video, flag in listed[folder]
        if flag == FLAGS[split]
    ]
    return checked(pd.DataFrame(rows, columns=["clip_id", "split", "label", "class_name", "file"]), folders)


def class_files(folder: Path, fold: int) -> dict[str, Path]:
    """{class: its file of `fold`}. Raises ValueError if a class has a file for another fold only, or if there are no files."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; put HMDB51's split files there or correct annotations in the configuration")
    names = [match for path in sorted(folder.iterdir()) if (match := _FILE.fullmatch(path.name))]
    found = {match[1]: folder / match[0] for match in names if match[2] == str(fold)}
    absent = sorted({match[1] for match in names} - set(found))
    if absent or not found:
        raise ValueError(
            f"{folder}: no {absent[0] if absent else '<class>'}_test_split{fold}.txt"
            f"{', but there is one for another fold' if absent else ''}; unpack all of HMDB51's split files there"
        )
    return found


def _read_fold(files: dict[str, Path]) -> list[tuple[str, str, str]]:
    """(class, video, flag) of every line of a fold."""
    rows = []
    for name, path in files.items():
        for line, text in read_lines(path):
            video, flag = (*text.rsplit(maxsplit=1), "")[:2]
            if flag not in ("0", "1", "2") or "/" in video:
                raise ValueError(
                    f"{path}: line {line}, '{text}' is not a video name and 0, 1 or 2; fix it or download the file again"
                )
            rows.append((name, video, flag))
    return rows


def find_videos(folder: Path, files: Sequence[str]) -> list[Found]:
    """Find the videos in the folders of their classes."""
    return by_name(folder, files, classes=True)
