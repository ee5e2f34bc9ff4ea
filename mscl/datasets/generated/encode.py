"""Encode frames as a video file with ffmpeg; the same frames give the same bytes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np

FPS = 12  # frames per second, as in Something-Something

# {suffix: (muxer, codec options)}; one thread and no metadata, so that the bytes depend only on the frames
_WAYS = {
    ".webm": ("webm", {"c:v": "libvpx-vp9", "deadline": "realtime", "cpu-used": 8, "crf": 20, "b:v": 0, "row-mt": 0}),
    ".mp4": ("mp4", {"c:v": "libx264", "preset": "veryfast", "crf": 18}),
}


def encode(frames_THWC: np.ndarray, path: Path, fps: int = FPS) -> None:
    """Write RGB frames (T, H, W, 3) uint8 atomically to `path` (.webm: VP9, .mp4: H.264; yuv420p) at `fps` frames per second.

    Raises ValueError that names the file if the width or height is odd or ffmpeg fails.
    """
    import ffmpeg  # not at the top: scenes are also rendered where there is no ffmpeg
    import imageio_ffmpeg

    _, height, width, _ = frames_THWC.shape
    if height % 2 or width % 2:
        raise ValueError(f"{path}: {width}x{height} pixels cannot be stored as yuv420p video; choose an even width and height")
    muxer, codec = _WAYS[path.suffix]
    draft = path.with_name(f".{path.name}.tmp")
    raw = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    exact = {"threads": 1, "filter_threads": 1, "map_metadata": -1, "fflags": "+bitexact", "flags:v": "+bitexact"}
    stream = ffmpeg.output(raw, f"file:{draft}", format=muxer, pix_fmt="yuv420p", **exact, **codec)
    stream = stream.global_args("-hide_banner", "-loglevel", "error", "-nostats")
    command = ffmpeg.compile(stream, cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True)
    done = subprocess.run(command, input=np.ascontiguousarray(frames_THWC).tobytes(), capture_output=True, check=False)
    if done.returncode:
        draft.unlink(missing_ok=True)
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no error message"]
        raise ValueError(
            f"{path}: ffmpeg could not encode it ({said[-1]}); check the free space and that this ffmpeg has {codec['c:v']}"
        )
    os.replace(draft, path)
