"""The configuration of one data set: its folder, its format, which part of it is used, and how its frames are stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mscl.config.formats import FORMATS, Format, format_of, known_format
from mscl.config.limits import Place
from mscl.config.validation import Strict, number

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+.-]*$", max_length=100)]  # a file's name
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]  # more is a slip of the keyboard, and would be planned for ever
Share = Annotated[float, Field(ge=0, le=1)]

UNPACKED = "unpacked-by-mscl.txt"  # a file below root; it exists when the workflow unpacked the annotation files from a package
# Usual name of a split -> its name in the published lists.
PUBLISHED_SPLIT = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class Embedded(Strict):
    """A generated data set: encoded videos whose class can be recognised only by motion."""

    clips: dict[str, Positive]  # split -> number of videos
    scenes: Literal["programs", "order"] = "programs"  # 12 classes of varied motion, or 8 that differ only in order and direction
    seed: int = 0
    frames: Annotated[int, Field(ge=8)] = 32
    size: tuple[Positive, Positive] = (96, 72)  # width, height, pixels


class FramesConfig(Strict):
    """How frames are extracted."""

    step: Positive = 2  # keep every step-th frame of the video
    short_side: Annotated[int, Field(ge=16)] = 256  # pixels; a smaller video is not enlarged
    quality: Annotated[int, Field(ge=1, le=31)] = 3  # ffmpeg's -q:v; 1 is best
    timeout: Positive = 300  # seconds for one video
    keep: Literal["all", "none"] = "all"  # none: store no image; what reads a frame decodes its video again

    @model_serializer(mode="wrap")
    def without_later_default(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`keep` came later: left out at its default, so that the settings of what was made before it are the same."""
        return {key: value for key, value in dumped(self).items() if (key, value) != ("keep", "all")}


class Subset(Strict):
    """Which annotated videos are used: those that pass every given filter. Labels are not renumbered."""

    splits: tuple[Name, ...] = ()  # the splits to filter; empty: all
    classes: tuple[str, ...] = ()
    ids: str | None = None  # a text file below root, one clip_id a line
    fraction: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # chosen by a hash of the clip_id; the videos kept at 0.01 are also kept at 0.1
    )


class Download(Strict):
    """Download the data set first, from the addresses in mscl/datasets/acquire/sources.csv."""

    source: Literal["kinetics400", "ucf101", "hmdb51"]
    mirror: str | None = None  # base URL that replaces the published one
    keep_archives: bool = False  # false: delete each archive after its videos are unpacked


