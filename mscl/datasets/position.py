"""A uniform number per clip from a hash of its id: the base of every selection of videos by share or by number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def position(clip_ids: Iterable[str], salt: str) -> np.ndarray:
    """A uniform hash in [0, 1) per clip, (N,) float64, the same on every machine. A clip is selected if below the share."""
    digests = (hashlib.sha1(f"{salt}\0{clip_id}".encode(), usedforsecurity=False).digest() for clip_id in clip_ids)
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])
