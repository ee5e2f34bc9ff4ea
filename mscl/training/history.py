"""The epochs of a run in two files: history.csv is the same in every run, speed.csv is what the machine made of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mscl.io import whole

SPEED = ("clips_per_second", "data_wait", "memory_gb")  # columns of the engine that differ from run to run


def write_history(history: pd.DataFrame, out: Path, records: Path | None = None) -> None:
    """Write history.csv to `out` and speed.csv to `records`, or to `out` where None is given."""
    volatile = [c for c in SPEED if c in history]
    course, speed = history.drop(columns=volatile), history[["epoch", *volatile]]
    for path, table in ((Path(out) / "history.csv", course), (Path(records or out) / "speed.csv", speed)):
        with whole(path) as temporary:
            table.to_csv(temporary, index=False)
