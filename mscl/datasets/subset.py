"""Which annotated videos are used: new splits held out of one that is there, then the filters of `subset`.

Every choice by share is a hash of the clip_id with a salt of its own: neither the order of rows nor what other clips there are
changes who is kept, a larger share keeps what a smaller one kept, and choices do not depend on each other nor on the shard.
"""

from __future__ import annotations

import bisect
import hashlib

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets.formats import reader_of
from mscl.datasets.formats.annotations import annotation_file, hint, read_lines


def choose(name: str, table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """The rows of data set `name` that are used, with their splits; labels keep their numbers.

    Raises ValueError naming the key when a class or an id is unknown, or when nothing is left of a split.
    """
    return _filter(name, _hold_out(name, table, dataset), dataset)


def position(clip_ids: pd.Series, salt: str) -> np.ndarray:
    """A number in [0, 1) for each clip, even over many clips and the same on every machine: who lies below a share is taken."""
    digests = (hashlib.sha1(f"{salt}\0{clip_id}".encode(), usedforsecurity=False).digest() for clip_id in clip_ids)
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def _hold_out(name: str, table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Give each split under `holdout` its share of the videos of `holdout_from`.

    Each draws from what the ones before it, in order of their names, left: a share that grows keeps its videos.
    """
    table, source = table.copy(), dataset.holdout_from
    before, left = int((table["split"] == source).sum()), 1.0
    for split, share in sorted(dataset.holdout.items()):
        rows = table.index[table["split"] == source]
        taken = rows[position(table.loc[rows, "clip_id"], f"holdout {split}") < share / left]
        if len(taken) in (0, len(rows)):
            raise ValueError(f"datasets.{name}.holdout: a share of {share:g} takes {len(taken)} of the {before} videos of split "
                             f"'{source}'; give split '{split}' another share, or more videos")  # fmt: skip
        table.loc[taken, "split"] = split
        left -= share
    return table


def _filter(name: str, table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    subset, where = dataset.subset, f"datasets.{name}.subset"
    keep = np.ones(len(table), bool)
    if subset.classes:
        keep &= table["class_name"].isin(_classes(table, dataset, f"{where}.classes")).to_numpy()
    if subset.ids:
        keep &= table["clip_id"].isin(_ids(table, dataset, f"{where}.ids")).to_numpy()
    if subset.fraction < 1:
        keep &= position(table["clip_id"], "fraction") < subset.fraction
    if subset.splits:
        keep |= ~table["split"].isin(subset.splits).to_numpy()
    had, has = table["split"].value_counts(), table["split"][keep].value_counts()
    for split in had.index.difference(has.index):
        raise ValueError(
            f"{where}: leaves none of the {had[split]} videos of split '{split}'; choose more of it, or name the splits to filter in "
            "subset.splits"
        )
    return table[keep]


def _classes(table: pd.DataFrame, dataset: Dataset, where: str) -> set[str]:
    """The chosen class names as the table spells them: SSv2's may be given as templates, with brackets."""
    spelled = getattr(reader_of(dataset), "class_key", str)
    known = sorted(set(table["class_name"].unique()) - {""})
    chosen = {spelled(name): name for name in dataset.subset.classes}
    for plain, name in chosen.items():
        if plain not in known:
            raise ValueError(f"{where}: no video is annotated with class '{name}'{hint(plain, known)}")
    return set(chosen)


def _ids(table: pd.DataFrame, dataset: Dataset, where: str) -> set[str]:
    path = annotation_file(dataset.root, dataset.subset.ids, where)
    known, there = sorted(table["clip_id"]), set(table["clip_id"])
    chosen = {clip_id: line for line, clip_id in read_lines(path)}
    for clip_id in (i for i in chosen if i not in there):
        near = bisect.bisect(known, clip_id)  # among 400,000 only those that begin alike are compared
        alike = hint(clip_id, known[max(0, near - 500) : near + 500])
        raise ValueError(f"{path}: line {chosen[clip_id]}, no video is annotated with clip_id '{clip_id}'{alike}")
    return set(chosen)
