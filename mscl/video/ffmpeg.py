"""One video to JPEG frames through one ffmpeg process, without temporary files or a shell."""

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
# Complaints about our own pipe, which come after the video's own fault.
PIPE = re.compile(
    r"^\[(?:image2pipe|out#|mjpeg @)|(?:Error while opening|Could not open) encoder|to consumers|Task finished|Terminating thread|Nothing was written"
)
# ffmpeg's threads share one log and showinfo writes a line in pieces: another thread's word may land in it, without its level.
TANGLED = re.compile(
    r"^\[Parsed_showinfo[^\]]*\] \[info\] (?:n: (?!.* type:\S ?$)|color_(?!range:\S+ color_space:\S+ color_primaries:\S+ color_trc:\S+$))",
    re.M,
)
ENDED = re.compile(rb"^(?:\[\w+\] )*Exiting normally, received signal", re.M)  # with code 255, and frames that end too early
RATE = re.compile(r"Stream #0:\d+.*Video:.* ([\d.]+)(k?) fps")
REASON = 160  # characters of ffmpeg's own words kept
BEFORE = 10.0  # seconds before a span at which decoding begins: seeking is exact in few containers, time stamps in most


@functools.cache
def ffmpeg_exe() -> str:
    """The system's ffmpeg when there is one on PATH, else the one that imageio-ffmpeg carries."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


@functools.cache
def _keep_timing() -> str:
    """The option that passes frames on as they come: `-fps_mode` since ffmpeg 5.1, `-vsync` before."""
    text = subprocess.run([ffmpeg_exe(), "-version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version n?(\d+)\.(\d+)", text)
    return "vsync" if version and (int(version[1]), int(version[2])) < (5, 1) else "fps_mode"


@dataclass
class Decoded:
    """What one video gave. `jpegs[k]` is raw frame k*step; `pts` (s, NaN if unstamped) has one entry per raw frame."""

    jpegs: list[bytes] = field(default_factory=list)
    pts: list[float] = field(default_factory=list)
    fps: float = float("nan")  # as the container states it
    error: str = ""  # the first decoding error in ffmpeg's words; "" for a clean file


Size = tuple[int, int]  # width, height


def arguments(
    path: str | Path,
    frames: FramesConfig,
    start: float = math.nan,
    end: float = math.nan,
    size: Size | None = None,
    level: str = "info",
) -> list[str]:
    """The command that writes raw frames 0, step, 2*step... of the first video stream as MJPEG to stdout.

    `file:` lets a name start with a dash or hold colons. `reinit_filter=0` keeps the frame counter when the resolution
    changes midway; then `size` is given, of every picture. A JPEG is BT.601 by definition, hence `out_color_matrix`. V:0 is
    the first video stream that is no cover picture. From `start` up to, not including, `end` (seconds; NaN: the whole
    file) frames are numbered anew.
    """
    short, seek = frames.short_side, seek_to(start)
    video = ffmpeg.input(f"file:{path}", threads=1, reinit_filter=0, **({"noaccurate_seek": None, "ss": seek} if seek else {}))[
        "V:0"
    ]
    span = {name: value - seek for name, value in (("start", start), ("end", end)) if not math.isnan(value)}
    if span:
        video = video.filter("trim", **span)
    video = video.filter("showinfo", checksum=0).filter("select", f"not(mod(n,{frames.step}))")
    w, h = size or (f"if(gt(iw,ih),-1,min({short},iw))", f"if(gt(iw,ih),min({short},ih),-1)")
    video = video.filter("scale", w=w, h=h, out_color_matrix="bt601")
    out = video.output(
        "pipe:",
        format="image2pipe",
        vcodec="mjpeg",
        threads=1,
        qmin=1,
        **{"q:v": frames.quality, "flags:v": "+bitexact", _keep_timing(): "passthrough"},
    )
    quiet = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", f"level+{level}", "-filter_complex_threads", "1")
    return out.global_args(*quiet).compile(cmd=ffmpeg_exe())


def seek_to(start: float) -> float:
    """Where decoding begins for a span that begins at `start`, seconds; 0 for the whole file."""
    return 0.0 if math.isnan(start) else max(0.0, start - BEFORE)


def decode(path: str | Path, frames: FramesConfig, start: float = math.nan, end: float = math.nan) -> Decoded:
    """Run ffmpeg on one video; never raises for a bad video: then `jpegs` is empty and `error` says why."""
    try:
        stream, raw_log = _run(arguments(path, frames, start, end), frames.timeout)
        shown = SHOWN.findall(raw_log)
        changes = len({size for _, size in shown}) > 1
        if changes and (
            first := split_jpegs(stream)[:1]
        ):  # again: ffmpeg fills a part only of pictures whose size it did not expect
            height, width = simplejpeg.decode_jpeg_header(first[0])[:2]
            stream, raw_log = _run(arguments(path, frames, start, end, (width, height)), frames.timeout)
        complaints = log = raw_log.decode(errors="replace")
        if TANGLED.search(log):  # again, for the errors alone
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
        got.error = got.error or f"{expected} frames decoded, {len(got.jpegs)} came through"
        got.jpegs = got.jpegs[:expected]
    if not got.jpegs:
        got.error = got.error or _nothing(start, end)
    elif changes:
        got.error = got.error or "the frame size changes midway; every frame has the size of the first"
    return got


def _nothing(start: float, end: float) -> str:
    if math.isnan(start) and math.isnan(end):
        return "no frame decodes"
    return f"no frame from {0 if math.isnan(start) else start:g} s to {'the end' if math.isnan(end) else f'{end:g} s'}"


class Killed(Exception):
    """Something outside ended ffmpeg, as a machine short of memory does."""


def _run(command: list[str], timeout: float) -> tuple[bytes, bytes]:
    """(frames, log) of one ffmpeg process; one that is killed is tried once more. Raises Killed or TimeoutExpired."""
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
    """A file in memory that ffmpeg writes on its own: ten times cheaper for Python than emptying a pipe."""
    with open(os.memfd_create(name), "rb") as file:
        yield file


def _content(file: BinaryIO) -> bytes:
    file.seek(0)  # the position is shared with the process that wrote
    return file.read()


def split_jpegs(stream: bytes) -> list[bytes]:
    """Cut concatenated JPEGs apart; an incomplete last one is dropped.

    Header segments are skipped by their length (their bytes may look like markers); in the image data after the
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
