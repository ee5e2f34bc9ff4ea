"""Which ffmpeg is used: the system's if it works, else the one that comes with imageio-ffmpeg."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from mscl.config.datasets import FramesConfig
from mscl.video.command import arguments

# Decoders of the codecs that video data sets use; each entry is a choice. Distributions leave some out for their patents.
DECODERS = (("h264",), ("hevc",), ("mpeg4",), ("mpeg2video",), ("vp8",), ("vp9",), ("libdav1d", "libaom-av1", "av1"))
# A setting of the user must not change the frames, or the log that is read (AV_LOG_FORCE_COLOR, FFREPORT, a language).
KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH")
TEST_SECONDS = 60  # a program that takes longer for three tiny frames does not work; a cold network disk takes a few seconds


class Program(NamedTuple):
    """An ffmpeg that works."""

    exe: str
    timing: str  # the option that keeps every frame as it is: `fps_mode` since ffmpeg 5.1, `vsync` before


def environment() -> dict[str, str]:
    """The environment variables for ffmpeg."""
    return {k: os.environ[k] for k in KEPT if k in os.environ} | {"AV_LOG_FORCE_NOCOLOR": "1", "LC_ALL": "C"}


@functools.cache
def program() -> Program:
    """The ffmpeg on PATH, or, if it does not work, the carried one with a sentence on stderr. Raises ValueError if neither works."""
    system, why = shutil.which("ffmpeg"), ""
    if system:
        found, why = _tested(system)
        if found:
            return found
        print(f"{system}: this ffmpeg cannot be used ({why}); the one of imageio-ffmpeg is used instead", file=sys.stderr)
    import imageio_ffmpeg  # not at the top: the schema of the store is also used where there is no ffmpeg

    try:
        carried = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise ValueError(f"ffmpeg: imageio-ffmpeg brings none ({error}); install ffmpeg, or imageio-ffmpeg again") from None
    found, reason = _tested(carried)
    if not found:
        raise ValueError(f"{carried}: this ffmpeg cannot be used ({reason}); install ffmpeg, or imageio-ffmpeg again")
    return found


def ffmpeg_exe() -> str:
    """Path of the ffmpeg that is used."""
    return program().exe


def _tested(exe: str) -> tuple[Program | None, str]:
    """(the program, "") or (None, why it cannot be used): it must start, have the decoders, and decode a tiny video exactly."""
    try:
        version = re.search(r"^ffmpeg version (?:n?(\d+)\.(\d+))?", _output([exe, "-version"]))
        if version is None:
            return None, "it does not say its version"
        found = Program(exe, "vsync" if version[1] and (int(version[1]), int(version[2])) < (5, 1) else "fps_mode")
        names = set(re.findall(r"^ V\S{5} (\S+)", _output([exe, "-hide_banner", "-decoders"]), re.M))
        for choice in DECODERS:
            if not names & set(choice):
                return None, f"no decoder {' or '.join(choice)}"
        return _decodes(found)
    except OSError as error:
        return None, f"it does not start: {error.strerror}"
    except subprocess.TimeoutExpired:
        return None, f"it does not answer within {TEST_SECONDS} s"


def _output(command: list[str]) -> str:
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=TEST_SECONDS, check=False
    )
    return run.stdout.decode(errors="replace")


def _decodes(found: Program) -> tuple[Program | None, str]:
    """Run the command of the stage on three frames of 16 x 16 pixels: every option and filter that it uses must exist."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "three.y4m"
        path.write_bytes(b"YUV4MPEG2 W16 H16 F25:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + b"\x80" * 384) * 3)
        command = arguments(path, FramesConfig(step=2), 0.0, 1.0, exe=found.exe, timing=found.timing)
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=TEST_SECONDS, check=False
        )
    log = run.stderr.decode(errors="replace")
    pictures, shown = run.stdout.count(b"\xff\xd8\xff"), len(re.findall(r"\bn: *\d+ +pts:", log))
    if (pictures, shown) == (2, 3):
        return found, ""
    complaint = re.findall(r"\[(?:error|fatal)\] (.*)|^((?:Unrecognized|Option|No such filter).*)", log, re.M)
    said = (complaint[0][0] or complaint[0][1])[:120] if complaint else f"{pictures} of 2 frames came out"
    return None, f"a test video failed: {said}"
