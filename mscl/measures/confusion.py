"""Pairs of classes that a method confuses, and the comparison of two methods (Table 2 of the supplement)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

FORMULA = (
    "confused(a, b) = test videos of a predicted as b + test videos of b predicted as a; "
    "proportion(a, b) = confused(a, b) / (test videos of a + test videos of b); pairs are ranked by proportion. "
    "With several seeds, counts and videos are summed over the seeds."
)
NO_PAIRS = "Neither method confused any pair of classes, so there is no pair to list."
PAIR_COLUMNS = ["a", "b", "confused", "videos", "proportion"]


def confused_pairs(labels: Sequence[int], predictions: Sequence[int], class_names: Sequence[str]) -> pd.DataFrame:
    """Every pair of classes confused at least once, the largest proportion first.

    `labels` and `predictions` are the class indices (N,) of the same test videos; to sum over seeds, concatenate them. Columns:
    a, b (class names; a has the lower index), confused, videos, proportion: see `FORMULA`. Raises ValueError when the lengths
    differ or an index has no name.
    """
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if truth.shape != guess.shape:
        raise ValueError(f"confused_pairs: {truth.size} labels but {guess.size} predictions; they need one prediction per label")
    number = len(class_names)
    if truth.size and not (0 <= min(truth.min(), guess.min()) and max(truth.max(), guess.max()) < number):
        raise ValueError(
            f"confused_pairs: a class index is outside 0..{number - 1}; the class names do not belong to these predictions"
        )
    matrix = np.zeros((number, number), dtype=np.int64)
    np.add.at(matrix, (truth, guess), 1)
    both, videos = matrix + matrix.T, matrix.sum(axis=1)
    first, second = np.nonzero(np.triu(both, k=1))
    names = np.asarray(class_names, dtype=object)
    confused, total = both[first, second], videos[first] + videos[second]
    table = pd.DataFrame(
        {"a": names[first], "b": names[second], "confused": confused, "videos": total, "proportion": confused / total}
    )
    return table[PAIR_COLUMNS].sort_values(
        ["proportion", "confused", "a", "b"], ascending=[False, False, True, True], ignore_index=True
    )


def join_pairs(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """The counts of both methods for every pair that either of them confuses.

    `left` and `right` are `confused_pairs` tables. Columns: a, b, then confused, videos and proportion of each side with the
    prefixes left_ and right_. A pair that one side never confuses counts 0 there, over the same videos: both use the same test
    split.
    """
    table = left.merge(right, on=["a", "b"], how="outer", suffixes=("_left", "_right"))
    result = table[["a", "b"]].copy()
    for side, other in (("left", "right"), ("right", "left")):
        result[f"{side}_confused"] = table[f"confused_{side}"].fillna(0).astype(int)
        result[f"{side}_videos"] = table[f"videos_{side}"].fillna(table[f"videos_{other}"]).astype(int)
        result[f"{side}_proportion"] = table[f"proportion_{side}"].fillna(0.0).astype(float)
    return result.sort_values(["a", "b"], ignore_index=True)


def compare_pairs(left: pd.DataFrame, right: pd.DataFrame, top: int = 3) -> pd.DataFrame:
    """The rows of Table 2 from two `confused_pairs` tables.

    Block "left": the `top` pairs that the left method confuses most, among the pairs that the right method confuses less. Block
    "right": the `top` pairs that the right method confuses most, among the other pairs. Columns: block, rank (from 1), then those
    of `join_pairs`. Without any pair the table is empty and `attrs["note"]` is `NO_PAIRS`.
    """
    joined = join_pairs(left, right)
    helped = joined["right_proportion"] < joined["left_proportion"]
    blocks = []
    for block, rows in (("left", joined[helped]), ("right", joined[~helped])):
        keys = [f"{block}_proportion", f"{block}_confused", "a", "b"]
        chosen = rows.sort_values(keys, ascending=[False, False, True, True]).head(top)
        blocks.append(chosen.assign(block=block, rank=range(1, len(chosen) + 1)))
    table = pd.concat(blocks, ignore_index=True)[["block", "rank", *joined.columns]]
    table.attrs["note"] = NO_PAIRS if table.empty else ""
    return table
