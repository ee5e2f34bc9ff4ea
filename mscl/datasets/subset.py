"""Select the annotated videos to use: first hold out new splits from an existing one, then apply the filters of `subset`.

Every selection by share uses a hash with its own salt: of the recording for `holdout`, so that all clips of a recording stay in one
split, and of the clip_id for `subset`. So a selection does not depend on the order of rows or on the shard, and only that of a
`holdout` with few recordings, or with several splits, on the other clips. Different selections are independent of each other. A
larger share contains the smaller one.
"""

from __future__ import annotations

import bisect

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.datasets.find import one_form
from mscl.datasets.formats import reader_of
from mscl.datasets.formats.annotations import annotation_file, hint, read_lines
from mscl.datasets.groups import recordings
from mscl.datasets.position import position


def choose(name: str, table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """The selected rows of data set `name`, with their splits, and in the column `group` their recordings; labels do not change.

    Raises ValueError that names the setting if a class or an id is unknown, if a split becomes empty, or as `groups.recordings`.
    """
    table = table.assign(group=recordings(name, table, dataset))
    return _filter(name, _hold_out(name, table, dataset), dataset)


def _drawn(recording: pd.Series, split: str, share: float) -> np.ndarray:
    """Which clips a new split takes, (N,) bool: those whose recording's hash is below `share`.

    With so few recordings that the hash would take none or all of them, the one with the lowest hash is taken, or the one with the
    highest is left, if the share amounts to at least half a recording.
    """
    place = position(recording, f"holdout {split}")
    every = np.unique(place)
    if round(share * len(every)) >= 1 and not (every < share).any():
        return place == every[0]
    if round((1 - share) * len(every)) >= 1 and (every < share).all():
        return place < every[-1]
    return place < share


def _hold_out(name: str, table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Give each split under `holdout` its share of the recordings of `holdout_from`, with all clips of each.

    The splits are filled in order of their names, each from the videos that the earlier ones left. A larger share keeps its
    videos.
    """
    if not dataset.holdout:
        return table
    table, source = table.copy(), dataset.holdout_from
    from_recording = table["group"]
    before, left = int((table["split"] == source).sum()), 1.0
    for split, share in sorted(dataset.holdout.items()):
        rows = table.index[table["split"] == source]
        taken = rows[_drawn(from_recording[rows], split, share / left)]
        if len(taken) in (0, len(rows)):
            raise ValueError(
                f"datasets.{name}.holdout: a share of {share:g} takes {len(taken)} of the {before} videos of split '{source}' "
                f"({from_recording[rows].nunique()} recordings are left, and a recording is not divided); change the share of split '{split}', or add "
                "videos"
            )
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
            f"{where}: leaves none of the {had[split]} videos of split '{split}'; select more, or list in subset.splits only the splits "
            "to filter"
        )
    return table[keep]


def _classes(table: pd.DataFrame, dataset: Dataset, where: str) -> set[str]:
    """The selected class names as written in the table; for SSv2 they may be given as templates with brackets."""
    spelled = getattr(reader_of(dataset), "class_key", str)
    known = sorted(set(table["class_name"].unique()) - {""})
    chosen = {spelled(one_form(name)): name for name in dataset.subset.classes}
    for plain, name in chosen.items():
        if plain not in known:
            raise ValueError(f"{where}: no video is annotated with class '{name}'{hint(plain, known)}")
    return set(chosen)


def _ids(table: pd.DataFrame, dataset: Dataset, where: str) -> set[str]:
    path = annotation_file(dataset.root, dataset.subset.ids, where)
    known, there = sorted(table["clip_id"]), set(table["clip_id"])
    chosen = {clip_id: line for line, clip_id in read_lines(path)}
    for clip_id in (i for i in chosen if i not in there):
        near = bisect.bisect(known, clip_id)  # compare only ids near it in sorted order; there may be 400,000
        alike = hint(clip_id, known[max(0, near - 500) : near + 500])
        raise ValueError(f"{path}: line {chosen[clip_id]}, no video is annotated with clip_id '{clip_id}'{alike}")
    return set(chosen)
