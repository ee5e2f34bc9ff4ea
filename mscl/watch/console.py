"""What Snakemake prints, made readable: long lists of files are cut short, and a failed run ends with the reason and the log."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SHOWN = 3  # files of a list, and jobs of a sharded rule in a dry run
TAIL = 65536  # bytes at the end of a log in which its last error is looked for
# What Slurm writes of a job that has used more memory than it asked for; its state may be FAILED all the same.
OUT_OF_MEMORY = re.compile(r"oom[-_]kill|OUT_OF_MEMORY|task \d+: Out Of Memory|exceeded (?:job |step )?memory limit", re.I)
STOPPED = re.compile(
    r"^(?:.*: )?(?:stopp(?:ed|ing)\b|time limit reached:|KeyboardInterrupt|.*SignalException:)", re.M
)  # a stage that was told to stop
ENDED = {
    "TIMEOUT": "its time was up; ask for more (--set-resources {rule}:runtime=MINUTES), or run the same command again: it resumes",
    "CANCELLED": "somebody cancelled it (scancel); the same command resumes",
    "NODE_FAIL": "its node failed; the same command resumes",
    "PREEMPTED": "another job took its place; the same command resumes",
}  # state that Slurm gives a job -> why it ended


class Readable(logging.Filter):
    """A filter for Snakemake's logger. It changes what is shown and nothing else. `running` says whether jobs are run."""

    def __init__(self, running: Callable[[], bool]):
        super().__init__()
        self.running = running
        self.nothing_done = False
        self.seen: Counter[str] = Counter()
        self.failed: dict[str, str] = {}  # log -> its last error
        self.memory: dict[int, int] = {}  # number of a job -> MB that it asks for

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
        self.memory[record.jobid] = getattr(record.resources, "mem_mb", 0)
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
        logs = [Path(log) for log in record.log or ()]
        said = self._memory(record, logs) or {log: found for log in logs if (found := last_error(log))} or _ended(record, logs)
        self.failed |= {str(log): found for log, found in said.items()}
        if said:
            slurm = f" ({record.rule_msg})" if record.rule_msg else ""
            record.rule_msg = list(said.values())[-1] + slurm

    def _memory(self, record: logging.LogRecord, logs: list[Path]) -> dict[Path, str]:
        """The sentence on a job that Slurm has ended for its memory, by the log that tells; nothing for another job."""
        for log in reversed(logs):
            if OUT_OF_MEMORY.search(f"{record.rule_msg}\n{tail(log)}"):
                asked = int(self.memory.get(record.jobid) or 0)
                had = f", which had asked for {asked} MB" if asked else ""
                more = f'--set-resources "{record.rule_name}:mem_mb={2 * asked or 32000}*attempt"'
                return {
                    log: f"error: out of memory: Slurm ended this job{had}; a retry asks for more (mem_mb); to start with more: {more}"
                }
        return {}

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


def tail(log: Path) -> str:
    """The end of a log; "" if it cannot be read."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_attempt(log: Path) -> str:
    """The end of a log, without earlier attempts."""
    return re.split(r"^started [-0-9]+ [:0-9]+$", tail(log), flags=re.M)[
        -1
    ]  # `keep` of workflow/rules/common.smk writes this line


def last_error(log: Path) -> str:
    """The last `error:` line of the last attempt in a log, or the last line of its traceback; "" if there is none."""
    attempt = last_attempt(log)
    if found := re.findall(r"^(?!srun|slurm)(?:.*: )?(error: .*)$", attempt, re.M):
        return found[-1]
    raised = re.findall(r"^(?:\S+ \S+: )?((?:\w+\.)*\w*(?:Error|(?<!Signal)Exception)\b.*)$", attempt, re.M)
    return f"error: {raised[-1]}" if raised and "Traceback (most recent call last)" in attempt else ""


def _ended(record: logging.LogRecord, logs: list[Path]) -> dict[Path, str]:
    """The sentence on a job that has not said why it ended, by its log; nothing for one that was told to stop and said so."""
    if not logs or any(STOPPED.search(last_attempt(log)) for log in logs):
        return {}
    state = re.search(r"SLURM status is: '(\w+)", str(record.rule_msg))
    why = ENDED.get(state[1] if state else "")
    if why:
        return {logs[0]: f"error: Slurm ended this job: {why.format(rule=record.rule_name)}"}
    memory = "or because memory ran out (`dmesg` tells): then run fewer jobs at a time (--cores), or lower compute.workers"
    return {logs[0]: f"error: the job ended without a reason in its log, so it was killed: by somebody, {memory}"}
