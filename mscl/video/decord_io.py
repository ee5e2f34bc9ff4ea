"""decord behind two functions: what a video says of itself, and any frames of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import decord
import numpy as np

decord.logging.set_level(decord.logging.QUIET)


class VideoError(ValueError):
    """A video cannot be read; the text names the file and says why."""


class Probe(NamedTuple):
    frames: int  # as indexed; a damaged file may decode fewer
    fps: float
    width: int
    height: int


def _open(path: str | Path) -> decord.VideoReader:
    if not os.path.exists(path):
        raise VideoError(f"{path}: no such video file")
    try:
        return decord.VideoReader(os.path.abspath(path), num_threads=1)  # absolute: no name is taken for an option or a protocol
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError(f"{path}: decord cannot open it: {_short(error)}") from None


def probe(path: str | Path) -> Probe:
    """Frame count, rate and size of the first frame; raises VideoError."""
    reader = _open(path)
    try:
        height, width = reader[0].shape[:2]
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoError(f"{path}: decord cannot decode it: {_short(error)}") from None
    return Probe(len(reader), float(reader.get_avg_fps()), int(width), int(height))


def rate(path: str | Path) -> float:
    """Average frames per second as the container states it, without decoding; raises VideoError."""
    return float(_open(path).get_avg_fps())


def read(path: str | Path, indices: Sequence[int]) -> np.ndarray:
    """Frames `indices` (decoding order) as THWC uint8 RGB; raises VideoError, also for a frame past the end."""
    reader = _open(path)
    wanted = [int(i) for i in indices]
    beyond = [i for i in wanted if not 0 <= i < len(reader)]
    if beyond:
        raise VideoError(f"{path}: has {len(reader)} frames, asked for frame {beyond[0]}")
    try:
        return reader.get_batch(wanted).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError(f"{path}: decord cannot decode it: {_short(error)}") from None


def _short(error: Exception) -> str:
    """The last sentence of decord's multi-line, source-quoting messages."""
    lines = (
        [line for line in str(error).splitlines() if "Check failed" in line or "ERROR" in line]
        or str(error).splitlines()[:1]
        or [""]
    )
    return lines[0].split("Check failed:")[-1].split("] ")[-1].strip()[:160]
