"""Which errors are reported in one sentence: mistakes that mscl itself found, and a full disk. Others keep their traceback."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def sentence(error: Exception) -> str | None:
    """The message for a mistake that mscl itself found, or of a full disk; None for anything else."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return f"no space left{where}; make room and run the same command again: finished work is kept, and the run resumes"
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return str(error) if isinstance(error, ValueError) and PACKAGE in raised_in.parents else None
