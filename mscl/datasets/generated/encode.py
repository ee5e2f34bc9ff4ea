"""Encodes frames as a video file with ffmpeg, the same bytes every time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

FPS = 12  # Something-Something's rate

# suffix -> muxer, and codec options; one thread and no metadata, so that the bytes depend on the frames alone
_WAYS = {
    ".webm": ("webm", {"c:v": "libvpx-vp9", "deadline": "realtime", "cpu-used": 8, "crf": 20, "b:v": 0, "row-mt": 0}),
    ".mp4": ("mp4", {"c:v": "libx264", "preset": "veryfast", "crf": 18}),
}


def encode(frames_THWC: np.ndarray, path: Path, fps: int = FPS) -> None:
    """Write uint8 RGB frames to `path` (.webm: VP9, .mp4: H.264; yuv420p), whole or not at all.

    Raises ValueError naming the file when the size is odd or ffmpeg fails.
    """
    _, height, width, _ = frames_THWC.shape
    if height % 2 or width % 2:
        raise ValueError(f"{path}: {width}x{height} cannot be stored with halved chroma; choose an even width and height")
    muxer, codec = _WAYS[path.suffix]
    draft = path.with_name(f".{path.name}.tmp")
    raw = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    stream = ffmpeg.output(
        raw, f"file:{draft}", format=muxer, pix_fmt="yuv420p", threads=1, map_metadata=-1, fflags="+bitexact",
        **{"flags:v": "+bitexact", "filter_threads": 1}, **codec,
    ).global_args("-hide_banner", "-loglevel", "error", "-nostats")  # fmt: skip
    command = ffmpeg.compile(stream, cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True)
    done = subprocess.run(command, input=np.ascontiguousarray(frames_THWC).tobytes(), capture_output=True, check=False)
    if done.returncode:
        draft.unlink(missing_ok=True)
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise ValueError(
            f"{path}: ffmpeg could not encode it ({said[-1]}); check the free space and that this ffmpeg has {codec['c:v']}"
        )
    os.replace(draft, path)
