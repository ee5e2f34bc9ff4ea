"""Download a data set: its annotation files, and its archives, each unpacked into its own folder.

Every finished step leaves a file on disk (the annotation file itself, or a receipt `<root>/.download/<archive>.json` for an
archive). Running the same command again resumes an interrupted download, and does nothing if the download is complete.
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
from typing import Any

from mscl.datasets.acquire.fetch import PATIENCE, Patience, fetch
from mscl.datasets.acquire.sources import File, listed, table, wanted
from mscl.datasets.acquire.unpack import Damaged, absent, unpacked
from mscl.machine.files import write_json
from mscl.stages.jobs import DownloadJob

HOME = ".download"  # folder below the root for archives, partial files and receipts


def download(job: DownloadJob, out: Path, workers: int = 4, patience: Patience = PATIENCE) -> None:
    """Download the files that `job` needs below its root, `workers` files at a time.

    The JSON file `out` lists each file's path, url, bytes and sha256. A file that fails does not stop the others. Raises
    ValueError with one sentence per failed file; then `out` is not written.
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
    """Raise ValueError if the target folder of the archives holds other files: the videos may be there already."""
    ours = [row.into.replace("{part}", "*") for row in table() if row.source == job.download.source and "/" in row.into]
    for parent in sorted({into.rpartition("/")[0] for into in ours}):
        folder = job.root / parent
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not entry.name.startswith(".") and not any(fnmatch(f"{parent}/{entry.name}", into) for into in ours):
                raise ValueError(
                    f"{folder}: holds '{entry.name}', which this download did not create; if the videos are already there, remove "
                    f"datasets.{job.name}.download from the configuration, else move '{entry.name}' away or choose another root"
                )


def _each(
    rows: list[File], work: Callable[[File], dict], workers: int, stop: threading.Event
) -> tuple[dict[str, dict], list[str]]:
    """Run `work` on every row. Returns ({path: result} in the order of `rows`, error sentences of the rows that failed)."""
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
        except BaseException:  # Ctrl-C or a bug: stop the other downloads soon, not after an hour
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done, failed


def _file(row: File, root: Path, **say: Any) -> dict:
    """Download an annotation or list file; an existing file is used as it is."""
    got = fetch(row.url, root / row.path, bytes=row.bytes, sha256=row.sha256, **say)
    return {"path": row.path, "url": got.url, "bytes": got.bytes, "sha256": got.sha256}


def _archive(row: File, root: Path, keep: bool, **say: Any) -> dict:
    """Download an archive, unpack it and write its receipt; skip what an earlier run finished.

    The receipt is written before the folder gets its final name. A folder without a receipt was not made here and is not changed.
    """
    archive, folder = root / row.path, root / row.into
    receipt = root / HOME / f"{archive.name}.json"
    told = {"path": row.path, "into": row.into, "url": row.url}
    if not absent(folder):
        if (card := _read(receipt)) is None:
            print(f"{folder}: exists already and is used as it is; remove it to download it again", flush=True)
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
    """Hold the download lock of a data set. Raises ValueError if another process holds it or the folder is not writable."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = open(home / "lock", "w")
    except OSError as error:
        raise ValueError(
            f"{home}: cannot be written ({error.strerror}); fix the folder's permissions or choose another root"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{home.parent}: another download into this folder is running; wait for it or stop it") from None
        yield
