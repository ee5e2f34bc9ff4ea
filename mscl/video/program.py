"""Which ffmpeg is used: the system's if it works, else the one that comes with imageio-ffmpeg."""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

from mscl.config.datasets import FramesConfig
from mscl.store.jpeg import decode_gray
from mscl.video.command import arguments

# Decoders of the codecs that video data sets use; each entry is a choice. Distributions leave some out for their patents.
DECODERS = (("h264",), ("hevc",), ("mpeg4",), ("mpeg2video",), ("vp8",), ("vp9",), ("libdav1d", "libaom-av1", "av1"))
# A setting of the user must not change the frames, or the log that is read (AV_LOG_FORCE_COLOR, FFREPORT, a language).
KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH")
TEST_SECONDS = 60  # a program that takes longer for three tiny frames does not work; a cold network disk takes a few seconds

# Three black frames of 16 x 16 pixels in Matroska, of limited range and BT.709 as most HD videos: a lavfi `color=black` with
# `setparams=range=tv:colorspace=bt709`, as rawvideo, made by ffmpeg with -fflags +bitexact; zlib, base64.
BLACK = (
    "eNqTcr2/eLFTWyOj03cg/tTI4vS5kcOpqSM3saQovzg70akdKNTayCQR3JDOyAACbC2CvrNLDuxvYbzA7uK7uzt4dYuo58q04DWNCyE8sZB12UDeGd/d"
    "PUCeUMjh9OA1TYzOEK5M8G6gZBObyxuIaQzBDNQHIPcs299yvKPDXOv6xmZ+JwffhhafxLK0cEcw5dLZ4RAHUQpy7Kf9LZ93HH+wDuqi5OuNjMVHO6Bm"
    "Mc5pZFDaOqe5NC+lo5GhrS8sPtTP2d83IMg1ONjVpbmRUflxcwtTUhTDgzkbGgV2NQrMamTS26rS4mliZBC6oSN0YyNj6E4gftfIAPMyEwMDKFRu7G/Z"
    "Grqovbj4fPKB7mSEheknZrkubncF2uLiGuTS3gt0cbJCUWJ5WWZKan76iYWuiztcQoMcQzz9/VzaJxsYWIGRnqGRAQQwyDtvK3WZt7+l8NWk7ueNDIsd"
    "WxoZGBoERjhoGGAAjgaN0WgYDNEQMBoNAwxA9cDu/S1V17J37e7f3MiwvQtY/3xsYlzwoZFz94TNjRrbu2ECTYwTQCIBSCLM4gA8l6xs"
)
DARK = 4  # what black may be in a stored frame; ffmpeg 4.2 forgets to stretch the range of BT.709 and stores 16


class Program(NamedTuple):
    """An ffmpeg that works."""

    exe: str
    timing: str  # the option that keeps every frame as it is: `fps_mode` since ffmpeg 5.1, `vsync` before
    version: str  # as it says it


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
        version = re.search(r"^ffmpeg version ((?:n?(\d+)\.(\d+))?\S*)", _output([exe, "-version"]))
        if version is None:
            return None, "it does not say its version"
        old = version[2] and (int(version[2]), int(version[3])) < (5, 1)
        found = Program(exe, "vsync" if old else "fps_mode", version[1])
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
    """Run the command of the stage on three black frames: every option and filter must exist, and black be black."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "three.mkv"
        path.write_bytes(zlib.decompress(base64.b64decode(BLACK)))
        command = arguments(path, FramesConfig(step=2), 0.0, 1.0, exe=found.exe, timing=found.timing)
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=TEST_SECONDS, check=False
        )
    log = run.stderr.decode(errors="replace")
    pictures, shown = run.stdout.count(b"\xff\xd8\xff"), len(re.findall(r"\bn: *\d+ +pts:", log))
    if (pictures, shown) == (2, 3):
        black = int(decode_gray(run.stdout[: run.stdout.index(b"\xff\xd8\xff", 3)]).max())
        return (found, "") if black <= DARK else (None, f"wrong colours: it stores black of a BT.709 video as {black} of 255")
    complaint = re.findall(r"\[(?:error|fatal)\] (.*)|^((?:Unrecognized|Option|No such filter).*)", log, re.M)
    said = (complaint[0][0] or complaint[0][1])[:120] if complaint else f"{pictures} of 2 frames came out"
    return None, f"a test video failed: {said}"
