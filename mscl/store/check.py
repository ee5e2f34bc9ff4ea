"""Check that a store is complete and undamaged. All checks read the files on disk."""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from mscl.machine.files import sha256
from mscl.store.index import Damaged, again
from mscl.store.shards import Shards
from mscl.store.videos import FRAMES
from mscl.store.writer import NAME, SHARDS, TAR_SIZE


def indexes(folder: Path) -> list[Path]:
    """The shard indexes of a store, without old ones from a larger number of shards. Raises ValueError if there is none."""
    found = sorted(p for p in Path(folder).glob("*.parquet") if not p.name.startswith("."))
    if not found:
        raise ValueError(f"{folder}: no shard here; give the folder of a store, such as data/demo/frames/motion_ssv2")
    count = stated(found)
    return [p for p in found if not count or not p.stem.isdigit() or int(p.stem) < count]


def is_index(path: Path) -> bool:
    """Whether a file is the index of a shard, by its metadata or its columns."""
    if path.suffix != ".parquet":
        return False
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):  # damaged; its name is that of an index
        return path.stem.isdigit()
    return TAR_SIZE in (schema.metadata or {}) or {"offset", "size"} <= set(schema.names)


def stated(found: list[Path]) -> int:
    """The number of shards of the store, as recorded in its first readable shard; 0 if unknown."""
    for path in found:
        with contextlib.suppress(OSError, pa.ArrowException):
            return int((pq.read_schema(path).metadata or {}).get(SHARDS, 0))
    return 0


def missing_shards(found: list[Path]) -> list[str]:
    """One sentence per missing shard. If the number of shards is unknown, the highest existing number is taken as the last."""
    have = {p.stem for p in found}
    count = stated(found) or max((int(s) for s in have if s.isdigit()), default=-1) + 1
    return [f"{n:04d}: the shard is missing" for n in range(count) if f"{n:04d}" not in have]


def together(found: list[Path]) -> list[str]:
    """What is wrong between the shards of a store: they are of different data sets, or two hold the same clip."""
    names, clips, wrong = {}, {}, []
    for path in found:
        with contextlib.suppress(OSError, pa.ArrowException, KeyError):  # an unreadable shard is reported by `verify`
            names[path] = (pq.read_schema(path).metadata or {}).get(NAME, b"").decode().rpartition("/")[0]
            for clip in pq.read_table(path, columns=["clip_id"], partitioning=None).column("clip_id").to_pylist():
                if clips.setdefault(clip, path) != path:
                    wrong.append(f"{path}: clip '{clip}' is also in {clips[clip].name}; {again(path)}")
    usual = Counter(names.values()).most_common(1)[0][0] if names else ""
    wrong += [
        f"{p}: is of data set '{name}', the others are of '{usual}'; {again(p)}" for p, name in names.items() if name != usual
    ]
    return wrong


def not_checked(decode: bool, decoded: bool = False) -> str:
    """What `verify` does not look at, for the last line of a report; `decoded`: of a store without images."""
    if decoded:
        return "not looked at: " + (
            "nothing; every video was decoded" if decode else "whether the videos are those that were listed (--quick)"
        )
    return "not looked at: whether frames are those of the videos, and flow is that of the frames" + (
        "" if decode else "; whether the images can be decoded (--quick)"
    )


def leftovers(folder: Path) -> list[str]:
    """Names of the shards that were started but not finished; the next run of their rule resumes them."""
    return [p.name.split(".")[1] for p in sorted(Path(folder).glob(".*.tar.part"))]


def verify(index: Path, decode: bool = True) -> list[str]:
    """Every error in one shard, one sentence each; empty if there is none.

    Checks: the index can be read, has possible values, belongs to this shard, and matches the tar file (size, sha256). A clip has
    status ok if and only if it has members. The tar headers hold exactly the clips, frames, offsets and sizes of the index. With
    `decode`, every JPEG has its own checksum and decodes to the stated size (a flow field: two planes of that size). Where
    images are not stored, this decodes every video.
    """
    try:
        shards = Shards([index])
    except ValueError as error:
        return [str(error)]
    wrong = [*_checksum(shards), *_rows(shards), *_members(shards)]
    if decode and not wrong:  # the offsets are only valid if the tar file matches the index
        wrong += _pictures(shards)
    shards.close()
    return wrong


def videos(index: Path) -> tuple[list[str], list[str]]:
    """(missing, of another size): a sentence for each video of a readable shard without images, by their names and sizes alone."""
    try:
        shards = Shards([index])
    except ValueError:  # `verify` tells
        return [], []
    found = list(shards.absent(shards.clips["clip_id"]))
    return [said for path, said in found if not os.path.exists(path)], [said for path, said in found if os.path.exists(path)]


