"""The data-set formats that have a name: one row each, with what must be known of one before its files are read.

How to add one: docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mscl.config.module_path import refuse_unknown

LISTS = "ucfTrainTestlist"
SSV2_OLDER = "something-something-v2-"  # the prefix of SSv2's older annotation files


def _nothing_usual(fold: int) -> dict[str, str]:
    return {}


def _one_file(path: Path, fold: int) -> list[Path]:
    return [path] if path.is_file() else []


@dataclass(frozen=True)
class Format:
    """One format. Its module has `read_annotations(dataset)`, `find_videos(folder, files)`, `HOW` and, if need be, `prepare(name, dataset)`."""

    module: str
    videos: str = "."  # the usual folder of the videos, below root
    usual: Callable[[int], dict[str, str]] = _nothing_usual  # fold -> the usual annotations
    files: Callable[[Path, int], list[Path]] = _one_file  # (path of an annotation, fold) -> the files there
    labels: str = ""  # what its required file of labels is called; "" where none is required
    splits: tuple[str, ...] = ()  # the only ones that its files know; () any
    sources: tuple[str, ...] = ()  # downloads that come in it
    labels_brought: bool = False  # whether a `labels` file is the user's own where the rest is downloaded
    folders: bool = False  # the annotations are folders of videos, within which the videos lie
    suffix: str = ".mp4"  # of its videos
    generated: bool = False  # whether embedded data sets can come in it


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
        "mscl.datasets.formats.ucf101", videos="UCF-101", usual=_ucf101_lists, labels="classInd.txt", sources=("ucf101",)
    ),
    "hmdb51": Format(
        "mscl.datasets.formats.hmdb51",
        videos="videos",
        usual=lambda fold: {"train": "splits", "test": "splits"},
        files=_hmdb51_files,
        splits=("train", "test"),
        sources=("hmdb51",),
        labels_brought=True,
    ),
    "folder": Format("mscl.datasets.formats.folder", usual=lambda fold: {"train": "."}, folders=True),
    "csv": Format("mscl.datasets.formats.csv"),
}


def format_of(name: str) -> Format:
    """The row of a format; one of your own is the module path of its reader, `package.module:read_annotations`."""
    return FORMATS.get(name) or Format(name.partition(":")[0])


def known_format(name: str) -> str:
    """Check a name in a configuration; raises ValueError."""
    refuse_unknown("format", name, list(FORMATS))
    return name
