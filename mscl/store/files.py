"""Read parts of many files with a bounded number of open ones: a process may have fewer descriptors than a store has shards."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST = 2048  # open files at a time; more would save nothing


def allowed() -> int:
    """Raise the process's limit on open files as far as it may, and return how many of them the store may use: a quarter."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = 4 * MOST if hard == resource.RLIM_INFINITY else min(hard, 4 * MOST)
    if soft != resource.RLIM_INFINITY and soft < want:
        with contextlib.suppress(ValueError, OSError):  # a system may refuse; then the soft limit holds
            resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))
            soft = want
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft // 4))


@dataclass
class _Open:
    descriptor: int
    users: int = 0
    dropped: bool = False  # to be closed by its last user


class OpenFiles:
    """Files that stay open until others need their place, the least recently read first. Safe in threads.

    A forked process starts with none: the descriptors of its parent are closed in it.
    """

    def __init__(self, limit: int | None = None):
        """`limit`: number of open files; None: `allowed()` at the first read."""
        self.limit = limit
        self._start()
        os.register_at_fork(after_in_child=self._forget)

    def _start(self) -> None:
        self._lock, self._open = threading.Lock(), OrderedDict[Hashable, _Open]()

    def _forget(self) -> None:
        """In a forked child, which has one thread; the lock may be held by a thread that is not there."""
        for file in self._open.values():
            os.close(file.descriptor)
        self._start()

    def read(self, key: Hashable, path: Path, size: int, offset: int) -> bytes:
        """`size` bytes at `offset` of the file `path`, which is opened under `key`; fewer at its end. Raises OSError."""
        with self._borrowed(key, path) as descriptor:
            return os.pread(descriptor, size, offset)

    @contextlib.contextmanager
    def _borrowed(self, key: Hashable, path: Path) -> Iterator[int]:
        with self._lock:
            file = self._open.get(key) or self._new(key, path)
            self._open.move_to_end(key)
            file.users += 1
        try:
            yield file.descriptor
        finally:
            with self._lock:
                file.users -= 1
                if file.dropped and not file.users:
                    os.close(file.descriptor)

    def _new(self, key: Hashable, path: Path) -> _Open:
        self.limit = self.limit or allowed()
        while len(self._open) >= self.limit:
            self._drop(next(iter(self._open)))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EMFILE or not self._open:
                raise
            for old in list(self._open):  # others in this process need descriptors, too
                self._drop(old)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open[key] = _Open(descriptor)
        return self._open[key]

    def _drop(self, key: Hashable) -> None:
        file = self._open.pop(key)
        file.dropped = True
        if not file.users:
            os.close(file.descriptor)

    def close(self, keys: list[Hashable]) -> None:
        """Close these files, if they are open."""
        with self._lock:
            for key in keys:
                if key in self._open:
                    self._drop(key)

    def __len__(self) -> int:
        return len(self._open)


OPEN = OpenFiles()  # of this process: all stores share the limit
