"""Progress bars on a terminal, progress lines in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm as _bar


class _Lines(_bar):
    """Print a complete line from time to time, so that log files and parallel jobs stay readable."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        print(str(self), file=sys.stderr, flush=True)
        return True


def tqdm(*args: Any, **kwargs: Any) -> _bar:
    """`tqdm.tqdm`; if stderr is not a terminal, one line at most every 15 seconds."""
    if sys.stderr.isatty():
        return _bar(*args, dynamic_ncols=True, **kwargs)
    return _Lines(*args, ncols=100, **(kwargs | {"mininterval": 15, "maxinterval": 30, "ascii": True}))
