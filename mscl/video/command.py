"""The ffmpeg command that decodes one video to JPEG frames, and the files that ffmpeg may open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mscl.config.datasets import FramesConfig

# Container formats (names of ffmpeg's demuxers) that may be opened. Lists of other files (dash, hls, concat, imf) and numbered
# pictures (image2) are left out: with them, a file could give the frames of another file. Also in docs/datasets.md.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "ivf", "nut",
    "rm", "mxf", "dv", "wtv", "h264", "hevc", "m4v", "gif", "yuv4mpegpipe",
)  # fmt: skip
BEFORE = 10.0  # seconds that decoding starts before a span: few containers seek exactly, but most have exact time stamps
# Width / height of one stored pixel that is believed. Beyond it the number is damage: a height of 1 or a picture of gigabytes.
PIXEL_ASPECT = (0.25, 4)

Size = tuple[int, int]  # width, height


def arguments(
    path: str | Path,
    frames: FramesConfig,
    start: float = math.nan,
    end: float = math.nan,
    size: Size | None = None,
    level: str = "info",
    only: Sequence[int] = (),
    exe: str = "ffmpeg",
    timing: str = "fps_mode",
) -> list[str]:
    """The ffmpeg command that writes raw frames 0, step, 2 * step, ... of the first video stream as MJPEG to stdout.

    Only frames from `start` to `end` (exclusive; seconds; NaN: the whole file) are read, and their numbers start at 0. `size`
    (width, height) is the size of every frame; by default it follows from the video and `frames.short_side`. `only`: write these of
    the kept frames alone (k is raw frame k * step), with the same bytes; all are decoded. `exe` and `timing` are those of
    `mscl.video.program`.

    `file:` allows names that start with a dash or contain colons. `reinit_filter=0` keeps the frame counter if the resolution
    changes in the middle; then `size` must be given. A JPEG is BT.601 by definition, hence `out_color_matrix`. V:0 is the first
    video stream that is not a cover picture. The encoder refuses a time stamp that is not later than the one before, as some
    videos have, so it is given the frame number as its time; the real times are those that showinfo lists.
    """
    import ffmpeg  # not at the top: the schema of the store is also used where there is no ffmpeg

    seek = seek_to(start)
    seeking = {"noaccurate_seek": None, "ss": seek} if seek else {}
    allowed = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
    video = ffmpeg.input(f"file:{path}", threads=1, reinit_filter=0, **allowed, **seeking)["V:0"]
    span = {name: value - seek for name, value in (("start", start), ("end", end)) if not math.isnan(value)}
    if span:
        video = video.filter("trim", **span)
    chosen = "+".join(f"eq(n,{k * frames.step})" for k in only) or f"not(mod(n,{frames.step}))"
    video = video.filter("showinfo", checksum=0).filter("select", chosen)
    w, h = size or _size(frames.short_side)
    video = video.filter("scale", w=w, h=h, out_color_matrix="bt601").filter("settb", "1/25").filter("setpts", "N")
    options = {"q:v": frames.quality, "flags:v": "+bitexact", timing: "passthrough", "enc_time_base": "1:25"}
    out = video.output("pipe:", format="image2pipe", vcodec="mjpeg", threads=1, qmin=1, **options)
    quiet = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", f"level+{level}", "-filter_complex_threads", "1")
    return out.global_args(*quiet).compile(cmd=exe)


def _size(short: int) -> tuple[str, str]:
    """Expressions for (width, height): square pixels, as wide as the video is shown, and the short side at most `short` pixels."""
    wide = f"round(iw*if(between(sar,{PIXEL_ASPECT[0]},{PIXEL_ASPECT[1]}),sar,1))"
    side = lambda this, other: f"if(gt({wide},ih),{this},{other})"  # noqa: E731
    shrunk = lambda long, least: f"max(1,round(min({short},{least})*{long}/{least}))"  # noqa: E731
    return side(shrunk(wide, "ih"), f"min({short},{wide})"), side(f"min({short},ih)", shrunk("ih", wide))


def seek_to(start: float) -> float:
    """The time (seconds) at which decoding starts for a span that begins at `start`; 0 for the whole file."""
    return 0.0 if math.isnan(start) else max(0.0, start - BEFORE)
