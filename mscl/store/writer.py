"""Write one shard: a tar file and a journal, so that a killed job can resume.

    .0007.tar.part     the members, in the order of the clips
    .0007.tar.journal  one line per clip whose members are safely on disk: its index row, and the end of its members in the tar

The first line of the journal is the key: a hash of everything that the shard is made from. A part with another key is deleted.
`commit` converts the journal to the parquet index and renames both files; before that, no file has its final name. The rows are
kept in the journal, so memory use does not grow with the shard.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import sys
import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mscl.config.validation import Strict
from mscl.machine.files import sha256, sync
from mscl.stages.jobs import dumps

TAR_SIZE = b"mscl.tar_size"  # keys of the parquet metadata: size in bytes and sha256 of the tar file
TAR_SHA256 = b"mscl.tar_sha256"
SHARDS = b"mscl.shards"  # number of shards of the store; 0 if unknown
NAME = b"mscl.name"  # <data set>/<shard>, as in the path of the index: a copy under another name is found by it
MEMBERS = {  # columns of every index that the writer itself fills, one value per member
    "offset": pa.list_(pa.int64()),  # positions of the JPEGs in the tar file, bytes
    "size": pa.list_(pa.int64()),  # sizes of the JPEGs, bytes
    "crc": pa.list_(pa.uint32()),  # CRC-32 of the JPEGs (zlib), checked at every read
}
SYNC = float(
    os.environ.get("MSCL_SYNC_SECONDS", 5)
)  # seconds between writes to disk: a kill loses at most this work and the current clips
ROWS = 64  # number of index rows in memory while the index is written


def part_key(job: Strict, code: str, inputs: object) -> str:
    """Hash of everything that a shard is made from; a part with another key is not resumed."""
    return hashlib.sha256(f"{dumps(job)} {code} {json.dumps(inputs)}".encode()).hexdigest()


class ShardWriter:
    """`with ShardWriter(...) as writer:` add the clips from number `writer.done` on, in a fixed order, then commit.

    Members have no time, owner or other machine-dependent metadata, so the same payloads give the same bytes, also after a
    resume. Leaving the block without a commit keeps the part for the next attempt. Raises ValueError if another process is
    writing the same shard.
    """

    def __init__(self, tar_path: str | Path, index_path: str | Path, schema: pa.Schema, key: str, shards: int = 0):
        """`schema`: the columns of the rows and MEMBERS; without `offset` the images are counted and checked, but not stored. Its
        metadata go into the index. `key`: see `part_key`; `shards`: number of shards of the whole store, 0 if unknown.
        """
        self.path, self.index_path, self.schema, self.shards = Path(tar_path), Path(index_path), schema, shards
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._journal_path = self.path.with_name(f".{self.path.name}.journal")
        self._journal = open(self._journal_path, "a+b")  # noqa: SIM115
        _lock(self._journal, self.path)
        self.done, end = _valid_rows(self._journal, key, self._part)
        if self.done:
            print(f"{self.path}: resuming after {self.done} clips of an earlier attempt", file=sys.stderr)
        else:
            self._journal.truncate(0)
            self._journal.write(_line({"key": key}))
            _flush(self._journal)
        self._file = open(self._part, "r+b" if end else "wb")  # noqa: SIM115
        self._file.truncate(end)
        self._file.seek(end)
        self._tar = tarfile.open(
            fileobj=self._file, mode="w", format=tarfile.GNU_FORMAT
        )  # continues at the current position of the file
        self._unsaved: list[bytes] = []
        self._synced = time.monotonic()

    def add(self, row: dict, payloads: Iterable[bytes]) -> None:
        """Append one clip: its index row (without MEMBERS), and one member `<clip_id>/<frame>.jpg` per frame.

        Raises ValueError if `row["frame"]` and `payloads` differ in length.
        """
        stored, offsets, sizes, crcs = "offset" in self.schema.names, [], [], []
        for frame, payload in zip(row["frame"], payloads, strict=True):
            if stored:
                offsets.append(self._store(f"{row['clip_id']}/{int(frame):06d}.jpg", payload))
            sizes.append(len(payload))
            crcs.append(zlib.crc32(payload))
        members = {"offset": offsets, "size": sizes, "crc": crcs}
        self._unsaved.append(_line(row | members | {"tar_end": self._tar.offset, "number": self.done}))
        self.done += 1
        if time.monotonic() - self._synced > SYNC:
            self._sync()

    def _store(self, name: str, payload: bytes) -> int:
        """Append a member to the tar; the offset of its bytes."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(payload), 0o644  # mtime, uid, gid and names stay 0 and ""
        self._tar.addfile(member, io.BytesIO(payload))
        return self._tar.offset - -(-len(payload) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    def _sync(self) -> None:
        """Write the members first, then their journal lines, so that the journal never lists missing members."""
        _flush(self._file)
        lines, self._unsaved = self._unsaved, []  # cleared first: an interrupted write must not be repeated
        self._journal.write(b"".join(lines))
        _flush(self._journal)
        self._synced = time.monotonic()

    def commit(self, clips: int) -> None:
        """Write the index and rename both files. Raises ValueError unless `clips` clips were added."""
        if self.done != clips:
            raise ValueError(f"{self.path}: {self.done} clips were written, expected {clips}; delete {self._part} and try again")
        self._tar.close()
        self._sync()
        self._file.close()
        metadata = {TAR_SIZE: str(self._part.stat().st_size), TAR_SHA256: sha256(self._part), SHARDS: str(self.shards)}
        metadata[NAME] = f"{self.index_path.resolve().parent.name}/{self.index_path.stem}"
        draft = self.index_path.with_name(f".{self.index_path.name}.tmp")
        schema = self.schema.with_metadata((self.schema.metadata or {}) | metadata)
        with pq.ParquetWriter(draft, schema, compression="zstd", write_page_checksum=True) as index:
            for rows in _batches(self._journal, ROWS):
                index.write_table(pa.Table.from_pylist(rows, schema))
        sync(draft)
        self.index_path.unlink(missing_ok=True)  # an old index must never exist beside a new tar file
        os.replace(self._part, self.path)
        os.replace(draft, self.index_path)
        sync(self.path.parent)
        self._journal_path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        lost = isinstance(kind, type) and issubclass(kind, OSError)  # full or broken disk: keep what is already on disk
        with contextlib.suppress(OSError) if lost else contextlib.nullcontext():
            if not self._file.closed and not lost:
                self._sync()
        for file in (self._file, self._journal):
            with contextlib.suppress(OSError) if lost else contextlib.nullcontext():
                file.close()


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise ValueError(f"{path}: another process is writing this shard; wait for it or stop it") from None
        # Some network file systems have no locks; then only Snakemake's lock on the working directory protects the shard.


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _line(value: dict) -> bytes:
    plain = {k: v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v for k, v in value.items()}
    return json.dumps(plain).encode() + b"\n"


def _valid_rows(journal: BinaryIO, key: str, part: Path) -> tuple[int, int]:
    """(clips, tar size in bytes) of an earlier attempt with the same key; the journal is truncated to its valid lines."""
    journal.seek(0)
    if journal.readline() != _line({"key": key}) or not part.exists():
        return 0, 0
    have, rows, end, good = part.stat().st_size, 0, 0, journal.tell()
    for line in journal:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            break
        if not line.endswith(b"\n") or row["tar_end"] > have or row["number"] != rows:
            break
        rows, end, good = rows + 1, row["tar_end"], good + len(line)
    journal.truncate(good)
    return rows, end


def _batches(journal: BinaryIO, size: int) -> Iterator[list[dict]]:
    journal.seek(0)
    journal.readline()
    rows = []
    for line in journal:
        row = json.loads(line)
        del row["tar_end"], row["number"]
        rows.append(row)
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows
