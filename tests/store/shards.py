"""Write small shards of frames in the same way as the extraction."""

from pathlib import Path

import simplejpeg

from mscl.store.writer import ShardWriter
from mscl.video.extract import SCHEMA


def frame_row(clip_id: str, jpegs: list[bytes], step: int = 2, status: str = "ok", reason: str = "") -> dict:
    try:
        height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2] if jpegs else (0, 0)
    except ValueError:
        height, width = 60, 80
    frame = [step * k for k in range(len(jpegs))]
    size = {"width": width, "height": height, "fps": 12.0, "raw_frames": step * len(jpegs)}
    return (
        {"clip_id": clip_id, "status": status, "reason": reason, "note": ""}
        | size
        | {"frame": frame, "pts": [f / 10 for f in frame]}
    )


def write_frames(
    index: Path, clips: dict[str, list[bytes]], key: str = "key", shards: int = 0, **status: tuple[str, str]
) -> Path:
    """Write a shard of `clips` ({clip_id: JPEGs}); `status` gives {clip_id: (status, reason)} of clips that are not ok."""
    with ShardWriter(index.with_suffix(".tar"), index, SCHEMA, key, shards) as writer:
        for clip, jpegs in list(clips.items())[writer.done :]:
            writer.add(frame_row(clip, jpegs, 2, *status.get(clip, ("ok", ""))), jpegs)
        writer.commit(len(clips))
    return index
