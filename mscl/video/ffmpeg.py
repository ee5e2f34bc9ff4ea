"""Decode one video to JPEG frames with one ffmpeg process, without temporary files or a shell."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import ffmpeg
import imageio_ffmpeg
import simplejpeg

from mscl.config.datasets import FramesConfig

# Frames as ffmpeg's showinfo filter lists them, e.g. "n:   3 pts:   1536 pts_time:0.09375 ... s:320x240 ..."
SHOWN = re.compile(rb"^\[Parsed_showinfo[^\n]*?\bn: *\d+ +pts: *\S+ +pts_time:(\S+)[^\n]*? s:(\d+x\d+)", re.M)
ERROR = re.compile(r"^(?:\[[^\]]*\] )*?\[(?:error|fatal|panic)\] (.*)|^(?:\[[^\]]*\] )*(File ended prematurely.*)")
# Errors about our own pipe; they follow the actual error of the video.
PIPE = re.compile(
    r"^\[(?:image2pipe|out#|mjpeg @)|(?:Error while opening|Could not open) encoder|to consumers|Task finished|Terminating thread|Nothing was written"
)
# ffmpeg's threads share one log, and showinfo writes a line in pieces: another thread's message may split it and lose its level.
TANGLED = re.compile(
    r"^\[Parsed_showinfo[^\]]*\] \[info\] (?:n: (?!.* type:\S ?$)|color_(?!range:\S+ color_space:\S+ color_primaries:\S+ color_trc:\S+$))",
    re.M,
)
ENDED = re.compile(rb"^(?:\[\w+\] )*Exiting normally, received signal", re.M)  # with code 255, and frames that end too early
RATE = re.compile(r"Stream #0:\d+.*Video:.* ([\d.]+)(k?) fps")
REASON = 160  # maximum length of an ffmpeg message, characters
BEFORE = 10.0  # seconds that decoding starts before a span: few containers seek exactly, but most have exact time stamps


@functools.cache
def ffmpeg_exe() -> str:
    """Path of the system's ffmpeg if there is one on PATH, else of the one in imageio-ffmpeg."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


