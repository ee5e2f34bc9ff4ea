"""Batches from loader processes: they leave signals to the first process, and their errors keep their own sentence."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.util import get_temp_dir
from pathlib import Path

from torch.utils.data import DataLoader, Dataset, default_collate

from mscl.machine.errors import sentence

SHARED_MEMORY = Path("/dev/shm")  # where loader processes leave their batches
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
LONGEST_FOLDER = 70  # bytes: a socket's path may have 107, and its folder and name below the temporary folder have 32
TOO_SMALL = ("shared memory", "Bus error", "No space left on device")  # what torch says when that is full


@contextlib.contextmanager
def loading(dataset: Dataset, batches: list[list[int]], workers: int, pin: bool = False) -> Iterator[Iterator[dict]]:
    """`with loading(...) as loader:` the samples of each list of indices, as a batch of tensors, by `workers` processes (0: this one).

    Raises ValueError, in the body, with the sentence of the sample that failed, or naming `compute.workers` where the machine has
    too little memory for so many processes.
    """
    if not workers:
        yield iter(DataLoader(dataset, batch_sampler=batches, pin_memory=pin))
        return
    _place_sockets()
    processes = None
    try:
        told = Told(dataset)
        processes = iter(
            DataLoader(
                told,
                batch_sampler=batches,
                num_workers=workers,
                pin_memory=pin,
                collate_fn=_collate,
                worker_init_fn=_begin_worker,
            )
        )
        yield _checked(processes)
    except (RuntimeError, OSError) as error:  # torch tells of a dead process wherever the first process stands
        if (said := _lacking(error, workers)) is None:
            raise
        raise ValueError(said) from None
    finally:
        if processes is not None:
            processes._shutdown_workers()  # they may have missed a SIGTERM, see `_begin_worker`


def _place_sockets() -> None:
    """Let loader processes hand over tensors where TMPDIR is too long for a socket's path: they would wait for ever.

    Raises ValueError if no short folder can be written.
    """
    before = tempfile.gettempdir()
    if len(os.fsencode(before)) <= LONGEST_FOLDER:
        return
    short = next((folder for folder in SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK)), None)
    if short is None:
        raise ValueError(
            f"TMPDIR: {before} is too long for the sockets of loader processes; set a shorter one, or compute.workers: 0"
        )
    tempfile.tempdir = short
    try:
        get_temp_dir()  # multiprocessing keeps the folder that it makes here
    finally:
        tempfile.tempdir = before


@dataclass(frozen=True)
class Failure:
    """What a sample that could not be loaded is replaced by, on the way from a loader process."""

    said: str
    trace: str


class Told(Dataset):
    """A data set whose samples that fail by a mistake which mscl found are a `Failure`; other errors are raised."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, i: int) -> dict | Failure:
        try:
            return self.dataset[i]
        except Exception as error:
            if (said := sentence(error)) is None:
                raise
            return Failure(said, traceback.format_exc())


def _collate(samples: list[dict | Failure]) -> dict | Failure:
    return next((s for s in samples if isinstance(s, Failure)), None) or default_collate(samples)


def _checked(batches: Iterable[dict | Failure]) -> Iterator[dict]:
    for batch in batches:
        if isinstance(batch, Failure):
            error = ValueError(batch.said)
            error.add_note(f"in a loader process:\n{batch.trace}")  # shown where MSCL_TRACE is set
            raise error
        yield batch


def _begin_worker(_number: int) -> None:
    """A terminal and a cluster tell all processes of a job to stop; the first one does, and ends the loaders when it has saved."""
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _lacking(error: Exception, workers: int) -> str | None:
    """What to tell when loader processes lack memory; None for another error."""
    text = f"{error} {error.__cause__}"  # the cause is what the system told of a dead process
    if isinstance(error, RuntimeError) and "killed by signal: Killed" in text:
        return f"compute.workers: the system killed one of {workers} loader processes, mostly for lack of memory; lower compute.workers"
    if isinstance(error, OSError) and error.filename or not any(words in text for words in TOO_SMALL):
        return None
    size = f"{shutil.disk_usage(SHARED_MEMORY).total / 2**20:,.0f} MiB" if SHARED_MEMORY.is_dir() else "nothing"
    return (
        f"compute.workers: {workers} loader processes need more shared memory than {SHARED_MEMORY} has ({size}); "
        "lower compute.workers, or enlarge it (docker run --shm-size=8g)"
    )
