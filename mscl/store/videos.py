"""A store without images (`frames.keep: none`): its index lists the frames of every video, and each use decodes the video again.

The index has every column of a usual one but the offsets, and instead where the video is. An image is given out only if all
images of its video have the CRC-32 that the index lists, so the bits are those that a store with images would hold. A video that
has been replaced since, or that another ffmpeg decodes otherwise, is an error.
"""

from __future__ import annotations

import importlib
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mscl.config.datasets import FramesConfig

FRAMES = b"mscl.frames"  # keys of the parquet metadata, in such an index alone: the settings of the frames (JSON),
FFMPEG = b"mscl.ffmpeg"  # and the version of the ffmpeg that decoded the videos
COLUMNS = {
    "path": pa.string(),
    "start": pa.float64(),  # of the clip in its video, seconds; NaN: from its beginning
    "end": pa.float64(),  # NaN: to its end
    "bytes": pa.int64(),  # size of the file, so that most replaced videos are found before anything runs
}
# Not an import: what the decoder gives is compared with the index, so an edit of it can change no result. As it is, the edit
# reruns the extraction, and what follows only if the index changes.
DECODER = "mscl.video.ffmpeg"
_held = threading.local()  # the video that a thread has read last


def settings_of(metadata: Mapping[bytes, bytes] | None) -> FramesConfig | None:
    """How the images of an index are decoded; None if they are stored."""
    text = (metadata or {}).get(FRAMES)
    return FramesConfig.model_validate_json(text) if text else None


def check_decoder() -> None:
    """Raise ValueError if no ffmpeg works. Processes that are forked afterwards need not look for it again."""
    importlib.import_module(DECODER).program()


def absent(clip: Mapping[str, Any]) -> str:
    """Why the video of an index row cannot be the one that was listed, by its name and size alone; "" if it can."""
    try:
        size = os.stat(clip["path"]).st_size
    except OSError as error:
        return f"{clip['path']}: cannot be read ({(error.strerror or str(error)).lower()}); {_why(clip)}"
    if size != clip["bytes"]:
        return (
            f"{clip['path']}: another file than the one that was listed, of {size:,} bytes, not {clip['bytes']:,}; {_why(clip)}"
        )
    return ""


def _why(clip: Mapping[str, Any]) -> str:
    return (
        f"frames.keep is none, so each use of clip '{clip['clip_id']}' decodes this video: put it back, or list the videos of today: "
        "snakemake -R manifest"
    )


def held(key: tuple[int, int], decode: Callable[[], Sequence[bytes]]) -> Sequence[bytes]:
    """The JPEGs of the video `key` (number of the store, row), decoded if this thread has read another one last.

    Each thread holds one video, in a temporary file.
    """
    if getattr(_held, "key", None) != key:
        drop()
        _held.images = decode()
        _held.key = key
    return _held.images


def drop(store: int | None = None) -> None:
    """Forget the images that this thread holds, with `store` only those of this store."""
    key = getattr(_held, "key", None)
    if store is None or (key and key[0] == store):
        _held.key = _held.images = None


def images(clip: Mapping[str, Any], crcs: np.ndarray, frames: FramesConfig, made_by: str) -> Sequence[bytes]:
    """The JPEGs of an index row, decoded from its video. `crcs` (N,) are those that the index lists; `made_by`: version of ffmpeg.

    Raises ValueError if the video is not there, or has other images than listed.
    """
    if why := absent(clip):
        raise ValueError(why)
    decoder = importlib.import_module(DECODER)
    video = decoder.decode(clip["path"], frames, clip["start"], clip["end"])
    have = np.fromiter(map(zlib.crc32, video.jpegs), np.uint32, len(video.jpegs))
    if np.array_equal(have, crcs):
        return video.jpegs
    if len(have) != len(crcs):
        what = f"{len(have)} frames instead of {len(crcs)}" + (f" ({video.error})" if video.error else "")
    else:
        what = f"another picture as frame {int(np.flatnonzero(have != crcs)[0]) * frames.step}"
    here = decoder.program().version
    program = f" by ffmpeg {made_by}, and here is {here}" if here != made_by else ""
    raise ValueError(f"{clip['path']}: decodes to {what}, so it is not what was listed{program}; {_why(clip)}")
