"""Read the shard store: JPEGs in an uncompressed tar file, located by byte offsets in a parquet index beside it.

A tar file of a few thousand clips is one file for the file system and for DVC, and any tar tool can open it. One `pread` call
reads any frame, so shuffling and resuming only need row numbers.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mscl.store import videos
from mscl.store.files import OPEN
from mscl.store.index import LAZY, Damaged, again, check_index, flat, read_index
from mscl.store.writer import NAME, SHARDS, TAR_SHA256

_NUMBERS = itertools.count()  # tell the open files of one object from those of another


class Shards:
    """Random access to the clips of several shards; rows are numbered across the shards in the given order.

    `clips`: DataFrame with one row per clip, including failed ones: every scalar column of the index, `shard` (position in
    `index_paths`) and `count` (number of kept frames). `list_columns`: names of the list columns, which `column` returns.
    `decoded`: whether the images are not stored, but decoded from their video at each use (`mscl.store.videos`). `tar_sha256`: sha256 of each tar file when it was written ("" if unknown). `shards`: number of shards of the whole store (0 if
    unknown). Safe in threads, to fork and to pickle: every process opens its own files, a bounded number at a time. Raises
    ValueError with one sentence if a file is missing, truncated or not a shard, if an index has impossible values, or if two
    shards hold the same clip or are of different data sets (Damaged if the shard must be made again).
    """

    def __init__(self, index_paths: Sequence[str | Path]):
        self.index_paths = [Path(p) for p in index_paths]
        if not self.index_paths:
            raise ValueError("no shard index given: extract the frames first")
        self.tar_paths = [p.with_suffix(".tar") for p in self.index_paths]
        tables = [read_index(p) for p in self.index_paths]
        fields = tables[0].schema
        lists = [f.name for f in fields if pa.types.is_list(f.type)]
        plain = [f.name for f in fields if f.name not in lists]
        for path, tar, table in zip(self.index_paths, self.tar_paths, tables):
            check_index(path, tar, table)
            if set(table.column_names) != {*plain, *lists}:
                raise Damaged(f"{path}: its columns differ from those of {self.index_paths[0]}; {again(path)}")
        self._lists = {name: flat([t.column(name) for t in tables], name) for name in lists if name not in LAZY}
        self._lazy = [name for name in lists if name in LAZY]
        self.list_columns = lists
        self.clips = pa.concat_tables([t.select(plain) for t in tables], promote_options="permissive").to_pandas()
        self.clips["shard"] = np.repeat(np.arange(len(tables), dtype=np.int32), [t.num_rows for t in tables])
        self.clips["count"] = np.diff(self._lists["frame"][0]).astype(np.int32)
        self._shard = self.clips["shard"].to_numpy()
        self.shards = int((tables[0].schema.metadata or {}).get(SHARDS, 0))
        self.tar_sha256 = [(t.schema.metadata or {}).get(TAR_SHA256, b"").decode() for t in tables]
        self._how = [videos.settings_of(t.schema.metadata) for t in tables]
        self._made_by = [(t.schema.metadata or {}).get(videos.FFMPEG, b"").decode() for t in tables]
        self.decoded = self._how[0] is not None
        self._rows = {clip: row for row, clip in enumerate(self.clips["clip_id"])}
        if len(self._rows) != len(self.clips):
            twice = self.clips["clip_id"][self.clips["clip_id"].duplicated()].iloc[0]
            raise ValueError(
                f"{self.index_paths[0].parent}: clip '{twice}' is in the shards twice; use one Shards object per data set"
            )
        self._one_data_set(tables)
        self._number = next(_NUMBERS)

    def _one_data_set(self, tables: list[pa.Table]) -> None:
        names = [(t.schema.metadata or {}).get(NAME, b"").decode().rpartition("/")[0] for t in tables]
        for path, name in zip(self.index_paths, names):
            if name != names[0]:
                raise Damaged(f"{path}: is of data set '{name}', {self.index_paths[0].name} is of '{names[0]}'; {again(path)}")

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
            found = flat([read_index(p, [name]).column(name) for p in self.index_paths], name)
            if not np.array_equal(found[0], self._lists["frame"][0]):
                wrong = int(np.flatnonzero(np.diff(found[0]) != self.clips["count"])[0])
                path = self.index_paths[int(self._shard[wrong])]
                clip = f"clip '{self.clips['clip_id'].iat[wrong]}'"
                raise Damaged(f"{path}: {clip}: column {name} does not have one value per frame; {again(path)}")
            self._lists[name] = found
        bounds, values = self._lists[name]
        return values[bounds[row] : bounds[row + 1]]

    def frames(self, row: int) -> np.ndarray:
        """Raw frame numbers of a clip's kept frames, (count,) int32, ascending."""
        return self.column("frame", row)

    def ready(self, clips: Iterable[str]) -> None:
        """Raise Damaged if a video of these clips is missing or has another size: where images are decoded, before hours of work.

        Raises ValueError if no ffmpeg works. Where images are stored, nothing is needed.
        """
        if not self.decoded:
            return
        videos.check_decoder()
        if wrong := list(self.absent(clips)):
            more = f" (and {len(wrong) - 1:,} more videos of {self.index_paths[0].parent})" if len(wrong) > 1 else ""
            raise Damaged(wrong[0][1] + more)

    def absent(self, clips: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(path, sentence) of each video of these clips that is missing or has another size, where images are decoded."""
        rows = [self.row(clip) for clip in clips if self.decoded]
        for clip in self.clips.iloc[rows].to_dict("records"):
            if clip["status"] == "ok" and (why := videos.absent(clip)):
                yield clip["path"], why

    def read(self, row: int, k: int) -> bytes:
        """The k-th kept JPEG of a clip, as bytes.

        Raises IndexError if the clip has fewer frames, and Damaged if the tar file cannot be read or its bytes are not those that
        were written, or if the video from which it is decoded is not there or has other images than listed.
        """
        count = len(self.frames(row))
        if not -count <= k < count:
            raise IndexError(f"clip '{self.clips['clip_id'].iat[row]}' has {count} kept frames; there is no frame {k}")
        if not self.decoded:
            return self._from_tar(row, k)
        k %= count
        return (videos.held((self._number, row), [k]) or self._decode(row))[k]

    def will_read(self, row: int, positions: Iterable[int]) -> None:
        """Tell which frames of a clip are read next: where images are decoded, its video is decoded once, for these alone.

        It only saves time: a frame that was not told of is decoded with all others. Raises as `read`.
        """
        if self.decoded and not videos.held((self._number, row), wanted := sorted({int(k) for k in positions})):
            self._decode(row, wanted)

    def _decode(self, row: int, wanted: list[int] | None = None) -> videos.Held:
        shard, clip = int(self._shard[row]), self.clips.iloc[row].to_dict()
        how = self.column("crc", row), self._how[shard], self._made_by[shard]
        try:
            return videos.hold((self._number, row), wanted, lambda: videos.images(clip, *how, wanted))
        except ValueError as error:
            raise Damaged(str(error)) from None

    def _from_tar(self, row: int, k: int) -> bytes:
        offsets = self.column("offset", row)
        size, shard = int(self.column("size", row)[k]), int(self._shard[row])
        tar = self.tar_paths[shard]
        try:
            payload = OPEN.read((self._number, shard), tar, size, int(offsets[k]))
        except FileNotFoundError:
            raise Damaged(f"{tar}: missing; {again(tar)}") from None
        except OSError as error:
            what = (error.strerror or str(error)).lower()
            raise Damaged(f"{tar}: cannot be read ({what}); check the disk, its permissions and ulimit -n") from None
        if zlib.crc32(payload) != self.column("crc", row)[k]:
            raise self._damaged(row, k, f"the bytes at {offsets[k]} are not those that were written (crc)")
        return payload

    def image(self, row: int, k: int, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """The k-th kept JPEG of a clip as `decode` (see `mscl.store.jpeg`) returns it. Raises Damaged also if it cannot be decoded."""
        data = self.read(row, k)
        try:
            return decode(data)
        except ValueError as error:
            raise self._damaged(row, k, str(error)) from None

    def _damaged(self, row: int, k: int, what: str) -> Damaged:
        tar = self.tar_paths[int(self._shard[row])]
        return Damaged(f"{tar}: clip '{self.clips['clip_id'].iat[row]}', frame {self.frames(row)[k]}: {what}; {again(tar)}")

    def close(self) -> None:
        """Close the files of this process, and forget the video that this thread holds."""
        videos.drop(self._number)
        OPEN.close([(self._number, shard) for shard in range(len(self.tar_paths))])

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_number"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _number=next(_NUMBERS))

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            self.close()
