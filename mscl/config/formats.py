"""The table of built-in data-set formats: for each, what must be known before its files are read.

docs/extending.md explains how to add one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mscl.config.module_path import refuse_unknown

LISTS = "ucfTrainTestlist"
SSV2_OLDER = "something-something-v2-"  # prefix of the older names of SSv2's annotation files


def _nothing_usual(fold: int) -> dict[str, str]:
    return {}


def _one_file(path: Path, fold: int) -> list[Path]:
    return [path] if path.is_file() else []


@dataclass(frozen=True)
class Format:
    """One data-set format.

    Its module has `read_annotations(dataset)`, `find_videos(folder, files)`, `HOW` and, if needed, `prepare(name, dataset)`.
    """

    module: str
    videos: str = "."  # default folder of the videos, below root
    usual: Callable[[int], dict[str, str]] = _nothing_usual  # fold -> default annotations
    files: Callable[[Path, int], list[Path]] = _one_file  # (path of an annotation, fold) -> existing files
    labels: str = ""  # usual name of the labels file if one is required; "" if not
    splits: tuple[str, ...] = ()  # the only splits that its lists define; (): any split
    sources: tuple[str, ...] = ()  # names of the downloads in this format
    labels_brought: bool = False  # whether the user provides the `labels` file when the rest is downloaded
    folders: bool = False  # whether the annotations are the folders of videos themselves
    folds: bool = False  # whether it has three official splits
    suffix: str = ".mp4"  # of its video files
    generated: bool = False  # whether embedded (generated) data sets can have this format


def _ucf101_lists(fold: int) -> dict[str, str]:
    return {
        "labels": f"{LISTS}/classInd.txt",
        "train": f"{LISTS}/trainlist0{fold}.txt",
        "test": f"{LISTS}/testlist0{fold}.txt",
    }


def _ssv2_files(path: Path, fold: int) -> list[Path]:
    older = path.with_name(SSV2_OLDER + path.name)
    return [p for p in (path, older) if p.is_file()][:1]


def _hmdb51_files(path: Path, fold: int) -> list[Path]:
    return _one_file(path, fold) or sorted(path.glob(f"*_test_split{fold}.txt"))


FORMATS: dict[str, Format] = {
    "kinetics": Format(
        "mscl.datasets.formats.kinetics", videos="videos", sources=("kinetics400",), labels_brought=True, generated=True
    ),
    "ssv2": Format(
        "mscl.datasets.formats.ssv2", videos="videos", files=_ssv2_files, labels="labels.json", suffix=".webm", generated=True
    ),
    "ucf101": Format(
        "mscl.datasets.formats.ucf101",
        videos="UCF-101",
        usual=_ucf101_lists,
        labels="classInd.txt",
        sources=("ucf101",),
        folds=True,
    ),
    "hmdb51": Format(
        "mscl.datasets.formats.hmdb51",
        videos="videos",
        usual=lambda fold: {"train": "splits", "test": "splits"},
        files=_hmdb51_files,
        splits=("train", "test"),
        sources=("hmdb51",),
        folds=True,
        labels_brought=True,
    ),
    "folder": Format("mscl.datasets.formats.folder", usual=lambda fold: {"train": "."}, folders=True),
    "csv": Format("mscl.datasets.formats.csv"),
}


def format_of(name: str) -> Format:
    """The row of a format. The user's own format is given as the module path of its reader, `package.module:read_annotations`."""
    return FORMATS.get(name) or Format(name.partition(":")[0])


def known_format(name: str) -> str:
    """Return `name` if it is a known format or a module path that exists; else raise ValueError."""
    refuse_unknown("format", name, list(FORMATS))
    return name