def one_group(pattern: str) -> str:
    """Return `pattern` if it is a regular expression with exactly one group; else raise ValueError."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a regular expression ({error}); correct it") from None
    if groups != 1:
        raise ValueError(
            f"'{pattern}' has {groups} groups; put the part that names the recording, and nothing else, into (…); other brackets are (?:…)"
        )
    return pattern


class Dataset(Strict):
    """One data set."""

    format: Annotated[str, AfterValidator(known_format)]
    root: Place
    videos: str = ""  # folder of the videos below root; the default depends on the format
    annotations: dict[str, str] = {}  # split (or "labels") -> file or folder below root; ucf101, hmdb51 and folder have defaults
    fold: Annotated[Literal[1, 2, 3], BeforeValidator(number)] = 1  # which of the three official splits (UCF101, HMDB51)
    group: Annotated[str, AfterValidator(one_group)] | None = None  # an expression that finds the recording in a path or clip_id
    holdout: dict[Name, Annotated[float, Field(gt=0, lt=1)]] = {}  # new split -> share of videos, chosen by hash
    holdout_from: str = ""  # the split that they are taken from; default: the first annotated split
    shards: Annotated[int, Field(ge=1, le=9999)]
    frames: FramesConfig = FramesConfig()
    subset: Subset = Subset()
    download: Download | None = None
    embedded: Embedded | None = None

    @model_validator(mode="before")
    @classmethod
    def defaults(cls, values: Any) -> Any:
        """Fill in the defaults of the format, and `holdout_from`, since the JSON of a job does not keep the order of the splits."""
        if not isinstance(values, dict) or not isinstance(values.get("format"), str):
            return values
        row, fold = format_of(values["format"]), values.get("fold", 1)
        usual = row.usual(fold)
        values = {"videos": row.videos} | ({"annotations": usual} if usual else {}) | values
        named = values.get("annotations")
        first = next((s for s in named if s != "labels"), "") if isinstance(named, dict) else ""
        return {"holdout_from": first} | values

    @model_validator(mode="after")
    def possible(self) -> Dataset:
        row = self.row
        if row.labels and "labels" not in self.annotations:
            raise ValueError(f"annotations: the {self.format} format needs 'labels' ({row.labels})")
        if not self.annotated:
            raise ValueError("annotations: name at least one split and its file")
        if row.splits and not set(self.annotated) <= set(row.splits):
            raise ValueError(
                f"annotations: the {self.format} lists define only the splits {' and '.join(row.splits)}; use holdout for another split"
            )
        if self.fold != 1 and self.format in FORMATS and not row.folds:
            raise ValueError(f"fold: the {self.format} format has no folds; remove this key")
        if row.folders and self.videos != row.videos:
            raise ValueError(
                f"videos: the {self.format} format takes its videos from the folders under annotations; remove this key"
            )
        self._check_origin()
        self._check_holdout()
        return self

    def _check_origin(self) -> None:
        """Check that the data set is either generated or downloaded, not both, and that this is possible in its format."""
        if self.embedded and set(self.embedded.clips) != set(self.annotated):
            raise ValueError(f"embedded.clips: give the number of videos for each of {', '.join(self.annotated)}")
        if self.embedded and not self.row.generated:
            known = " or ".join(name for name, row in FORMATS.items() if row.generated)
            raise ValueError(f"embedded: generated data sets need the format {known}; change format")
        if self.embedded and self.download:
            raise ValueError("download: an embedded data set is generated, not downloaded; remove embedded or download")
        if self.download and self.download.source not in self.row.sources:
            raise ValueError(
                f"download.source: {self.download.source} is not available in the {self.format} format; change source or format"
            )

    def _check_holdout(self) -> None:
        if self.holdout_from not in self.annotated:
            raise ValueError(
                f"holdout_from: no split '{self.holdout_from}' under annotations; there are {', '.join(self.annotated)}"
            )
        for name in set(self.holdout) & {*self.annotated, "labels"}:
            raise ValueError(f"holdout: split '{name}' already has a file; give the new split another name")
        if sum(self.holdout.values()) >= 1:
            raise ValueError("holdout: the shares must sum to less than 1")
        for name in self.subset.splits:
            if name not in self.splits:
                raise ValueError(f"subset.splits: no split '{name}'; there are {', '.join(self.splits)}")

    @property
    def row(self) -> Format:
        """The row of the format in the table of formats."""
        return format_of(self.format)

    def of_fold(self, fold: int) -> Dataset:
        """The same data set with the lists of another official split. Raises ValueError for a format without folds."""
        usual, theirs = self.row.usual(self.fold), self.row.usual(fold)
        lists = {split: theirs.get(split, path) if path == usual.get(split) else path for split, path in self.annotations.items()}
        return Dataset.model_validate(self.model_dump() | {"fold": fold, "annotations": lists})

    @property
    def annotated(self) -> list[str]:
        """The splits with an annotation file or folder."""
        return [s for s in self.annotations if s != "labels"]

    @property
    def splits(self) -> list[str]:
        """All splits: the annotated ones, then those of `holdout`."""
        return [*self.annotated, *self.holdout]

    def annotation_files(self) -> Iterator[Path]:
        """The annotation files that exist, in a fixed order. For a folder of annotation files: each file in it."""
        for name in dict.fromkeys(self.annotations.values()):
            yield from self.row.files(self.root / name, self.fold)
        if self.subset.ids and (path := self.root / self.subset.ids).is_file():
            yield path

    def class_folders(self) -> Iterator[Path]:
        """The folders of the splits and of their classes. The time of a folder changes when a video is added or removed."""
        for split in self.annotated:
            folder = self.root / self.annotations[split]
            if folder.is_dir():
                yield folder
                yield from sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))

    def brought_files(self) -> list[Path]:
        """The annotation files, or class folders, that the user provides: those that the workflow did not download or unpack."""
        if self.row.folders:
            return [*self.annotation_files(), *self.class_folders()]
        made = self.download is not None or (self.root / UNPACKED).exists()
        if not made:
            return list(self.annotation_files())
        own = [self.subset.ids] if self.subset.ids else []
        if self.download and self.row.labels_brought and "labels" in self.annotations:
            own.append(self.annotations["labels"])
        return [path for name in own if (path := self.root / name).is_file()]
