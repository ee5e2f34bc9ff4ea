"""Decode one video to JPEG frames with one ffmpeg process, without a shell and without a video in memory."""

from __future__ import annotations

import errno
import functools
import math
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import simplejpeg

from mscl.config.datasets import FramesConfig
from mscl.store.spool import CHUNK, Spool
from mscl.video.command import arguments, seek_to
from mscl.video.log import Log, read_log
from mscl.video.program import environment, program

PAGE = 4096  # bytes that a file system hands out at a time


@dataclass
class Decoded:
    """The decoded frames of a video. `pts` (s, NaN if unknown) has one entry per raw frame.

    `jpegs[k]` is raw frame k * step; where only some are asked for, the k-th of these.
    """

    jpegs: Sequence[bytes] = field(default_factory=list)
    pts: list[float] = field(default_factory=list)
    fps: float = float("nan")  # frames per second as stated by the container; NaN if unknown
    error: str = ""  # the first decoding error as ffmpeg reports it; "" if none
    note: str = ""  # what is special about the frames, such as interlacing; "" if nothing


def decode(
    path: str | Path,
    frames: FramesConfig,
    start: float = math.nan,
    end: float = math.nan,
    folder: Path | None = None,
    only: Sequence[int] = (),
) -> Decoded:
    """Run ffmpeg on one video. It does not raise for a bad video: then `jpegs` is empty and `error` says why.

    `only`: ascending numbers of the kept frames to return; empty: all. The frames lie in a temporary file in `folder` (default: the
    system's temporary folder) as long as the result is used. Raises OSError if the disk is full, and ValueError if no ffmpeg works.
    """
    used = program()
    command = functools.partial(arguments, path, frames, start, end, only=only, exe=used.exe, timing=used.timing)
    try:
        jpegs, log = _run(command(), frames.timeout, folder)
        changes = len(log.shapes) > 1
        if changes and jpegs:
            # Run again: if the size changes unexpectedly, ffmpeg fills only a part of the frame.
            height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2]
            jpegs, log = _run(command(size=(width, height)), frames.timeout, folder)
        if log.tangled:  # run again to get the errors only
            log.error = _run(command(level="error"), frames.timeout, folder)[1].error
    except subprocess.TimeoutExpired:
        return Decoded(error=f"decoding took longer than {frames.timeout} s (frames.timeout)")
    except Killed as error:
        return Decoded(error=str(error))
    offset = 0.0 if math.isnan(start) else start - seek_to(start)
    got = Decoded(jpegs, [time - offset for time in log.pts], log.fps, log.error, log.note)
    expected = -(-len(log.pts) // frames.step)
    expected = sum(k < expected for k in only) if only else expected
    if len(jpegs) != expected:
        got.error = got.error or f"{expected} frames were decoded, but only {len(jpegs)} were received"
        jpegs.cut(expected)
    if not jpegs:
        got.error = got.error or _nothing(start, end)
    elif changes:
        got.error = got.error or "the frame size changes in the middle; every frame is scaled to the size of the first"
    return got


def _nothing(start: float, end: float) -> str:
    if math.isnan(start) and math.isnan(end):
        return "no frame can be decoded"
    until = "the end" if math.isnan(end) else f"{end:g} s"
    return f"no frame from {0 if math.isnan(start) else start:g} s to {until}"


class Killed(Exception):
    """ffmpeg was killed from outside, for example because the machine ran out of memory."""


def _run(command: list[str], timeout: float, folder: Path | None) -> tuple[Spool, Log]:
    """(frames, log) of one ffmpeg process; a killed process is run once more. Raises Killed, TimeoutExpired, or OSError (full disk).

    ffmpeg writes to files; this costs Python a tenth of the time of reading a pipe.
    """
    for _ in range(2):
        jpegs = Spool(folder)
        with tempfile.TemporaryFile(dir=folder) as lines:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=jpegs.file,
                stderr=lines,
                timeout=timeout,
                env=environment(),
                check=False,
            )
            lines.seek(0)  # the file position is shared with the writing process
            log = read_log(lines)
            if log.full or not _room(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder or tempfile.gettempdir()))
            if done.returncode >= 0 and not (done.returncode == 255 and log.stopped):
                jpegs.adopt(jpeg_spans(jpegs.file))
                return jpegs, log
    how = f"signal {-done.returncode}" if done.returncode < 0 else "a signal"
    raise Killed(f"ffmpeg was killed by {how}, twice; is there enough memory?")


def _room(lines: BinaryIO) -> bool:
    """Whether the log could be written to its end: on a full disk ffmpeg cannot even say so."""
    try:
        lines.seek(0, os.SEEK_END)
        lines.write(bytes(2 * PAGE))
        lines.flush()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def jpeg_spans(file: BinaryIO) -> list[tuple[int, int]]:
    """(offset, size) in bytes of the concatenated JPEGs of a file, read piece by piece; an incomplete last one is dropped."""
    spans, rest, at = [], b"", 0
    file.seek(0)
    for piece in iter(functools.partial(file.read, CHUNK), b""):
        rest += piece
        used = 0
        for size in map(len, split_jpegs(rest)):
            spans.append((at + used, size))
            used += size
        rest, at = rest[used:], at + used
    return spans


def split_jpegs(stream: bytes) -> list[bytes]:
    """Split concatenated JPEGs; an incomplete last one is dropped.

    Header segments are skipped by their length, because their bytes may look like markers. In the image data after the
    start-of-scan segment the end marker FFD9 cannot occur by chance.
    """
    images, start = [], 0
    while stream[start : start + 2] == b"\xff\xd8":
        at, marker = start + 2, 0
        while marker != 0xDA and at + 4 <= len(stream):
            marker = stream[at + 1]
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        end = stream.find(b"\xff\xd9", at) if marker == 0xDA else -1
        if end < 0:
            break
        images.append(stream[start : end + 2])
        start = end + 2
    return images
