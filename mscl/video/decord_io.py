"""Read the properties and any frames of a video with decord: for tests and comparisons, no stage calls it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import decord
import numpy as np

decord.logging.set_level(decord.logging.QUIET)


class VideoError(ValueError):
    """A video cannot be read; the message names the file and the reason."""


class Probe(NamedTuple):
    """Properties of a video."""

    frames: int  # number of frames in the container; a damaged file may decode to fewer
    fps: float  # average frames per second
    width: int  # pixels
    height: int  # pixels


def _open(path: str | Path) -> decord.VideoReader:
    if not os.path.exists(path):
        raise VideoError(f"{path}: no such video file")
    try:
        return decord.VideoReader(
            os.path.abspath(path), num_threads=1
        )  # absolute, so that no name is read as an option or a protocol
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError(f"{path}: decord cannot open it: {_short(error)}") from None


def probe(path: str | Path) -> Probe:
    """Frame count, frame rate and size of the first frame. Raises VideoError."""
    reader = _open(path)
    try:
        height, width = reader[0].shape[:2]
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoError(f"{path}: decord cannot decode it: {_short(error)}") from None
    return Probe(len(reader), float(reader.get_avg_fps()), int(width), int(height))


def read(path: str | Path, indices: Sequence[int]) -> np.ndarray:
    """Frames `indices` (in decoding order), (T, H, W, 3) uint8 RGB. Raises VideoError, also for a frame beyond the end."""
    reader = _open(path)
    wanted = [int(i) for i in indices]
    beyond = [i for i in wanted if not 0 <= i < len(reader)]
    if beyond:
        raise VideoError(f"{path}: has {len(reader)} frames; there is no frame {beyond[0]}")
    try:
        return reader.get_batch(wanted).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError(f"{path}: decord cannot decode it: {_short(error)}") from None


def _short(error: Exception) -> str:
    """The essential part of decord's multi-line error messages, at most 160 characters."""
    lines = str(error).splitlines() or [""]
    line = next((line for line in lines if "Check failed" in line or "ERROR" in line), lines[0])
    return line.split("Check failed:")[-1].split("] ")[-1].strip()[:160]
