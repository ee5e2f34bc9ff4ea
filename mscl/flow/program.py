"""Optical flow by a program of your own, such as a network in an environment of its own; docs/flow-programs.md is its contract.

The program is started once per job. It reads lines from its input, each the path of a CSV of pairs of pictures, writes their fields,
and answers each line by printing it.
"""

from __future__ import annotations

import contextlib
import csv
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
import zipfile
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from mscl.config.settings import FlowConfig
from mscl.flow.grid import Pairs, resize

ANSWER = 600.0  # seconds to wait for the answer to a line; the first one includes the loading of weights
MAGIC = b"PIEH"  # of a .flo file: the float32 202021.25


class ProgramFailed(ValueError):
    """The program does not work: never to be taken for a property of a video."""


class Program:
    """An estimator (see `mscl.flow.estimate`) that asks `flow.command`, one clip at a time."""

    grey = False

    def __init__(self, flow: FlowConfig, device: str):
        self.flow, self.name = flow, Path(flow.command[0]).name
        if shutil.which(flow.command[0]) is None:
            raise ProgramFailed(f"flow.command: no program {flow.command[0]}; install it or correct the path")
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        self._process = subprocess.Popen(
            flow.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | hidden,  # an answer that waits in a buffer never arrives
        )
        self._printed: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_listen, args=(self._process.stdout, self._printed), daemon=True).start()
        weakref.finalize(self, _end, self._process)
        self._lock = threading.Lock()

    def __call__(self, frames_THWC: np.ndarray, pairs: Pairs) -> list[np.ndarray]:
        with tempfile.TemporaryDirectory(prefix="mscl-flow-") as folder:
            pictures = {k: os.path.join(folder, f"{k:04d}.png") for k in sorted({k for pair in pairs for k in pair})}
            for k, path in pictures.items():
                picture = cv2.cvtColor(resize(frames_THWC[k], self.flow.size), cv2.COLOR_RGB2BGR)
                if not cv2.imwrite(path, picture, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                    raise OSError(f"{path}: cannot be written; is the disk full?")
            fields = [os.path.join(folder, f"field{n:04d}") for n in range(len(pairs))]
            asked = os.path.join(folder, "pairs.csv")
            with open(asked, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([pictures[i], pictures[j], field] for (i, j), field in zip(pairs, fields))
            with self._lock:
                self._ask(asked)
            return [self._field(field) for field in fields]

    def _ask(self, line: str) -> None:
        """Send a line and wait until the program prints it; whatever else it prints goes to the log."""
        with contextlib.suppress(OSError):  # it has ended, which is noticed below
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        while True:
            try:
                printed = self._printed.get(timeout=ANSWER)
            except queue.Empty:
                raise ProgramFailed(
                    f"flow.command: {self.name} has not answered for {ANSWER:.0f} s; it must print the line that it was given once the fields"
                    " are written"
                ) from None
            if printed is None:
                self._printed.put(None)  # for other threads
                raise ProgramFailed(f"flow.command: {self.name} {_ending(self._process)}; what it printed is above")
            if printed == line:
                return
            print(printed, file=sys.stderr)

    def _field(self, stem: str) -> np.ndarray:
        """The field of (H, W, 2) float32 that was written; its values are checked when it is stored."""
        written = next((path for path in (Path(f"{stem}.flo"), Path(f"{stem}.npz")) if path.is_file()), None)
        if written is None:
            raise ProgramFailed(
                f"flow.command: {self.name} answered but wrote no field: neither {stem}.flo nor {stem}.npz is there"
            )
        try:
            field = read_flo(written) if written.suffix == ".flo" else _read_npz(written)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            why = " ".join(str(error).split())[:120]
            raise ProgramFailed(f"flow.command: {self.name} wrote a file that is no field, {written.name} ({why})") from None
        if field.shape != (*self.flow.size, 2):
            raise ProgramFailed(
                f"flow.command: {self.name} wrote a field of shape {field.shape}, but the pictures need ({self.flow.size[0]}, {self.flow.size[1]}, 2)"
            )
        return field


def read_flo(path: Path) -> np.ndarray:
    """A field in Middlebury's format, (H, W, 2) float32. Raises ValueError when it is none."""
    data = path.read_bytes()
    if data[:4] != MAGIC or len(data) < 12:
        raise ValueError("not a .flo file")
    width, height = np.frombuffer(data, "<i4", 2, 4).tolist()
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise ValueError(f"{len(data)} bytes are not a field of {width} x {height}")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def _read_npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays["flow"], np.float32)


def _listen(output: IO[str], printed: queue.Queue[str | None]) -> None:
    with contextlib.suppress(ValueError):  # closed at the end
        for line in output:
            printed.put(line.rstrip("\n"))
    printed.put(None)


def _ending(process: subprocess.Popen) -> str:
    try:
        code = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return "has closed its output before it answered"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code} before it answered"


def _end(process: subprocess.Popen) -> None:
    """Close the program's input, which tells it to end; kill it if it does not."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
