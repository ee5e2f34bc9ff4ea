"""Inside a Slurm job: a stage whose time is nearly up puts its job back into the queue, and goes on there from what it kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta

NEAR = timedelta(minutes=15)  # Slurm sends its signal a few minutes before the time limit
RESTARTS = 50  # most restarts of one job; after that something prevents progress, and the job fails


def requeue_when_time_is_up(now: datetime | None = None) -> bool:
    """Put this process's Slurm job back into the queue if it was stopped at its time limit, with a message on stderr.

    Returns whether the job was requeued. It is not requeued outside Slurm, if it was stopped for another reason, or if it may
    not be requeued. `now` is the current time by default.
    """
    if not (job := os.environ.get("SLURM_JOB_ID")):
        return False
    try:
        shown = _scontrol("show", "job", "--oneliner", job)
        if not out_of_time(shown, now or datetime.now()):
            return False
        _scontrol("requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"could not put Slurm job {job} back into the queue ({said.strip()}); start it again to resume", file=sys.stderr)
        return False
    print(f"time limit reached: Slurm job {job} is back in the queue and will resume from what it has saved", file=sys.stderr)
    return True


def out_of_time(shown: str, now: datetime) -> bool:
    """Whether the output of `scontrol show job` describes a running job with less than NEAR left that may be requeued."""
    job = dict(re.findall(r"(\w+)=(\S*)", shown))
    if job.get("JobState") != "RUNNING" or job.get("Requeue") != "1" or int(job.get("Restarts", 0)) >= RESTARTS:
        return False
    try:
        return datetime.fromisoformat(job.get("EndTime", "")) - now < NEAR
    except ValueError:  # a job without a time limit has no end time
        return False


def _scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=True).stdout
