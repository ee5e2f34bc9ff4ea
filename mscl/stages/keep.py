"""Reuses results that are still valid, for whatever reason a stage was started again.

Snakemake deletes the outputs of a job before it starts, and everything that follows a job runs again with it, even if the bytes are
the same. So each expensive stage keeps a hard link of its outputs (`.<name>.kept`, no further disk space) and a record of what they
were made from. Started again with the same settings, code and inputs, it puts them back, with their time, within seconds.
A stage that fails leaves the kept files as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mscl.machine.files import sha256, write_json
from mscl.stages.jobs import Job, dumps
from mscl.stages.table import STAGES

Stamp = list[int] | None  # size and time of a file; None if it is missing


def identity(stage: str, job: Job, inputs: Iterable[Path | list]) -> str:
    """Hash of all that a stage's results are made from: its settings, its code, and its inputs (files by content, or plain values)."""
    held = [f"{p}={_content(p)}" if isinstance(p, Path) else json.dumps(p) for p in inputs]
    parts = (stage, dumps(job), json.dumps(STAGES[stage].code_hashes(job)), *held)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _content(path: Path) -> str:
    """sha256 of a file; a missing one is left to the stage, which knows what to say."""
    return sha256(path) if path.is_file() else "missing"


@contextlib.contextmanager
def kept(outputs: list[Path], made_from: str, stamps: Sequence[Stamp] = ()) -> Iterator[bool]:
    """True if the outputs of an earlier run with the same settings, code and inputs were put back: then nothing is left to do.

    `stamps` are of files that may be deleted after use, such as videos: one that is gone is no change, one that differs is. Otherwise
    the body makes the outputs, which are kept when it ends well. On a file system without hard links nothing is kept.
    Of several processes the first moves files.
    """
    first = int(os.environ.get("RANK", 0)) == 0
    record = _kept(outputs[0]).with_suffix(".kept.json")
    if _is_of(record, made_from, stamps) and all(_kept(path).is_file() for path in outputs):
        if first:
            for path in outputs:
                _link(_kept(path), path)
            print(
                f"{outputs[0]}: kept, since settings, code and inputs are the same; to make it again, delete {record}",
                file=sys.stderr,
            )
        yield True
        return
    yield False
    if not first:
        return
    with contextlib.suppress(OSError):
        record.unlink(missing_ok=True)
        for path in outputs:
            _link(path, _kept(path))
        write_json(record, {"made from": made_from, "stamps": list(stamps)})


def _kept(path: Path) -> Path:
    return path.with_name(f".{path.name}.kept")


def _is_of(record: Path, made_from: str, stamps: Sequence[Stamp]) -> bool:
    try:
        made = json.loads(record.read_text())
        before = made.get("stamps", [])
        return made["made from"] == made_from and all(now in (None, then) for now, then in zip(stamps, before, strict=True))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _link(source: Path, target: Path) -> None:
    """A hard link that replaces `target`."""
    if target.exists() and os.path.samefile(source, target):
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, draft)
    os.replace(draft, target)
