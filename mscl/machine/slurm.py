"""Inside a Slurm job: a stage whose time is nearly up puts its job back into the queue, and goes on there from what it kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta

NEAR = timedelta(minutes=15)  # Slurm's word that time is nearly up comes with minutes to spare
RESTARTS = 50  # of one job; then its end is a failure, for something keeps it from getting on


def requeue_when_time_is_up(now: datetime | None = None) -> bool:
    """Put this process's Slurm job back into the queue when it was stopped because its time is up; says so on stderr.

    False, and nothing done: outside Slurm, when it was stopped for another reason, or when the job may not be requeued.
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
        print(f"could not put Slurm job {job} back into the queue ({said.strip()}); start it again to go on", file=sys.stderr)
        return False
    print(f"time is up: Slurm job {job} is back in the queue and goes on there from what is kept", file=sys.stderr)
    return True


def out_of_time(shown: str, now: datetime) -> bool:
    """Whether `scontrol show job` tells of a running job that has only minutes left and may be requeued."""
    job = dict(re.findall(r"(\w+)=(\S*)", shown))
    if job.get("JobState") != "RUNNING" or job.get("Requeue") != "1" or int(job.get("Restarts", 0)) >= RESTARTS:
        return False
    try:
        return datetime.fromisoformat(job.get("EndTime", "")) - now < NEAR
    except ValueError:  # a job without a limit ends at an unknown time
        return False


def _scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=True).stdout
