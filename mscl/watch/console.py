"""What Snakemake prints, made readable: long lists of files are cut short, and a failed run ends with the reason and the log."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SHOWN = 3  # files of a list, and jobs of a sharded rule in a dry run
TAIL = 65536  # bytes at the end of a log in which its last error is looked for


class Readable(logging.Filter):
    """A filter for Snakemake's logger. It changes what is shown and nothing else. `running` says whether jobs are run."""

    def __init__(self, running: Callable[[], bool]):
        super().__init__()
        self.running = running
        self.nothing_done = False
        self.seen: Counter[str] = Counter()
        self.failed: dict[str, str] = {}  # log -> its last error

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None)
        kind = getattr(event, "value", event)
        if kind == "job_info":
            return self._job(record)
        if kind == "job_error":
            self._error(record)
        self.nothing_done = self.nothing_done or str(record.msg).startswith("Nothing to be done")
        return not str(record.msg).startswith("RuleException:\nCalledProcessError")  # the command again, in one long line

    def _job(self, record: logging.LogRecord) -> bool:
        """Whether to show a job: of the jobs of one sharded rule, a dry run shows only the first, and its table counts all."""
        record.reason = short_reason(str(record.reason or ""))
        record.input, record.output = few(record.input), few(record.output)
        if self.running() or "shard" not in dict(record.wildcards or {}):
            return True
        self.seen[record.rule_name] += 1
        if self.seen[record.rule_name] == SHOWN:
            record.rule_msg = f"{record.rule_msg} (the table below counts the other jobs of {record.rule_name})"
        return self.seen[record.rule_name] <= SHOWN

    def _error(self, record: logging.LogRecord) -> None:
        record.input, record.output = few(record.input), few(record.output)
        for log in map(str, record.log or ()):
            if said := last_error(Path(log)):
                self.failed[log] = said

    def farewell(self) -> str:
        """The last lines of a failed run: for each failed job, its log and its error."""
        return "\n".join(f"log: {log}\n{said}" for log, said in self.failed.items())


def few(names: list[str] | None) -> list[str]:
    """The first of a list of names, and how many more there are."""
    names = list(names or ())
    return names if len(names) <= SHOWN + 1 else [*names[:SHOWN], f"and {len(names) - SHOWN} more"]


def short_reason(reason: str) -> str:
    """A reason of Snakemake (`what: file, file, …; what: …`) with short lists of files."""
    parts = [part.partition(": ") for part in reason.split("; ")]
    return "; ".join(what + colon + ", ".join(few(files.split(", "))) if colon else what for what, colon, files in parts)


def last_error(log: Path) -> str:
    """The last `error:` line of the last attempt in a log; "" if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    attempt = re.split(r"^started [-0-9]+ [:0-9]+$", text, flags=re.M)[-1]  # `keep` of workflow/rules/common.smk writes this line
    found = re.findall(r"^(?:.*: )??(error: .*)$", attempt, re.M)
    return found[-1] if found else ""
