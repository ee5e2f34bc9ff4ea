"""Which splits have videos in common: the same file, the same frames, or clips of the same recording."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mscl.datasets.groups import by_name
from mscl.stages.jobs import FOLD, GROUP, Source
from mscl.store.shards import Shards

EXAMPLES = 2


@dataclass
class Part:
    """The videos of one split of a data set.

    `rows`: clip_id, file (absolute path), frames (a hash of the stored frames; "" if there are none), group (within the data set),
    recording (as its name tells it everywhere; "" if it tells none).
    """

    dataset: str
    split: str
    fold: int | None  # None: the data set's own
    rows: pd.DataFrame


def shared_videos(sources: Sequence[Source]) -> dict[str, list[dict]]:
    """Data set -> what each of its splits has in common with the other splits, and with the splits of other data sets.

    One entry per pair that has: {split, dataset, other} (`other` is the split of `dataset`), with `fold` where it is not the data
    set's own, and how many videos of `split`
    * are also in `other` by their file: `videos`;
    * else have exactly its frames, stored or not: `copies` (found only where both are extracted with the same settings and versions);
    * else are of one of its recordings: `clips`, of so many `recordings`;
    and for each kind that occurs, two `examples` {kind: [sentence]}.
    """
    parts = [part for source in sources for part in _parts(source)]
    found: dict[str, list[dict]] = {source.name: [] for source in sources}
    for part in parts:
        for other in parts:
            if (part.dataset, part.split) != (other.dataset, other.split) and _compared(part, other):
                if entry := _common(part, other):
                    found[part.dataset].append(entry)
    return found


def _compared(part: Part, other: Part) -> bool:
    """A fold is compared within itself and, since only targets have folds, with the own splits of other data sets."""
    return part.fold == other.fold if part.dataset == other.dataset else other.fold is None


def _parts(source: Source) -> Iterator[Part]:
    table = pd.read_parquet(source.manifest)
    group = table[GROUP] if GROUP in table else table["clip_id"]
    rows = pd.DataFrame(
        {
            "clip_id": table["clip_id"],
            "file": table["path"].map(os.path.abspath),
            "frames": table["clip_id"].map(stored_frames(Shards(source.frame_indexes()))).fillna(""),
            GROUP: group,
            "recording": [os.path.basename(by_name(i, c)) for i, c in zip(table["clip_id"], table["class_name"], strict=True)],
        }
    )
    columns = {None: "split"} | {int(c.removeprefix(FOLD)): c for c in table if c.startswith(FOLD)}
    for fold, column in columns.items():
        for split, part in rows.groupby(table[column]):
            if split:
                yield Part(source.name, str(split), fold, part)


def stored_frames(shards: Shards) -> dict[str, str]:
    """clip_id -> a hash of all stored frames, made from their checksums; clips without frames are left out."""
    names, counts = shards.clips["clip_id"], shards.clips["count"]
    return {
        name: hashlib.sha1(np.ascontiguousarray(shards.column("crc", row)), usedforsecurity=False).hexdigest()
        for row, (name, count) in enumerate(zip(names, counts, strict=True))
        if count
    }


def _common(part: Part, other: Part) -> dict | None:
    """The entry of one pair, or None if the two have nothing in common."""
    key = GROUP if part.dataset == other.dataset else "recording"  # groups have a meaning within a data set only
    left, found, examples = part.rows, {}, {}
    for kind, column in (("videos", "file"), ("copies", "frames"), ("clips", key)):
        theirs = other.rows[other.rows[column] != ""].drop_duplicates(column).set_index(column)["clip_id"]
        hit = left[column].isin(theirs.index)
        same, left = left[hit], left[~hit]
        if same.empty:
            continue
        found[kind] = len(same)
        if kind == "clips":
            found["recordings"] = same[column].nunique()
        examples[kind] = _examples(same, column, theirs)
    if not found:
        return None
    fold = {} if part.fold is None else {"fold": part.fold}
    return {"split": part.split, "dataset": other.dataset, "other": other.split, **fold, **found, "examples": examples}


def _examples(same: pd.DataFrame, column: str, theirs: pd.Series) -> list[str]:
    """The first two of the videos, of different recordings or files, each with one that it is like."""
    first = same.drop_duplicates(column).sort_values("clip_id").head(EXAMPLES)
    return [f"{clip} and {theirs[key]}" for clip, key in zip(first["clip_id"], first[column], strict=True)]
