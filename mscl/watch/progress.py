"""Progress bars on a terminal, progress lines in a log."""

from __future__ import annotations

import sys

from tqdm import tqdm as _bar


class _Lines(_bar):
    """Prints a whole line now and then, so that logs and parallel jobs stay readable."""

    def display(self, msg=None, pos=None) -> bool:
        print(str(self), file=sys.stderr, flush=True)
        return True


def tqdm(*args, **kwargs):
    """`tqdm.tqdm`; where stderr is no terminal, a line at most every 15 seconds."""
    if sys.stderr.isatty():
        return _bar(*args, dynamic_ncols=True, **kwargs)
    return _Lines(*args, ncols=100, **(kwargs | {"mininterval": 15, "maxinterval": 30, "ascii": True}))
