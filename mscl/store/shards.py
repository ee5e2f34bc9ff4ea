"""Read the shard store: JPEGs in an uncompressed tar file, located by byte offsets in a parquet index beside it.

A tar file of a few thousand clips is one file for the file system and for DVC, and any tar tool can open it. One `pread` call
reads any frame, so shuffling and resuming only need row numbers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mscl.store.writer import SHARDS, TAR_SHA256, TAR_SIZE

REQUIRED = ("clip_id", "status", "frame", "offset", "size")
LAZY = ("pts",)  # list columns that are read only on demand; training never needs them
NARROW = {"size": np.int32}  # smaller dtype in memory than on disk


class Shards:
    """Random access to the clips of several shards; rows are numbered across the shards in the given order.

    `clips`: DataFrame with one row per clip, including failed ones: every scalar column of the index, `shard` (position in
    `index_paths`) and `count` (number of stored frames). `list_columns`: names of the list columns, which `column` returns.
    `tar_sha256`: sha256 of each tar file when it was written ("" if unknown). `shards`: number of shards of the whole store (0 if
    unknown). Safe to fork and to pickle: every process opens its own files. Raises ValueError with one sentence if a file is
    missing, truncated or not a shard, or if two shards hold the same clip.
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
                    f"{path}: its columns differ from those of {self.index_paths[0]}; make the shard again with this version"
                )
        self._lists = {name: _flat([t.column(name) for t in tables], name) for name in lists if name not in LAZY}
        self._lazy = [name for name in lists if name in LAZY]
        self.list_columns = lists
        self.clips = pa.concat_tables([t.select(plain) for t in tables], promote_options="permissive").to_pandas()
        self.clips["shard"] = np.repeat(np.arange(len(tables), dtype=np.int32), [t.num_rows for t in tables])
        self.clips["count"] = np.diff(self._lists["offset"][0]).astype(np.int32)
        self._shard = self.clips["shard"].to_numpy()
        for path, tar, table in zip(self.index_paths, self.tar_paths, tables):
            _check_tar(path, tar, table)
        self.shards = int((tables[0].schema.metadata or {}).get(SHARDS, 0))
        self.tar_sha256 = [(t.schema.metadata or {}).get(TAR_SHA256, b"").decode() for t in tables]
        self._rows = {clip: row for row, clip in enumerate(self.clips["clip_id"])}
        if len(self._rows) != len(self.clips):
            twice = self.clips["clip_id"][self.clips["clip_id"].duplicated()].iloc[0]
            raise ValueError(
                f"{self.index_paths[0].parent}: clip '{twice}' is in the shards twice; use one Shards object per data set"
            )
        self._files: dict[int, int] = {}
        self._owner = os.getpid()

    def __len__(self) -> int:
        return len(self.clips)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._rows

    def row(self, clip_id: str) -> int:
        """Row number of a clip. Raises ValueError if no shard holds it."""
        try:
            return self._rows[clip_id]
        except KeyError:
            raise ValueError(
                f"{self.index_paths[0].parent}: no clip '{clip_id}' in the {len(self.index_paths)} shards; extract it again"
            ) from None

    def column(self, name: str, row: int) -> np.ndarray:
        """The list column `name` of one clip, as a read-only 1-D array (view). Raises ValueError for an unknown column."""
        if name not in self._lists:
            if name not in self._lazy:
                raise ValueError(
                    f"{self.index_paths[0]}: no list column '{name}'; it has {', '.join([*self._lists, *self._lazy])}"
                )
            self._lists[name] = _flat([_read_index(p, [name]).column(name) for p in self.index_paths], name)
        bounds, values = self._lists[name]
        return values[bounds[row] : bounds[row + 1]]

    def frames(self, row: int) -> np.ndarray:
        """Raw frame numbers of a clip's stored frames, (count,) int32, ascending."""
        return self.column("frame", row)

    def read(self, row: int, k: int) -> bytes:
        """The k-th stored JPEG of a clip, as bytes.

        Raises IndexError if the clip has fewer frames, and ValueError if there is no JPEG at its position in the tar file.
        """
        offsets = self.column("offset", row)
        if not -len(offsets) <= k < len(offsets):
            raise IndexError(f"clip '{self.clips['clip_id'].iat[row]}' has {len(offsets)} stored frames; there is no frame {k}")
        size = int(self.column("size", row)[k])
        payload = os.pread(self._file(int(self._shard[row])), size, int(offsets[k]))
        if len(payload) != size or payload[:2] != b"\xff\xd8":
            tar = self.tar_paths[int(self._shard[row])]
            raise ValueError(
                f"{tar}: no JPEG at byte {offsets[k]} for clip '{self.clips['clip_id'].iat[row]}'; make the shard again"
            )
        return payload

    def _file(self, shard: int) -> int:
        if self._owner != os.getpid():  # in a forked process: the file descriptors belong to the parent
            self._files, self._owner = {}, os.getpid()
        if shard not in self._files:
            try:
                self._files[shard] = os.open(self.tar_paths[shard], os.O_RDONLY)
            except OSError as error:
                raise ValueError(f"{self.tar_paths[shard]}: {error.strerror.lower()}; make the shard again") from None
        return self._files[shard]

    def close(self) -> None:
        """Close the files of this process."""
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
            f"{path}: not a readable parquet file, make the shard again ({' '.join(str(error).split())[:120]})"
        ) from None
    missing = [c for c in REQUIRED if c not in schema.names]
    if missing:
        raise ValueError(f"{path}: not a shard index (no column {', '.join(missing)})")
    if columns is None:  # keep the lazily read columns in the schema
        for name in (n for n in schema.names if n in LAZY):
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
    return table.replace_schema_metadata(schema.metadata)


def _check_tar(index: Path, tar: Path, table: pa.Table) -> None:
    """Raise ValueError unless `tar` is complete and is the file that the index was written for."""
    try:
        have = tar.stat().st_size
    except OSError:
        raise ValueError(f"{tar}: missing beside its index {index.name}; make the shard again") from None
    need = (table.schema.metadata or {}).get(TAR_SIZE)
    if need is not None and have != int(need):
        raise ValueError(f"{tar}: has {have} bytes, its index {index.name} expects {int(need)}; make the shard again")
    offsets = _flat([table.column("offset")], "offset")[1]
    sizes = _flat([table.column("size")], "size")[1]
    if len(offsets) and int((offsets + sizes).max()) > have:
        raise ValueError(
            f"{tar}: has {have} bytes, fewer than its index {index.name} needs; it is truncated, make the shard again"
        )


def _flat(columns: list[pa.ChunkedArray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(bounds, values) of a list column: row r holds values[bounds[r]:bounds[r+1]]."""
    chunks = [c for column in columns for c in column.chunks]
    lengths = [c.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for c in chunks]
    values = [c.flatten().to_numpy(zero_copy_only=False) for c in chunks]
    if name in NARROW:
        values = [v.astype(NARROW[name]) for v in values]
    flat = np.concatenate(values) if values else np.zeros(0, np.int64)
    flat.flags.writeable = False
    return np.concatenate([[0], *lengths]).cumsum().astype(np.int64), flat
