"""What ffmpeg's log says about a video: its frames, its frame rate, its errors, and what is special about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# Frames as ffmpeg's showinfo filter lists them, e.g. "n:   3 pts:   1536 pts_time:0.09375 ... fmt:yuv420p ... sar:1/1 s:320x240 i:P ..."
SHOWN = re.compile(
    r"^\[Parsed_showinfo[^\n]*?\bn: *\d+ +pts: *\S+ +pts_time:(\S+)(?:[^\n]*? fmt:(\S+))?[^\n]*? (sar:\S+ s:\d+x\d+)(?: i:(\S))?"
)
ERROR = re.compile(
    r"^(?:\[[^\]]*\] )*?\[(?:error|fatal|panic)\] (.*)|^(?:\[[^\]]*\] )*(File ended prematurely.*)"
    r"|^(?:\[[^\]]*\] )*?\[warning\] (corrupt (?:decoded frame|input packet).*)"  # what is then decoded is partly noise
)
# Errors about our own pipe; they follow the actual error of the video.
PIPE = re.compile(
    r"^\[(?:image2pipe|out#|mjpeg @)|(?:Error while opening|Could not open) encoder|to consumers|Task finished|Terminating thread|Nothing was written"
)
# ffmpeg's threads share one log, and showinfo writes a line in pieces: another thread's message may split it and lose its level.
TANGLED = re.compile(
    r"^\[Parsed_showinfo[^\]]*\] \[info\] (?:n: (?!.* type:\S ?$)|color_(?!range:\S+ color_space:\S+ color_primaries:\S+ color_trc:\S+$))"
)
STREAM = re.compile(r"^(?:\[info\] )? {2,4}Stream #0:\d+\S*: Video: (?!.*\(attached pic\))")  # metadata is indented further
RATE = re.compile(r" ([\d.]+)(k?) fps")
# ffmpeg states two digits; these are the exact rates behind them
EXACT = {23.98: 24000 / 1001, 29.97: 30000 / 1001, 47.95: 48000 / 1001, 59.94: 60000 / 1001, 119.88: 120000 / 1001}
FULL = re.compile(r"No space left on device|Disk quota exceeded")
STOPPED = re.compile(r"^(?:\[\w+\] )*Exiting normally, received signal")  # with code 255, and frames that end too early
REASON = 160  # maximum length of an ffmpeg message, characters
ALPHA = re.compile(r"yuva|rgba|bgra|argb|abgr|gbra|ya8|ya16|ayuv|vuya")
NOTES = {
    "interlaced": "interlaced: both fields are in each frame",
    "hlg": "HDR (HLG): not tone-mapped",
    "pq": "HDR (PQ): not tone-mapped",
    "alpha": "transparent: alpha is ignored",
}


@dataclass
class Log:
    """`pts`: time (s, NaN if unknown) of each raw frame. `fps`: as the container states it, NaN if unknown."""

    pts: list[float] = field(default_factory=list)
    fps: float = float("nan")
    error: str = ""  # the first error; "" if there is none
    tangled: bool = False  # whether a level, and so an error, may be lost
    full: bool = False  # whether our own disk was full
    stopped: bool = False  # whether ffmpeg was told to stop by a signal
    shapes: set[str] = field(default_factory=set)  # pixel aspects and sizes of the frames
    special: set[str] = field(default_factory=set)  # keys of NOTES

    @property
    def note(self) -> str:
        """What a user should know about the frames, as one line; usually ""."""
        return "; ".join(text for key, text in NOTES.items() if key in self.special)


def read_log(lines: Iterable[bytes]) -> Log:
    """Read a log line by line, so that the log of a long video need not fit in memory."""
    log, inputs = Log(), True
    for line in lines:
        text = line.decode(errors="replace").rstrip("\n")
        inputs = inputs and not text.startswith(("[info] Output #0", "[info] Stream mapping"))
        if found := SHOWN.match(text):
            _frame(log, *found.groups())
        elif inputs and STREAM.match(text):  # the first one: the stream that is decoded
            log.fps, inputs = _stated(text), False
            _colours(log, text)
        elif text.startswith("[Parsed_showinfo"):
            _colours(log, text)
        if not log.tangled and TANGLED.match(text):
            log.tangled = True
        if STOPPED.match(text):
            log.stopped = True
        _complaint(log, text)
    return log


def _frame(log: Log, time: str, pixels: str | None, shape: str, order: str | None) -> None:
    log.pts.append(float(time) if re.fullmatch(r"-?[\d.]+(?:e[+-]?\d+)?", time) else float("nan"))  # else NOPTS
    log.shapes.add(shape)
    if order in ("T", "B"):
        log.special.add("interlaced")
    if pixels and ALPHA.match(pixels):
        log.special.add("alpha")


def _colours(log: Log, text: str) -> None:
    for transfer, key in (("arib-std-b67", "hlg"), ("smpte2084", "pq")):
        if transfer in text and (" Video: " in text or "color_trc:" in text):
            log.special.add(key)


def _stated(text: str) -> float:
    found = RATE.search(text)
    value = float(found[1]) * (1000 if found[2] else 1) if found else float("nan")
    return EXACT.get(value, value)


def _complaint(log: Log, text: str) -> None:
    found = ERROR.match(text)
    if not found:
        return
    log.full = log.full or bool(FULL.search(text))
    if log.error or PIPE.search(text):
        return
    words = found[1] or found[2] or found[3]
    if "matches no streams" in words:
        words = "no video stream"
    if "ormat not on whitelist" in words:
        words = "not a video file of a known format (the list is in docs/datasets.md)"
    log.error = re.sub(r" @ 0x[0-9a-f]+", "", words).strip()[:REASON]
