"""Pairs of classes that a method confuses, and the comparison of two methods (the supplement's Table 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

FORMULA = (
    "confused(a, b) = test videos of a predicted as b + test videos of b predicted as a; "
    "proportion(a, b) = confused(a, b) / (test videos of a + test videos of b); pairs are ranked by proportion. "
    "With several seeds, counts and videos are summed over the seeds."
)
NO_PAIRS = "No pair of classes was confused by either method, so there is nothing to rank."
PAIR_COLUMNS = ["a", "b", "confused", "videos", "proportion"]


def confused_pairs(labels: Sequence[int], predictions: Sequence[int], class_names: Sequence[str]) -> pd.DataFrame:
    """Every pair of classes confused at least once, most confused first.

    `labels` and `predictions` are class numbers of the same test videos; to add up several seeds, concatenate
    theirs. Columns: a, b (class names; a has the lower number), confused, videos, proportion: see `FORMULA`.
    """
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if truth.shape != guess.shape:
        raise ValueError(f"confused_pairs: {truth.size} labels but {guess.size} predictions; give one prediction per video")
    number = len(class_names)
    if truth.size and not (0 <= min(truth.min(), guess.min()) and max(truth.max(), guess.max()) < number):
        raise ValueError(f"confused_pairs: a class number is outside 0..{number - 1}; the class names and the predictions differ")
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
    """Both methods' counts of every pair that either confuses.

    Columns a, b, then confused, videos and proportion of each side, prefixed left_ and right_. A pair that one
    side never confuses counts 0 there, over the same videos, as both were tested on the same split.
    """
    table = left.merge(right, on=["a", "b"], how="outer", suffixes=("_left", "_right"))
    result = table[["a", "b"]].copy()
    for side, other in (("left", "right"), ("right", "left")):
        result[f"{side}_confused"] = table[f"confused_{side}"].fillna(0).astype(int)
        result[f"{side}_videos"] = table[f"videos_{side}"].fillna(table[f"videos_{other}"]).astype(int)
        result[f"{side}_proportion"] = table[f"proportion_{side}"].fillna(0.0).astype(float)
    return result.sort_values(["a", "b"], ignore_index=True)


def compare_pairs(left: pd.DataFrame, right: pd.DataFrame, top: int = 3) -> pd.DataFrame:
    """Rows of Table 2 from two `confused_pairs` tables.

    First the `top` pairs most confusing to the left method on which the right one is better (block "left"), then
    the `top` most confusing to the right one on which it is not better (block "right"). Columns: block, rank
    (1 first), then those of `join_pairs`. Without any pair: an empty table whose `attrs["note"]` says so.
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
