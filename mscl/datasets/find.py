"""Find the annotated videos on disk: each folder is listed once, and `stat` is called only for files that a listing shows.

On a network file system, one `stat` call per name takes hours for 400,000 names; a listing takes seconds.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (
    ".mp4",
    ".mkv",
    ".webm",
    ".avi",
    ".mov",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
    ".ogv",
    ".ts",
    ".mts",
    ".m2ts",
)
MISSING = "missing"
USABLE = 10  # added to the rank of a file with status ok: more than any difference between names


class Found(NamedTuple):
    """Result of the search for one video."""

    path: str
    status: str  # ok, missing or empty
    reason: str  # why the video cannot be used; "" if ok


def shown(name: str) -> str:
    """A file name as valid UTF-8 text; other bytes are written as \\x…"""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def one_form(name: str) -> str:
    """A name in Unicode's composed form (NFC). macOS writes names decomposed, so equal names can differ in their bytes."""
    return unicodedata.normalize("NFC", name)


def is_folder(entry: os.DirEntry) -> bool:
    """Whether `entry` is a folder or a link to one; False if that cannot be determined."""
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def walk(
    folder: str | Path, deepest: int | None = None, blocked: list[str] | None = None, inside: str = "", above: tuple = ()
) -> Iterator[tuple[str, list[os.DirEntry]]]:
    """Yield (path relative to the first folder, entries sorted by name) of `folder`, then of its subfolders.

    At most `deepest` levels down (None: no limit). Hidden folders and links to a parent folder are skipped. A folder that
    cannot be listed is appended to `blocked`, or raises ValueError if `blocked` is None. `inside` and `above` are for the
    recursion.
    """
    try:
        this = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda e: e.name)
    except OSError as error:
        if blocked is None:
            raise ValueError(
                f"{shown(str(folder))}: cannot be listed ({error.strerror}); make it readable or move it away"
            ) from None
        blocked.append(f"{shown(str(folder))} ({error.strerror})")
        return
    if (this.st_dev, this.st_ino) in above:
        return
    yield inside, entries
    for entry in entries if deepest != 0 else []:
        if not entry.name.startswith(".") and is_folder(entry):
            place = f"{inside}/{entry.name}" if inside else entry.name
            yield from walk(entry.path, deepest and deepest - 1, blocked, place, (*above, (this.st_dev, this.st_ino)))


def look(path: str, ask: Callable[[], os.stat_result]) -> Found:
    """The status of the file at `path`; `ask` is called once and returns its `os.stat_result`."""
    if (name := shown(path)) != path:
        return Found(name, MISSING, "its name is not UTF-8; rename it")
    try:
        answer = ask()
    except FileNotFoundError:
        return Found(path, MISSING, "it is a broken link")
    except OSError as error:
        return Found(path, MISSING, f"it cannot be accessed: {error.strerror}")
    if not stat.S_ISREG(answer.st_mode):
        kind = "folder" if stat.S_ISDIR(answer.st_mode) else "special file"
        return Found(path, MISSING, f"it is a {kind}, not a video")
    return Found(path, "ok", "") if answer.st_size else Found(path, "empty", "the file has 0 bytes")


def by_name(folder: Path, files: Sequence[str], *, classes: bool) -> list[Found]:
    """Find each of `files`, relative names that are unique without their suffix; any other video suffix is accepted.

    With `classes`, the files are `class/name` directly below `folder`. Order of preference: the exact path, another suffix, a
    name that differs only in case. Without `classes`, the files may be anywhere below `folder`; the first in sorted folder
    order is used, files before subfolders. Unicode's forms of a name are the same name. A file with status ok is always preferred to a missing or empty one. Returns one
    `Found` per file, in the order of `files`.
    """
    rows = {one_form(os.path.splitext(file)[0]): row for row, file in enumerate(files)}
    any_case: dict[str, int | None] = {}
    for name, row in rows.items() if classes else ():
        any_case[name.casefold()] = None if name.casefold() in any_case else row
    suffixes = (os.path.splitext(files[0])[1].lower(), *SUFFIXES) if files else SUFFIXES
    best: dict[int, tuple[int, Found]] = {}
    blocked: list[str] = []
    for inside, entries in walk(folder, 1 if classes else None, blocked):
        for entry, stem in _videos(entries, suffixes):
            name = one_form(f"{inside}/{stem}" if classes else stem)
            row, rank = rows.get(name), 2
            if row is None:
                row, rank = any_case.get(name.casefold()), 1
            if row is None:
                continue
            if classes and one_form(f"{inside}/{entry.name}") == one_form(files[row]):
                rank = 3
            held = best.get(row, (0,))[0]
            if held < rank + USABLE:
                found = look(entry.path, entry.stat)
                rank += USABLE * (found.status == "ok")
                if rank > held:
                    best[row] = rank, found
    why = f"no {suffixes[0]} file with this name under {folder}, and none with another video suffix" + _not_listed(blocked)
    return [best[row][1] if row in best else Found(str(folder / file), MISSING, why) for row, file in enumerate(files)]


def _videos(entries: list[os.DirEntry], suffixes: tuple[str, ...]) -> list[tuple[os.DirEntry, str]]:
    """(entry, stem) of the entries with a video suffix, in the order of `suffixes`."""
    found = []
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in suffixes:
            found.append((suffixes.index(suffix.lower()), entry, stem))
    return [(entry, stem) for _, entry, stem in sorted(found, key=lambda f: f[0])]


def _not_listed(blocked: list[str]) -> str:
    return f"; {len(blocked)} folder(s) there cannot be listed, for example {blocked[0]}" if blocked else ""


def by_path(folder: Path, files: Sequence[str]) -> list[Found]:
    """Find each of `files` at its exact path, relative to `folder` or absolute; each folder is listed once.

    Unicode's forms of a name are the same name; the exact bytes are preferred.
    """
    listings: dict[str, dict[str, os.DirEntry] | str] = {}
    found = []
    for file in files:
        path = str(folder / file)
        parent, name = os.path.split(path)
        if parent not in listings:
            listings[parent] = _listing(_existing(parent) or ".")
        listing = listings[parent]
        if isinstance(listing, str):
            found.append(Found(path, MISSING, listing))
        elif (entry := listing.get(name) or listing.get(one_form(name))) is not None:
            found.append(look(path if path.isascii() else entry.path, entry.stat))
        else:
            found.append(Found(path, MISSING, f"no file with this name in {parent or 'the working directory'}"))
    return found


def _existing(folder: str) -> str:
    """The path of a folder as it is written on the disk, where only the Unicode form of its parts differs; else unchanged."""
    if folder.isascii() or os.path.isdir(folder):
        return folder
    above, name = os.path.split(folder)
    if not name:
        return folder
    above = _existing(above)
    listing = _listing(above or ".")
    entry = None if isinstance(listing, str) else listing.get(one_form(name))
    return os.path.join(above, entry.name) if entry else folder


def _listing(folder: str) -> dict[str, os.DirEntry] | str:
    """{name, and its composed form: entry} of a folder, or the reason why it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
        return {one_form(entry.name): entry for entry in entries} | {entry.name: entry for entry in entries}
    except FileNotFoundError:
        return f"no folder {folder}"
    except OSError as error:
        return f"the folder {folder} cannot be listed: {error.strerror}"


def as_listed(folder: Path, files: Sequence[str]) -> list[Found]:
    """Find `files` that a listing has just shown: only their status is checked."""
    return [look(path, lambda path=path: os.stat(path)) for path in (str(folder / file) for file in files)]
