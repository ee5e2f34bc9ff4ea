"""Which clips are of one recording: they look alike, so they must not stand on both sides of a split that is drawn here.

A recording is, in this order: what the user says (a column `group` of the annotations, or the setting `group`), what the names of
UCF101, HMDB51 and Kinetics tell, the video file. Where nothing is known, a video is a recording of its own.
"""

from __future__ import annotations

import os
import re

import pandas as pd

from mscl.config.datasets import Dataset

# Ends of file names that number the clips of one recording.
_UCF101 = re.compile(r"(.*_g\d+)_c\d+")  # v_Archery_g08_c03: group 8
_KINETICS = re.compile(r"(?:.*/)?(.+)_\d{6}_\d{6}")  # <youtube_id>_000042_000052
_HMDB51 = re.compile(r"(.*)_[hulf]_[nc]m_np\d_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+")  # <recording>_<class>_f_cm_np1_ba_med_3


def by_name(name: str, class_name: str) -> str:
    """The recording that a video's name tells, in the way of UCF101, HMDB51 or Kinetics; "" if it tells none.

    `name` is a path without its suffix.
    """
    if match := _KINETICS.fullmatch(name) or _UCF101.fullmatch(name):
        return match[1]
    if match := _HMDB51.fullmatch(name):
        return os.path.basename(match[1]).removesuffix(f"_{class_name}")
    return ""


def recordings(name: str, table: pd.DataFrame, dataset: Dataset) -> pd.Series:
    """The recording that each clip of data set `name` is cut from, (N,) text.

    Raises ValueError if the setting `group` fits no video, or if the clips of one file are said to be of different recordings.
    """
    folder = str(dataset.root / dataset.videos) + os.sep
    paths = [os.path.normpath(os.fsencode(file).decode(errors="replace")).removeprefix(folder) for file in table["file"]]
    files = pd.Series([os.path.splitext(path)[0] for path in paths], table.index, dtype=object)
    told = [by_name(file, class_name) or file for file, class_name in zip(files, table["class_name"], strict=True)]
    given = _of_one_file(name, _given(name, table, paths, dataset.group), files)
    return given.where(given != "", pd.Series(told, table.index, dtype=object))


def _given(name: str, table: pd.DataFrame, paths: list[str], pattern: str | None) -> pd.Series:
    """What the user says: the column `group`, else what the expression finds in the path, or else in the clip_id; "" for nothing."""
    given = table["group"] if "group" in table else pd.Series("", table.index, dtype=object)
    if pattern is None:
        return given
    search = re.compile(pattern).search
    found = [search(path) or search(clip_id) for path, clip_id in zip(paths, table["clip_id"], strict=True)]
    if not any(found):
        raise ValueError(
            f"datasets.{name}.group: '{pattern}' is found in no video, neither in its path, such as '{paths[0]}', nor in its clip_id; "
            "correct the expression"
        )
    return given.where(given != "", pd.Series([match[1] or "" if match else "" for match in found], table.index, dtype=object))


def _of_one_file(name: str, given: pd.Series, files: pd.Series) -> pd.Series:
    """The same with one recording per file. Raises ValueError if a file has two."""
    said = given[given != ""]
    if said.empty:
        return given
    of_file = said.groupby(files[said.index]).agg(["first", "nunique"])
    for file in of_file.index[of_file["nunique"] > 1]:
        two = sorted(set(said[files[said.index] == file]))[:2]
        raise ValueError(
            f"datasets.{name}: clips of one file, '{file}', are given the groups '{two[0]}' and '{two[1]}'; a file is one recording, so "
            "correct the column group or the setting group"
        )
    return files.map(of_file["first"]).fillna("")