def is_decoded(index: Path) -> bool:
    """Whether the images of a shard are not stored, but decoded at each use; False for one that cannot be read."""
    with contextlib.suppress(OSError, pa.ArrowException):
        return FRAMES in (pq.read_schema(index).metadata or {})
    return False


def _checksum(shards: Shards) -> Iterator[str]:
    if not shards.tar_sha256[0]:
        yield f"{shards.index_paths[0]}: holds no checksum of its tar; {again(shards.index_paths[0])}"
    elif sha256(shards.tar_paths[0]) != shards.tar_sha256[0]:
        yield f"{shards.tar_paths[0]}: its content has changed since it was written (sha256); {again(shards.tar_paths[0])}"


def _rows(shards: Shards) -> Iterator[str]:
    try:
        for name in shards.list_columns if len(shards) else ():
            shards.column(name, 0)  # also those that are read only on demand
    except ValueError as error:
        yield str(error)
    for row, clip in enumerate(shards.clips.itertuples()):
        frames = shards.frames(row)
        if (clip.status == "ok") != (clip.count > 0):
            yield f"{shards.index_paths[0]}: clip '{clip.clip_id}' has status {clip.status} and {clip.count} members"
        if clip.status != "ok" and not clip.reason:
            yield f"{shards.index_paths[0]}: clip '{clip.clip_id}' has status {clip.status} and no reason"
        if len(frames) != clip.count or (np.diff(frames) <= 0).any():
            yield f"{shards.index_paths[0]}: clip '{clip.clip_id}': it must have one frame number per member, in ascending order"


def _members(shards: Shards) -> Iterator[str]:
    """Compare the tar headers with the index."""
    wanted = {
        f"{clip}/{frame:06d}.jpg": (int(offset), int(size))
        for row, clip in enumerate(() if shards.decoded else shards.clips["clip_id"])
        for frame, offset, size in zip(shards.frames(row), shards.column("offset", row), shards.column("size", row))
    }
    try:
        with tarfile.open(shards.tar_paths[0]) as tar:
            for member in tar:
                tar.members = []  # else tarfile keeps every member in memory
                if wanted.pop(member.name, None) != (member.offset_data, member.size):
                    yield f"{shards.tar_paths[0]}: member {member.name} is not at the position or size in the index"
    except tarfile.TarError as error:
        yield f"{shards.tar_paths[0]}: not a readable tar ({error})"
    for name in list(wanted)[:1]:
        yield f"{shards.tar_paths[0]}: {len(wanted)} members of the index are missing, the first is {name}"


def _pictures(shards: Shards) -> Iterator[str]:
    planes = 2 if "scale" in shards.list_columns else 1
    for row, clip in enumerate(shards.clips.itertuples()):
        for k, frame in enumerate(shards.frames(row)):
            try:
                shape = simplejpeg.decode_jpeg(shards.read(row, k), colorspace="GRAY").shape[:2]
            except ValueError as error:
                if shards.decoded and isinstance(error, Damaged):  # of the video, so of all its frames
                    yield str(error)
                    break
                yield f"{shards.tar_paths[0]}: clip '{clip.clip_id}', frame {frame} cannot be decoded ({error})"
                continue
            if shape != (planes * clip.height, clip.width):
                yield f"{shards.tar_paths[0]}: clip '{clip.clip_id}', frame {frame} has {shape[1]} x {shape[0]} pixels, not the size in the index"


def listing(found: list[Path]) -> pd.DataFrame:
    """One row per shard: number of clips, clips with status ok, frames, size of the tar file (MB), counts of other statuses."""
    rows = []
    for index in found:
        try:
            shards = Shards([index])
        except ValueError as error:
            rows.append({"shard": index.stem, "clips": 0, "ok": 0, "frames": 0, "MB": 0.0, "others": f"unreadable: {error}"})
            continue
        counts = shards.clips["status"].value_counts()
        row = {
            "shard": index.stem,
            "clips": len(shards),
            "ok": int(counts.get("ok", 0)),
            "frames": int(shards.clips["count"].sum()),
            "MB": round(shards.tar_paths[0].stat().st_size / 1e6, 1),
            "others": ", ".join(f"{n} {status}" for status, n in counts.items() if status != "ok"),
        }
        rows.append(row)
        shards.close()
    return pd.DataFrame(rows)
