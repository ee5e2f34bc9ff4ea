"""A sequence of byte strings on disk, so that the images of a long video need not fit in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, overload

CHUNK = 1 << 20  # bytes read at a time


class Spool(Sequence[bytes]):
    """Byte strings in an unnamed temporary file, which vanishes with the object or the process.

    `folder`: where the file lies, best on the disk of the result; by default the temporary folder of the system. May be read by
    several threads. Raises OSError if the disk is full.
    """

    def __init__(self, folder: str | Path | None = None):
        self.file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._spans: list[tuple[int, int]] = []  # (offset, size), bytes

    def append(self, data: bytes) -> None:
        """Add one byte string."""
        self._spans.append((self.file.tell(), len(data)))
        self.file.write(data)

    def adopt(self, spans: list[tuple[int, int]]) -> None:
        """Take these (offset, size) of what another process has written to `file` as the content."""
        self._spans = spans

    def cut(self, count: int) -> None:
        """Keep only the first `count`."""
        del self._spans[count:]

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[k] for k in range(len(self))[at]]
        offset, size = self._spans[at]
        self.file.flush()
        return os.pread(self.file.fileno(), size, offset)

    def close(self) -> None:
        """Delete the file."""
        self.file.close()
