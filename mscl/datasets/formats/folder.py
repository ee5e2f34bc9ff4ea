"""One folder of videos per split, with files `class/clip.mp4`: the folder name is the class. There are no other annotations.

Videos may be in deeper folders (`class/day 1/clip.mp4`). If all videos are outside class folders, the data set has no labels and
can be used for pretraining. Other files and hidden files are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets.find import SUFFIXES, Found, as_listed, is_folder, one_form, shown, walk
from mscl.datasets.formats.annotations import checked, class_numbers

HOW = "put one folder of videos per class there"


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """All videos below the splits' folders, one row per clip (columns: `annotations.COLUMNS`).

    clip_id is the path within the split, without its suffix. Labels number the sorted classes of all splits, or the lines of a
    `labels` file. A subfolder that cannot be listed is skipped (`mscl.datasets.left_out` reports it). Raises ValueError that names the folder and says how to fix it if a folder is missing, holds no video or is
    inside another split's folder, or if two videos have the same clip_id.
    """
    folders = {split: dataset.root / dataset.annotations[split] for split in dataset.annotated}
    _apart(folders)
    rows = [row for split, folder in folders.items() for row in _read_split(split, folder)]
    files = [os.path.join(dataset.annotations[split], file) for _, split, _, file in rows]
    table = pd.DataFrame([row[:3] for row in rows], columns=["clip_id", "split", "class_name"])
    table["file"] = pd.Series(files, dtype=object)  # dtype object: a text column cannot hold a name that is not UTF-8
    unsorted = table["class_name"] == ""
    if unsorted.any() and not unsorted.all():
        stray = table[unsorted].iloc[0]
        raise ValueError(
            f"{folders[stray['split']]}: '{stray['clip_id']}' is not in a class folder, but other videos are; move it into one"
        )
    numbers = class_numbers(table["class_name"].unique(), dataset)
    table["label"] = table["class_name"].map(numbers).fillna(-1)
    return checked(table, folders)


def _apart(folders: dict[str, Path]) -> None:
    """Raise ValueError if the folder of one split is the same as, or inside, the folder of another split."""
    places = {split: Path(os.path.abspath(folder)) for split, folder in folders.items()}
    for inner, place in places.items():
        for outer, other in places.items():
            if inner != outer and place.is_relative_to(other):
                raise ValueError(
                    f"{folders[inner]}: the folder of split '{inner}' is inside that of split '{outer}', so its videos would be in "
                    "both splits; give each split its own folder"
                )


def _read_split(split: str, folder: Path) -> list[tuple[str, str, str, str]]:
    """(clip_id, split, class, file relative to the split's folder) of every video of a split."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; put class folders of videos there or correct annotations.{split}")
    rows, names, blocked = [], {}, []
    for inside, entries in walk(folder, blocked=blocked):
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if entry.name.startswith(".") or suffix.lower() not in SUFFIXES or is_folder(entry):
                continue
            clip_id = one_form(shown(f"{inside}/{stem}" if inside else stem))
            if clip_id in names:
                raise ValueError(
                    f"{folder / shown(inside)}: holds both {names[clip_id]} and {shown(entry.name)}; keep one of them"
                )
            names[clip_id] = shown(entry.name)
            file = f"{inside}/{entry.name}" if inside else entry.name
            rows.append((clip_id, split, one_form(shown(inside.partition("/")[0])), file))
    if not rows:
        unread = f" ({blocked[0]} cannot be listed)" if blocked else ""
        raise ValueError(f"{folder}: holds no video for split '{split}'{unread}; put class folders of videos there")
    return rows


def find_videos(folder: Path, files: Sequence[str]) -> list[Found]:
    """Check the status of the videos that `read_annotations` has listed."""
    return as_listed(folder, files)
