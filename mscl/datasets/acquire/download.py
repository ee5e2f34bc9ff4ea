"""Downloads a data set: its annotation files, and its archives, unpacked one folder each.

Everything that is finished leaves a trace (the file itself; a receipt `<root>/.download/<archive>.json`), so that the
same command goes on where a stopped one was, and does nothing where nothing is left to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from mscl.datasets.acquire.fetch import PATIENCE, Patience, fetch
from mscl.datasets.acquire.sources import File, listed, table, wanted
from mscl.datasets.acquire.unpack import Damaged, absent, unpacked
from mscl.machine.files import write_json
from mscl.stages.jobs import DownloadJob

HOME = ".download"  # below the root: archives, their parts and receipts


def download(job: DownloadJob, out: Path, workers: int = 4, patience: Patience = PATIENCE) -> None:
    """Fetch what `job` needs below its root, `workers` files at a time, and write `out`: every file with url, bytes, sha256.

    One that fails does not stop the others. Raises ValueError with one sentence for each that failed; `out` is not
    written then.
    """
    home = job.root / HOME
    stop = threading.Event()
    with _alone(home):
        rows = wanted(job.download, job.splits)
        _no_strangers(job)
        say = {"patience": patience, "stop": stop}
        plain = [row for row in rows if row.kind != "archive"]
        done, failed = _each(plain, lambda row: _file(row, job.root, **say), workers, stop)
        archives = [row for row in rows if row.kind == "archive"]
        for row in plain:
            if row.kind == "list" and row.path in done:
                try:
                    archives += listed(row, (job.root / row.path).read_text(errors="replace"), job.download)
                except ValueError as error:
                    failed.append(f"{job.root}: {error}")
        keep = job.download.keep_archives
        more, wrong = _each(archives, lambda row: _archive(row, job.root, keep, **say), workers, stop)
    if failed + wrong:
        raise ValueError("\n".join(failed + wrong))
    write_json(out, {"name": job.name, "source": job.download.source, "files": [*done.values(), *more.values()]})


def _no_strangers(job: DownloadJob) -> None:
    """Raise ValueError where the folder of the archives' folders holds something else: the videos may be there already."""
    ours = [row.into.replace("{part}", "*") for row in table() if row.source == job.download.source and "/" in row.into]
    for parent in sorted({into.rpartition("/")[0] for into in ours}):
        folder = job.root / parent
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not entry.name.startswith(".") and not any(fnmatch(f"{parent}/{entry.name}", into) for into in ours):
                raise ValueError(
                    f"{folder}: holds '{entry.name}', which no download made; where the videos are there already remove "
                    f"datasets.{job.name}.download, else move it away or choose another root"
                )


def _each(
    rows: list[File], work: Callable[[File], dict], workers: int, stop: threading.Event
) -> tuple[dict[str, dict], list[str]]:
    """Results by path, in the rows' order, and the sentences of those that failed."""
    done, failed = {}, []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        running = {row.path: pool.submit(work, row) for row in rows}
        try:
            for path, future in running.items():
                try:
                    done[path] = future.result()
                except ValueError as error:
                    failed.append(str(error))
                except OSError as error:
                    failed.append(f"{path}: {error}")
        except BaseException:  # Ctrl-C, or a defect: the others are to end soon, not in an hour
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done, failed


def _file(row: File, root: Path, **say) -> dict:
    """An annotation or list file; one that is there already is taken as it is."""
    got = fetch(row.url, root / row.path, bytes=row.bytes, sha256=row.sha256, **say)
    return {"path": row.path, "url": got.url, "bytes": got.bytes, "sha256": got.sha256}


def _archive(row: File, root: Path, keep: bool, **say) -> dict:
    """Fetch an archive, unpack it and leave the receipt; skip what an earlier run finished.

    The receipt comes before the folder's final name: a folder without one is somebody else's, and is left alone.
    """
    archive, folder = root / row.path, root / row.into
    receipt = root / HOME / f"{archive.name}.json"
    told = {"path": row.path, "into": row.into, "url": row.url}
    if not absent(folder):
        if (card := _read(receipt)) is None:
            print(f"{folder}: is there already and taken as it is; remove it to download it", flush=True)
            return told | {"url": None, "bytes": None, "sha256": None}
    else:
        try:
            got = fetch(row.url, archive, bytes=row.bytes, sha256=row.sha256, **say)
            with unpacked(archive, folder) as files:
                card = told | asdict(got) | {"files": files}
                write_json(receipt, card)
        except Damaged:
            archive.unlink()
            raise
    if not keep:
        archive.unlink(missing_ok=True)
    return card


def _read(receipt: Path) -> dict | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(receipt.read_text())
    return None


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock of a data set's downloads; raises ValueError when another process has it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = open(home / "lock", "w")
    except OSError as error:
        raise ValueError(f"{home}: cannot be written ({error.strerror}); mend the folder or choose another root") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{home.parent}: another download into this folder is running; wait for it, or end it") from None
        yield
