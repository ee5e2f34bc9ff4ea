"""What a manifest leaves out, in sentences with counts: other files, videos that no row names, names that nearly match, one class only."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mscl.config.datasets import Dataset
from mscl.config.formats import FORMATS
from mscl.datasets.find import SUFFIXES, is_folder, one_form, shown, walk

KINDS = 5  # kinds of other files that are named


def notes(dataset: Dataset, table: pd.DataFrame) -> list[str]:
    """Sentences about what the manifest `table` does not use, and about splits with usable videos of one class only.

    Folders are listed once more, without a `stat` call per file. Videos that are never usable are rows with a reason, not notes.
    """
    blocked: list[str] = []
    files = list(_files(dataset, table, blocked))
    videos = {path: os.path.splitext(path)[0] for path in files if os.path.splitext(path)[1].lower() in SUFFIXES}
    own = {str(path) for path in dataset.annotation_files()}
    found = [*_blocked(blocked), *_other_files([path for path in files if path not in videos and path not in own])]
    found += [*_unused(videos, table), *_near(videos, table), *_backslashes(table)]
    return found + [sentence for split in dataset.splits for sentence in one_class(table, split)]


def one_class(table: pd.DataFrame, split: str) -> list[str]:
    """A sentence if all usable videos of a labelled split are of one class."""
    usable = table[(table["split"] == split) & (table["label"] >= 0) & (table["status"] == "ok")]
    if usable["label"].nunique() != 1:
        return []
    return [
        f"split '{split}': all {len(usable):,} usable videos are of one class, '{usable['class_name'].iloc[0]}'; a classifier trained or "
        "tested on it measures nothing, so add videos of another class"
    ]


def _files(dataset: Dataset, table: pd.DataFrame, blocked: list[str]) -> Iterator[str]:
    """Paths of all files where the format looks for videos: below the folder of videos, or for listed paths in their folders."""
    searched = dataset.format in FORMATS and dataset.format != "csv"  # anywhere below a folder, not at exact paths
    if dataset.row.folders:
        tops = [dataset.root / dataset.annotations[split] for split in dataset.annotated]
    elif searched:
        tops = [dataset.root / dataset.videos]
    else:
        tops = sorted({Path(path).parent for path in table["path"]})
    for top in (top for top in tops if top.is_dir()):
        for inside, entries in walk(top, None if searched else 0, blocked):
            place = os.path.join(top, inside) if inside else str(top)
            yield from (os.path.join(place, e.name) for e in entries if not e.name.startswith(".") and not is_folder(e))


def _blocked(blocked: list[str]) -> list[str]:
    return [f"{len(blocked):,} folder(s) cannot be listed and are left out, for example {blocked[0]}"] if blocked else []


def _other_files(paths: list[str]) -> list[str]:
    if not paths:
        return []
    kinds = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in paths).most_common()
    named = ", ".join(f"{count:,} {shown(kind)}" for kind, count in kinds[:KINDS])
    more = f" and {len(kinds) - KINDS} more kinds" if len(kinds) > KINDS else ""
    return [f"{len(paths):,} file(s) are not videos and are ignored ({named}{more})"]


def _unused(videos: dict[str, str], table: pd.DataFrame) -> list[str]:
    used = set(table["path"])
    unused = [path for path in videos if shown(path) not in used]
    if not unused:
        return []
    return [f"{len(unused):,} video file(s) are in no row, for example {shown(unused[0])}: not annotated, or not selected"]


def _near(videos: dict[str, str], table: pd.DataFrame) -> list[str]:
    """Missing videos of which a file differs only in upper and lower case, or in its suffix."""
    missing = table["path"][table["status"] == "missing"]
    by_name = {one_form(os.path.basename(stem)).casefold(): path for path, stem in videos.items()} if len(missing) else {}
    near = [(m, by_name[n]) for m in missing if (n := one_form(os.path.splitext(os.path.basename(m))[0]).casefold()) in by_name]
    near = [(wanted, there) for wanted, there in near if wanted != shown(there)]
    if not near:
        return []
    wanted, there = near[0]
    return [
        f"{len(near):,} missing video(s) nearly match a file, for example {wanted} and {shown(there)}: correct the list or rename the file"
    ]


def _backslashes(table: pd.DataFrame) -> list[str]:
    count = table.attrs.get("backslashes", 0)
    return [f"{count:,} path(s) with backslashes are read with slashes"] if count else []
