"""Unpack Something-Something v2 as it is published: numbered parts of one tar.gz file, and a zip file with the labels.

The parts `20bn-something-something-v2-00`, `-01` … are in the data set's root or in `<root>/parts/`, as plain files or inside
zip files. They are read one after the other as one stream; no joined copy is written to disk.
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mscl.config.datasets import UNPACKED, Dataset
from mscl.datasets.acquire.unpack import Damaged, Refused, absent, drop_top, sentences, untar, whole_folder
from mscl.machine.files import atomic_write

STEM = "20bn-something-something-v2"
LABELS = "20bn-something-something-download-package-labels.zip"
HOW = (
    "register for Something-Something v2 with its publisher (Qualcomm: https://www.qualcomm.com/developer/software/"
    f"something-something-v-2-dataset), download every part {STEM}-?? and the labels package ({LABELS}), put them into "
    "{root} or {root}/parts and run the same command again: this stage joins and unpacks them"
)
_PART = re.compile(rf"{STEM}-(\d\d)")

Opener = Callable[[], BinaryIO]


def unpack_parts(name: str, dataset: Dataset) -> None:
    """Unpack the video parts and the labels package to the paths that `dataset` names; existing files are kept.

    Does nothing if neither is in the root. Raises ValueError if a part is missing or damaged, or if the videos are in a folder
    that the configuration does not name.
    """
    folder, places = dataset.root / dataset.videos, (dataset.root, dataset.root / "parts")
    if absent(folder):
        openers = find_parts(places)
        usual = dataset.root / STEM
        if usual.is_dir() and usual != folder and next(usual.glob("*.webm"), None):
            raise ValueError(
                f"data set '{name}': the videos are in {usual}; set datasets.{name}.videos to {STEM}, or rename the folder to "
                f"{folder.name}"
            )
        if openers:
            _unpack_videos(openers, folder)
    _unpack_labels(dataset, places)


def find_parts(places: Iterable[Path]) -> dict[int, Opener]:
    """{part number: function that opens it}, in order; a plain part is preferred to the same part in a zip file.

    Raises ValueError that names the first missing number if there is a gap, and Damaged if a zip file cannot be read.
    """
    plain: dict[int, Opener] = {}
    zipped: dict[int, Opener] = {}
    for path in (p for place in places if place.is_dir() for p in sorted(place.iterdir())):
        found = _PART.fullmatch(path.name.removesuffix(".zip"))
        if not found or not path.is_file():
            continue
        if _starts(path, b"PK\x03\x04"):
            zipped = _in_zip(path, int(found[1])) | zipped
        else:
            plain.setdefault(int(found[1]), lambda path=path: open(path, "rb"))
    parts = dict(sorted((zipped | plain).items()))
    missing = [k for k in range(max(parts, default=-1) + 1) if k not in parts]
    if missing:
        raise ValueError(
            f"{next(iter(places))}: part {STEM}-{missing[0]:02d} is missing; download it and put it beside the others"
        )
    return parts


def _starts(path: Path, magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _in_zip(path: Path, number: int) -> dict[int, Opener]:
    """The parts inside a zip file (one or several); a single member with another name is part `number`."""
    with sentences(path), zipfile.ZipFile(path) as file:
        members = [m.filename for m in file.infolist() if not m.is_dir()]
    found = {int(hit[1]): m for m in members if (hit := _PART.fullmatch(PurePosixPath(m).name))}
    if not found and len(members) == 1:
        found = {number: members[0]}
    return {k: lambda member=member: zipfile.ZipFile(path).open(member) for k, member in found.items()}


class Joined(io.RawIOBase):
    """The parts as one readable stream; `at` is the number of the part that is being read."""

    def __init__(self, openers: dict[int, Opener]) -> None:
        self._rest = iter(openers.items())
        self._file: BinaryIO | None = None
        self.at = -1
        self._next()

    def _next(self) -> None:
        if self._file:
            self._file.close()
        self.at, opener = next(self._rest, (self.at, None))
        self._file = opener() if opener else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:
        while self._file is not None:
            data = self._file.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._next()
        return 0

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
        super().close()


def _unpack_videos(openers: dict[int, Opener], folder: Path) -> None:
    print(f"joining {len(openers)} parts and unpacking them into {folder}", flush=True)
    if folder.is_dir():
        folder.rmdir()  # it is empty
    with whole_folder(folder) as draft, Joined(openers) as joined:
        last = f"{STEM}-{max(openers):02d}"
        try:
            with sentences(folder):
                untar(io.BufferedReader(joined, 1 << 20), draft, folder)
        except Refused:
            raise
        except Damaged as error:
            if isinstance(error.__context__, EOFError) or "unexpected end of data" in str(error):
                raise ValueError(
                    f"{folder}: the parts end before the archive ends; {last} is incomplete, or {STEM}-{max(openers) + 1:02d} (and "
                    "perhaps more) is missing: download it and put it beside the others"
                ) from None
            raise ValueError(
                f"{folder}: the joined parts are damaged near {STEM}-{joined.at:02d} ({error.__context__}); compare the parts "
                "with the publisher's md5 sums and download the wrong one again"
            ) from None
        drop_top(draft)


def _unpack_labels(dataset: Dataset, places: Iterable[Path]) -> None:
    """Extract the missing annotation files from the labels package, if the package is there."""
    package = next((place / LABELS for place in places if (place / LABELS).is_file()), None)
    there = {path.name.removeprefix("something-something-v2-") for path in dataset.annotation_files()}
    todo = {Path(name).name: dataset.root / name for name in dataset.annotations.values() if Path(name).name not in there}
    if package is None or not todo:
        return
    with sentences(package), zipfile.ZipFile(package) as file:
        for member in file.namelist():
            target = todo.get(PurePosixPath(member).name.removeprefix("something-something-v2-"))
            if target:
                (dataset.root / UNPACKED).touch()
                with atomic_write(target) as draft, file.open(member) as source, open(draft, "wb") as out:
                    shutil.copyfileobj(source, out)
