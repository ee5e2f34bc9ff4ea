"""The shard store: JPEGs in an uncompressed tar, found by byte range through a parquet index beside it.

A tar of a few thousand clips is one file for the file system and for DVC, any tool can open it, and
one `pread` gets any frame, so that shuffling and resuming are plain arithmetic on row numbers.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

TAR_SIZE = b"mscl.tar_size"  # key of the parquet metadata: bytes of the tar that the index belongs to
REQUIRED = ("clip_id", "status", "frame", "offset", "size")
LAZY = ("pts",)  # list columns that training never reads
NARROW = {"size": np.int32}  # kept narrower in memory than on disk


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_table(index: pd.DataFrame | pa.Table, schema: pa.Schema | None = None) -> pa.Table:
    """The index as an arrow table without pandas' metadata (same rows, same bytes)."""
    table = index if isinstance(index, pa.Table) else pa.Table.from_pandas(index, schema=schema, preserve_index=False)
    return table.replace_schema_metadata(None)


class ShardWriter:
    """Writes one shard; nothing appears under the final names before `commit`.

    Members carry no time, owner or other trace of the machine, so the same payloads give the same bytes.
    Leaving the `with` block without a commit, or by an exception, removes the temporary files.
    """

    def __init__(self, tar_path: str | Path):
        self.path = Path(tar_path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = _temporary(self.path)
        self._tar: tarfile.TarFile | None = tarfile.open(self._part, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self._litter = [self._part]

    def add(self, clip_id: str, names_payloads: Iterable[tuple[str, bytes]]) -> tuple[np.ndarray, np.ndarray]:
        """Append the members `<clip_id>/<name>`; return their (offsets, sizes), int64 bytes, of the payloads in the tar."""
        offsets, sizes = [], []
        for name, payload in names_payloads:
            member = tarfile.TarInfo(f"{clip_id}/{name}")
            member.size, member.mode = len(payload), 0o644  # mtime, uid, gid and names stay 0 and ""
            self._tar.addfile(member, io.BytesIO(payload))
            offsets.append(self._tar.offset - -(-len(payload) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
            sizes.append(len(payload))
        return np.array(offsets, np.int64), np.array(sizes, np.int64)

    def commit(self, index: pd.DataFrame | pa.Table, index_path: str | Path, schema: pa.Schema | None = None) -> None:
        """Flush both files to disk and rename the tar, then the index."""
        index_path = Path(index_path)
        self._tar.close()
        self._tar = None
        _fsync(self._part)
        part = _temporary(index_path)
        self._litter.append(part)
        table = as_table(index, schema).replace_schema_metadata({TAR_SIZE: str(self._part.stat().st_size)})
        pq.write_table(table, part, compression="zstd")
        _fsync(part)
        index_path.unlink(missing_ok=True)  # an old index must never stand beside a new tar
        os.replace(self._part, self.path)
        os.replace(part, index_path)
        _fsync(index_path.parent)
        self._litter.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
        for path in self._litter:
            path.unlink(missing_ok=True)


class Shards:
    """Random access to the clips of several shards; rows are numbered through them in the order given.

    `clips`: DataFrame, one row per clip (failed ones too): every plain column of the index, `shard` (number of
    the file in `index_paths`) and `count` (stored members). List columns live in flat arrays beside their
    offsets. Safe to fork and to pickle: every process opens its own files. Raises ValueError with one sentence
    when a file is missing, foreign or truncated, or when two shards hold the same clip.
    """

    def __init__(self, index_paths: Sequence[str | Path]):
        self.index_paths = [Path(p) for p in index_paths]
        if not self.index_paths:
            raise ValueError("no shard index given: extract the frames first")
        self.tar_paths = [p.with_suffix(".tar") for p in self.index_paths]
        tables = [_read_index(p) for p in self.index_paths]
        fields = tables[0].schema
        lists = [f.name for f in fields if pa.types.is_list(f.type)]
        plain = [f.name for f in fields if f.name not in lists]
        for path, table in zip(self.index_paths, tables):
            if set(table.column_names) != {*plain, *lists}:
                raise ValueError(
                    f"{path}: its columns differ from those of {self.index_paths[0]}; remake the shard with this version"
                )
        self._lists = {name: _flat([t.column(name) for t in tables], name) for name in lists if name not in LAZY}
        self._lazy = [name for name in lists if name in LAZY]
        self.clips = pa.concat_tables([t.select(plain) for t in tables], promote_options="permissive").to_pandas()
        self.clips["shard"] = np.repeat(np.arange(len(tables), dtype=np.int32), [t.num_rows for t in tables])
        self.clips["count"] = np.diff(self._lists["offset"][0]).astype(np.int32)
        self._shard = self.clips["shard"].to_numpy()
        for path, tar, table in zip(self.index_paths, self.tar_paths, tables):
            _check_tar(path, tar, table)
        self._rows = {clip: row for row, clip in enumerate(self.clips["clip_id"])}
        if len(self._rows) != len(self.clips):
            twice = self.clips["clip_id"][self.clips["clip_id"].duplicated()].iloc[0]
            raise ValueError(
                f"{self.index_paths[0].parent}: clip '{twice}' stands twice in the shards; give each data set its own Shards"
            )
        self._files: dict[int, int] = {}
        self._owner = os.getpid()

    def __len__(self) -> int:
        return len(self.clips)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._rows

    def row(self, clip_id: str) -> int:
        """Row number of a clip; ValueError when no shard holds it."""
        try:
            return self._rows[clip_id]
        except KeyError:
            raise ValueError(
                f"{self.index_paths[0].parent}: no clip '{clip_id}' in the {len(self.index_paths)} shards; extract it again"
            ) from None

    def column(self, name: str, row: int) -> np.ndarray:
        """The list column `name` of one clip, as a read-only view."""
        if name not in self._lists:
            if name not in self._lazy:
                raise ValueError(
                    f"{self.index_paths[0]}: no list column '{name}'; it has {', '.join([*self._lists, *self._lazy])}"
                )
            self._lists[name] = _flat([_read_index(p, [name]).column(name) for p in self.index_paths], name)
        bounds, values = self._lists[name]
        return values[bounds[row] : bounds[row + 1]]

    def frames(self, row: int) -> np.ndarray:
        """Raw frame numbers of a clip's members, int32, ascending."""
        return self.column("frame", row)

    def read(self, row: int, k: int) -> bytes:
        """The k-th stored JPEG of a clip."""
        offsets = self.column("offset", row)
        if not -len(offsets) <= k < len(offsets):
            raise IndexError(f"clip '{self.clips['clip_id'].iat[row]}' has {len(offsets)} stored frames, asked for number {k}")
        size = int(self.column("size", row)[k])
        payload = os.pread(self._file(int(self._shard[row])), size, int(offsets[k]))
        if len(payload) != size or payload[:2] != b"\xff\xd8":
            tar = self.tar_paths[int(self._shard[row])]
            raise ValueError(f"{tar}: no JPEG at byte {offsets[k]} for clip '{self.clips['clip_id'].iat[row]}'; remake the shard")
        return payload

    def _file(self, shard: int) -> int:
        if self._owner != os.getpid():  # forked: the parent's descriptors are not ours to use or close
            self._files, self._owner = {}, os.getpid()
        if shard not in self._files:
            try:
                self._files[shard] = os.open(self.tar_paths[shard], os.O_RDONLY)
            except OSError as error:
                raise ValueError(f"{self.tar_paths[shard]}: {error.strerror.lower()}; remake the shard") from None
        return self._files[shard]

    def close(self) -> None:
        if self._owner == os.getpid():
            for handle in self._files.values():
                os.close(handle)
        self._files = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": {}}

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()


def _read_index(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        schema = pq.read_schema(path)
        wanted = columns or [n for n in schema.names if n not in LAZY]
        table = pq.read_table(path, columns=wanted, partitioning=None)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such shard index; make it first") from None
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"{path}: not a readable parquet file, remake the shard ({' '.join(str(error).split())[:120]})"
        ) from None
    missing = [c for c in REQUIRED if c not in schema.names]
    if missing:
        raise ValueError(f"{path}: not a shard index, it has no column {', '.join(missing)}")
    if columns is None:  # keep the schema of lazily read columns too
        for name in (n for n in schema.names if n in LAZY):
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
    return table.replace_schema_metadata(schema.metadata)


def _check_tar(index: Path, tar: Path, table: pa.Table) -> None:
    """The tar must be the one, whole, that the index was written for."""
    try:
        have = tar.stat().st_size
    except OSError:
        raise ValueError(f"{tar}: missing beside its index {index.name}; remake the shard") from None
    need = (table.schema.metadata or {}).get(TAR_SIZE)
    if need is not None and have != int(need):
        raise ValueError(
            f"{tar}: has {have} bytes where its index {index.name} expects {int(need)}; truncated or foreign, remake the shard"
        )
    offsets = _flat([table.column("offset")], "offset")[1]
    sizes = _flat([table.column("size")], "size")[1]
    if len(offsets) and int((offsets + sizes).max()) > have:
        raise ValueError(f"{tar}: has {have} bytes, fewer than its index {index.name} needs; it is truncated, remake the shard")


def _flat(columns: list[pa.ChunkedArray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(bounds, values): row r holds values[bounds[r]:bounds[r+1]]."""
    chunks = [c for column in columns for c in column.chunks]
    lengths = [c.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for c in chunks]
    values = [c.flatten().to_numpy(zero_copy_only=False) for c in chunks]
    if name in NARROW:
        values = [v.astype(NARROW[name]) for v in values]
    flat = np.concatenate(values) if values else np.zeros(0, np.int64)
    flat.flags.writeable = False
    return np.concatenate([[0], *lengths]).cumsum().astype(np.int64), flat


def decode_rgb(data: bytes, min_side: int = 0) -> np.ndarray:
    """Decode a JPEG to HWC uint8 RGB; ValueError when it is none.

    With `min_side` > 0 the decoder may return the image scaled down by eighths (cheaper than decoding it whole and
    resizing), but never with a side below `min_side` that the image itself does not have.
    """
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=min_side, min_width=min_side)
    except ValueError:
        return _fallback(data, cv2.IMREAD_COLOR_RGB)


def decode_gray(data: bytes) -> np.ndarray:
    """Decode a JPEG to HW uint8 luma; ValueError when it is none."""
    try:
        return simplejpeg.decode_jpeg(data, colorspace="GRAY")[:, :, 0]
    except ValueError:
        return _fallback(data, cv2.IMREAD_GRAYSCALE)


def _fallback(data: bytes, flag: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if len(data) else None
    if image is None:
        raise ValueError(f"not a decodable JPEG ({len(data)} bytes); remake the shard")
    return image