@functools.cache
def _keep_timing() -> str:
    """The option that keeps every frame as it is: `fps_mode` since ffmpeg 5.1, `vsync` before."""
    text = subprocess.run([ffmpeg_exe(), "-version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version n?(\d+)\.(\d+)", text)
    return "vsync" if version and (int(version[1]), int(version[2])) < (5, 1) else "fps_mode"


@dataclass
class Decoded:
    """The decoded frames of a video. `jpegs[k]` is raw frame k * step; `pts` (s, NaN if unknown) has one entry per raw frame."""

    jpegs: list[bytes] = field(default_factory=list)
    pts: list[float] = field(default_factory=list)
    fps: float = float("nan")  # frames per second as stated by the container; NaN if unknown
    error: str = ""  # the first decoding error as ffmpeg reports it; "" if none


Size = tuple[int, int]  # width, height


def arguments(
    path: str | Path,
    frames: FramesConfig,
    start: float = math.nan,
    end: float = math.nan,
    size: Size | None = None,
    level: str = "info",
) -> list[str]:
    """The ffmpeg command that writes raw frames 0, step, 2 * step, ... of the first video stream as MJPEG to stdout.

    Only frames from `start` to `end` (exclusive; seconds; NaN: the whole file) are read, and their numbers start at 0. `size`
    (width, height) is the size of every frame; by default it follows from the video and `frames.short_side`.

    `file:` allows names that start with a dash or contain colons. `reinit_filter=0` keeps the frame counter if the resolution
    changes in the middle; then `size` must be given. A JPEG is BT.601 by definition, hence `out_color_matrix`. V:0 is the first
    video stream that is not a cover picture.
    """
    short, seek = frames.short_side, seek_to(start)
    seeking = {"noaccurate_seek": None, "ss": seek} if seek else {}
    video = ffmpeg.input(f"file:{path}", threads=1, reinit_filter=0, **seeking)["V:0"]
    span = {name: value - seek for name, value in (("start", start), ("end", end)) if not math.isnan(value)}
    if span:
        video = video.filter("trim", **span)
    video = video.filter("showinfo", checksum=0).filter("select", f"not(mod(n,{frames.step}))")
    w, h = size or (f"if(gt(iw,ih),-1,min({short},iw))", f"if(gt(iw,ih),min({short},ih),-1)")
    video = video.filter("scale", w=w, h=h, out_color_matrix="bt601")
    options = {"q:v": frames.quality, "flags:v": "+bitexact", _keep_timing(): "passthrough"}
    out = video.output("pipe:", format="image2pipe", vcodec="mjpeg", threads=1, qmin=1, **options)
    quiet = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", f"level+{level}", "-filter_complex_threads", "1")
    return out.global_args(*quiet).compile(cmd=ffmpeg_exe())


def seek_to(start: float) -> float:
    """The time (seconds) at which decoding starts for a span that begins at `start`; 0 for the whole file."""
    return 0.0 if math.isnan(start) else max(0.0, start - BEFORE)


def decode(path: str | Path, frames: FramesConfig, start: float = math.nan, end: float = math.nan) -> Decoded:
    """Run ffmpeg on one video. It does not raise for a bad video: then `jpegs` is empty and `error` says why."""
    try:
        stream, raw_log = _run(arguments(path, frames, start, end), frames.timeout)
        shown = SHOWN.findall(raw_log)
        changes = len({size for _, size in shown}) > 1
        if changes and (first := split_jpegs(stream)[:1]):
            # Run again: if the size changes unexpectedly, ffmpeg fills only a part of the frame.
            height, width = simplejpeg.decode_jpeg_header(first[0])[:2]
            stream, raw_log = _run(arguments(path, frames, start, end, (width, height)), frames.timeout)
        complaints = log = raw_log.decode(errors="replace")
        if TANGLED.search(log):  # run again to get the errors only
            complaints = _run(arguments(path, frames, start, end, level="error"), frames.timeout)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        return Decoded(error=f"decoding took longer than {frames.timeout} s (frames.timeout)")
    except Killed as error:
        return Decoded(error=str(error))
    offset = 0.0 if math.isnan(start) else start - seek_to(start)
    got = Decoded(
        split_jpegs(stream), [_seconds(time) - offset for time, _ in shown], _stated_rate(log), _first_error(complaints)
    )
    expected = -(-len(shown) // frames.step)
    if len(got.jpegs) != expected:
        got.error = got.error or f"{expected} frames were decoded, but only {len(got.jpegs)} were received"
        got.jpegs = got.jpegs[:expected]
    if not got.jpegs:
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


def _run(command: list[str], timeout: float) -> tuple[bytes, bytes]:
    """(frames, log) of one ffmpeg process; a killed process is run once more. Raises Killed or TimeoutExpired."""
    for _ in range(2):
        with _memory_file("frames") as out, _memory_file("log") as log:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, timeout=timeout, check=False)
            said = _content(log)
            if done.returncode >= 0 and not (done.returncode == 255 and ENDED.search(said)):
                return _content(out), said
    how = f"signal {-done.returncode}" if done.returncode < 0 else "a signal"
    raise Killed(f"ffmpeg was killed by {how}, twice; is there enough memory?")


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[BinaryIO]:
    """A file in memory that ffmpeg writes to; this costs Python a tenth of the time of reading a pipe."""
    with open(os.memfd_create(name), "rb") as file:
        yield file


def _content(file: BinaryIO) -> bytes:
    file.seek(0)  # the file position is shared with the writing process
    return file.read()


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
        end = stream.find(b"\xff\xd9", at)
        if end < 0:
            break
        images.append(stream[start : end + 2])
        start = end + 2
    return images


def _seconds(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:  # NOPTS
        return float("nan")


def _stated_rate(log: str) -> float:
    found = RATE.search(log)
    return float(found[1]) * (1000 if found[2] else 1) if found else float("nan")


def _first_error(log: str) -> str:
    for line in log.splitlines():
        found = ERROR.search(line)
        if found and not PIPE.search(line):
            text = found[1] or found[2]
            return "no video stream" if "matches no streams" in text else re.sub(r" @ 0x[0-9a-f]+", "", text).strip()[:REASON]
    return ""
