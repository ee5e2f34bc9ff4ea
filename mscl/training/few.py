"""The few training videos of a low-shot target: drawn by hash, so that they do not depend on the order or number of other videos."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mscl.config.targets import Few
from mscl.datasets.position import position


def draw_few(rows: pd.DataFrame, few: Few | None, seed: int, where: str) -> pd.DataFrame:
    """The drawn rows, in their order; all of them without `few`. `rows`: usable training videos with `clip_id`, `label`, `class_name`.

    Every seed and every draw is a selection of its own; all methods and models of a seed get the same one. Within a class the videos
    come by their hash, so 10 per class contain the 5 per class. `examples` takes the first video of every class, then the second of
    every class, and so on, so that the classes differ by at most one video as long as they have enough.

    Raises ValueError that starts with `where` if there are too few videos.
    """
    if few is None:
        return rows
    if why := too_few(rows["class_name"].value_counts().to_dict(), few):
        raise ValueError(f"{where}: {why}")
    place = position(rows["clip_id"], f"few {seed} {few.draw}")
    by_hash = pd.Series(place, rows.index).groupby(rows["label"]).rank(method="first").to_numpy() - 1  # 0: the first of its class
    if few.per_class:
        return rows[by_hash < few.per_class]
    first = np.lexsort((place, by_hash))[: few.examples]
    return rows.iloc[np.sort(first)]


def too_few(videos: dict[str, int], few: Few) -> str:
    """Why `few` cannot be drawn from so many usable videos per class: a sentence, or "" if it can."""
    if few.examples and few.examples > sum(videos.values()):
        return f"{few.said}, but there are {sum(videos.values()):,} usable training videos; give a smaller number"
    short = {name: count for name, count in videos.items() if few.per_class and count < few.per_class}
    if not short:
        return ""
    name = min(sorted(short), key=short.get)
    others = f", and {len(short) - 1} more classes have too few" if len(short) > 1 else ""
    return (
        f"{few.said}, but class '{name}' has {short[name]} usable training videos{others}; give a smaller number, or use examples"
    )
