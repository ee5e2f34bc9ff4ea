"""A store without images (`frames.keep: none`): its index lists the frames of every video, and each use decodes the video again.

The index has every column of a usual one but the offsets, and instead where the video is. An image is given out only with the
CRC-32 that the index lists, and if its video has as many frames, so the bits are those that a store with images would hold. A
video that has been replaced since, or that another ffmpeg decodes otherwise, is an error.
"""

from __future__ import annotations

import importlib
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
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
_this = threading.local()  # of each thread: `held`, what it has decoded last


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


class Held:
    """The images of one clip that a thread has decoded last, `wanted` (positions; None: all) of them."""

    def __init__(self, key: tuple[int, int], wanted: Sequence[int] | None, jpegs: Sequence[bytes]):
        self.key, self._jpegs = key, jpegs  # in a temporary file
        self._place = range(len(jpegs)) if wanted is None else {k: place for place, k in enumerate(wanted)}

    def has(self, wanted: Iterable[int]) -> bool:
        """Whether all these positions are here."""
        return all(k in self._place for k in wanted)

    def __getitem__(self, k: int) -> bytes:
        return self._jpegs[self._place[k]]


def held(key: tuple[int, int], wanted: Sequence[int]) -> Held | None:
    """What this thread holds of the clip `key` (number of the store, row), if these positions are among it."""
    now = getattr(_this, "held", None)
    return now if now is not None and now.key == key and now.has(wanted) else None


def hold(key: tuple[int, int], wanted: Sequence[int] | None, decode: Callable[[], Sequence[bytes]]) -> Held:
    """Decode and hold images of one clip. Those of another are forgotten first: a disk need not have room for two."""
    drop()
    _this.held = Held(key, wanted, decode())
    return _this.held


def drop(store: int | None = None) -> None:
    """Forget the images that this thread holds, with `store` only those of this store."""
    now = getattr(_this, "held", None)
    if now is not None and store in (None, now.key[0]):
        _this.held = None


def images(
    clip: Mapping[str, Any], crcs: np.ndarray, frames: FramesConfig, made_by: str, wanted: Sequence[int] | None = None
) -> Sequence[bytes]:
    """The JPEGs of an index row at the positions `wanted` (None: all), decoded from its video.

    `crcs` (N,) are those that the index lists of all; `made_by`: version of ffmpeg. Raises ValueError if the video is not there, or
    has other images than listed.
    """
    if why := absent(clip):
        raise ValueError(why)
    decoder = importlib.import_module(DECODER)
    where = clip["path"], frames, clip["start"], clip["end"]
    if wanted is not None:
        video = decoder.decode(*where, only=wanted)
        if len(video.pts) == clip["raw_frames"] and np.array_equal(_crcs(video.jpegs), crcs[list(wanted)]):
            return video.jpegs
    video = decoder.decode(*where)  # exactly as it was listed: nothing less proves that it is another video
    have = _crcs(video.jpegs)
    if np.array_equal(have, crcs):
        return video.jpegs if wanted is None else [video.jpegs[k] for k in wanted]
    if video.error and not len(have):
        raise ValueError(f"{clip['path']}: cannot be decoded ({video.error}); {_why(clip)}")
    if len(have) != len(crcs):
        what = f"{len(have)} frames instead of {len(crcs)}" + (f" ({video.error})" if video.error else "")
    else:
        what = f"another picture as frame {int(np.flatnonzero(have != crcs)[0]) * frames.step}"
    here = decoder.program().version
    program = f" by ffmpeg {made_by}, and here is {here}" if here != made_by else ""
    raise ValueError(f"{clip['path']}: decodes to {what}, so it is not what was listed{program}; {_why(clip)}")


def _crcs(jpegs: Sequence[bytes]) -> np.ndarray:
    return np.fromiter(map(zlib.crc32, jpegs), np.uint32, len(jpegs))
