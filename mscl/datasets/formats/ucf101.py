"""UCF101 annotations: classInd.txt (`1 ApplyEyeMakeup`), trainlist0N.txt (`Class/v_x.avi 1`), testlist0N.txt (`Class/v_x.avi`).

Labels start at 0 here and at 1 in the files. The class of a video is its folder, not its file name: the folder
HandstandPushups holds v_HandStandPushups_….
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets.find import Found, by_name
from mscl.datasets.formats.annotations import annotation_file, annotation_files, checked, hint, read_lines

HOW = (
    "download UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip (https://www.crcv.ucf.edu/data/UCF101.php) "
    "and unpack them, or let `download: {{source: ucf101}}` in datasets.{name} do it"
)


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """All listed clips, one row per clip (columns: `annotations.COLUMNS`); clip_id is the file name without its suffix.

    Raises ValueError that names the file and the line and says how to fix it, also if a label contradicts classInd.txt.
    """
    labels = annotation_file(dataset.root, dataset.annotations["labels"], "labels")
    numbers, files = read_classes(labels), annotation_files(dataset)
    rows = [row for split, path in files.items() for row in _read_list(path, split, numbers, labels)]
    return checked(pd.DataFrame(rows, columns=["clip_id", "split", "label", "class_name", "file"]), files)


def read_classes(path: Path) -> dict[str, int]:
    """{class: label from 0} of a classInd.txt file. Raises ValueError for an invalid or repeated line."""
    numbers: dict[str, int] = {}
    for line, text in read_lines(path):
        number, name = (*text.split(maxsplit=1), "")[:2]
        if not (number.isascii() and number.isdigit() and int(number) and name):
            raise ValueError(
                f"{path}: line {line}, '{text}' is not a number (1 or more) and a class; fix it or download the file again"
            )
        if name in numbers or int(number) - 1 in numbers.values():
            raise ValueError(f"{path}: line {line}, '{text}' repeats a class or a number; give each class its own")
        numbers[name] = int(number) - 1
    return numbers


def _read_list(path: Path, split: str, numbers: dict[str, int], labels: Path) -> list[tuple]:
    rows = []
    for line, text in read_lines(path):
        file, label = (*text.rsplit(maxsplit=1), "")[:2]
        if not (label.isascii() and label.isdigit()):  # a test list has no labels
            file, label = text, ""
        name, _, video = file.partition("/")
        if not video or "/" in video:
            raise ValueError(f"{path}: line {line}, '{text}' is not Class/video.avi; fix it or download the file again")
        if name not in numbers:
            raise ValueError(f"{path}: line {line}, class '{name}' is not in {labels.name}{hint(name, list(numbers))}")
        if label and int(label) != numbers[name] + 1:
            raise ValueError(
                f"{path}: line {line} gives class {name} the number {label}, but {labels.name} gives it {numbers[name] + 1}; "
                "take both files from the same release"
            )
        rows.append((PurePosixPath(video).stem, split, numbers[name], name, f"{name}/{video}"))
    return rows


def find_videos(folder: Path, files: Sequence[str]) -> list[Found]:
    """Find the videos in the folders of their classes."""
    return by_name(folder, files, classes=True)
