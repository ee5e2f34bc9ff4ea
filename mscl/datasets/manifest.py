"""The manifest: one table of every annotated video of a data set, whatever format it came in.

Columns, one row per video, sorted by clip_id:
clip_id | path | split | label int32 (-1 unknown) | class_name | start, end float64 (s; NaN: the whole file) |
shard int32 | status ok, missing or empty | reason ("" when ok)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.dataset_config import Dataset
from mscl.datasets import kinetics, ssv2
from mscl.io import whole
from mscl.jobs import ManifestJob

COLUMNS = ["clip_id", "path", "split", "label", "class_name", "start", "end", "shard", "status", "reason"]
SUFFIXES = {"kinetics": (".mp4", ".mkv", ".webm", ".avi"), "ssv2": (".webm", ".mp4", ".mkv", ".avi")}  # best first


def build_manifest(name: str, dataset: Dataset) -> pd.DataFrame:
    """Read the annotations of data set `name` and look for its videos, flat or in subfolders one level deep.

    An absent or empty video is a row with a status and a reason. Raises ValueError naming file, row and mend when
    the annotations cannot be used, or the folder of videos does not exist.
    """
    table = {"kinetics": kinetics, "ssv2": ssv2}[dataset.format].read_annotations(dataset)
    if table.empty:
        raise ValueError(f"data set '{name}': {dataset.root} annotates no video; get its annotation files again")
    folder, suffixes = dataset.root / dataset.videos, SUFFIXES[dataset.format]
    found = _find_videos(folder, suffixes, set(table["clip_id"]))
    table = table.sort_values("clip_id", ignore_index=True)
    at = [found.get(clip_id) for clip_id in table["clip_id"]]
    table["path"] = [str(folder / (c + suffixes[0])) if a is None else a[0] for c, a in zip(table["clip_id"], at)]
    table["shard"] = np.array([shard_of(c, dataset.shards) for c in table["clip_id"]], np.int32)
    table["status"] = ["missing" if a is None else "empty" if a[1] == 0 else "ok" for a in at]
    others = ", ".join(suffixes[1:])
    reasons = {
        "ok": "",
        "empty": "the file has 0 bytes",
        "missing": f"no {suffixes[0]} file of this name under {folder} (nor {others})",
    }
    table["reason"] = table["status"].map(reasons)
    return table[COLUMNS]


def shard_of(clip_id: str, shards: int) -> int:
    """The shard of a clip: the same on every machine, whatever other clips there are."""
    return int.from_bytes(hashlib.sha1(clip_id.encode(), usedforsecurity=False).digest(), "big") % shards


def _find_videos(folder: Path, suffixes: tuple[str, ...], wanted: set[str]) -> dict[str, tuple[str, int]]:
    """clip_id -> (path, bytes) of the wanted videos that exist; lists each folder once instead of asking for every name."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; put the videos there or correct root and videos in the configuration")
    best: dict[str, tuple[int, os.DirEntry]] = {}
    for entry in _entries(folder):
        stem, suffix = os.path.splitext(entry.name)
        suffix = suffix.lower()
        if stem in wanted and suffix in suffixes:
            rank = suffixes.index(suffix)
            if stem not in best or rank < best[stem][0]:
                best[stem] = (rank, entry)
    found = {}
    for stem, (_, entry) in best.items():
        try:
            found[stem] = (entry.path, entry.stat().st_size)
        except FileNotFoundError:  # a link to nowhere
            continue
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    """The files of a folder, then those of its subfolders, each level in order of name."""
    inner = []
    with os.scandir(folder) as listing:
        for entry in sorted(listing, key=lambda e: e.name):
            if entry.is_dir():
                inner.append(entry.path)
            else:
                yield entry
    for path in inner:
        with os.scandir(path) as listing:
            yield from sorted((e for e in listing if not e.is_dir()), key=lambda e: e.name)


def write_manifest(job: ManifestJob, out: Path) -> None:
    """Build the manifest of `job` and write it to the parquet file `out`, whole or not at all."""
    table = build_manifest(job.name, job.dataset)
    with whole(out) as draft:
        table.to_parquet(draft, index=False)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest; raises ValueError naming the file when it is absent or is none."""
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such manifest; run the manifest stage first") from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a readable parquet file ({' '.join(str(error).split())}); delete it and run the manifest stage again"
        ) from None
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise ValueError(f"{path}: no column '{absent[0]}', so this is no manifest; delete it and run the manifest stage again")
    return table
