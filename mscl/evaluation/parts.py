"""Features that are done, in files beside the output: what an interrupted command need not compute again."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from mscl.machine.files import remove_leftovers
from mscl.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

SECONDS = 60.0  # between two parts
BACKLOG = 16  # batches that are left on the GPU, so that the loop need not wait for each


class Parts:
    """Files `<first row>.part` in a folder, each whole or absent, of consecutive rows: features, whether they are any, reasons.

    Parts of another `identity` (weights, options, videos, code) are not used.
    """

    def __init__(self, folder: Path, identity: dict[str, str]):
        self.folder, self.identity = folder, identity
        self.features: list[Tensor] = []
        self.ok: list[bool] = []
        self.reasons: list[str] = []
        self._new: list[Tensor] = []
        self._saved, self._at = 0, time.monotonic()

    def load(self) -> int:
        """Take what an earlier attempt finished; returns the number of rows."""
        remove_leftovers(self.folder)
        while (path := self._path(len(self.ok))).exists():
            try:
                state = load_checkpoint(path, self.identity)
            except CheckpointError as error:
                print(f"not used, these videos are looked at again: {error}", file=sys.stderr)
                break
            self.features.append(state["features"])
            self.ok += state["ok"]
            self.reasons += state["reasons"]
        self._saved = len(self.ok)
        return self._saved

    def add(self, features: Tensor, ok: list[bool], reasons: list[str]) -> None:
        """Rows of one batch; on a GPU they may still be under way, at most `BACKLOG` batches at a time."""
        self._new.append(features)
        if len(self._new) >= BACKLOG:
            self._settle()
        self.ok += ok
        self.reasons += reasons

    def due(self) -> bool:
        return time.monotonic() - self._at > SECONDS

    def save(self) -> None:
        """Write the rows that are not yet in a file."""
        self._at = time.monotonic()
        if self._new:
            self._settle()
            state = {"features": self._new[0], "ok": self.ok[self._saved :], "reasons": self.reasons[self._saved :]}
            save_checkpoint(self._path(self._saved), state, self.identity, keep_previous=False)
            self.features += self._new
            self._new, self._saved = [], len(self.ok)

    def rows(self) -> Tensor:
        """The features of all rows, in order."""
        return torch.cat([*self.features, *(each.cpu() for each in self._new)])

    def _settle(self) -> None:
        self._new = [torch.cat([each.cpu() for each in self._new])]

    def done(self) -> None:
        """The output is written."""
        for path in self.folder.glob("*.part") if self.folder.is_dir() else ():
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, row: int) -> Path:
        return self.folder / f"{row:09d}.part"
