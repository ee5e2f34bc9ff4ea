"""On the submit host: Snakemake keeps its jobs while Slurm's controller is away, and says what happened to them.

When a query of the states fails, the Slurm executor of Snakemake (2.8.0) forgets all its jobs and waits for ever, and a job that is
submitted meanwhile counts as failed. Here both wait until the controller answers. A job whose node failed, or that was preempted, is
left to Slurm to requeue; where Slurm does not, the executor would wait for ever, too, so here it counts as failed after a while.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

EXECUTOR = "snakemake_executor_plugin_slurm"
PAUSE = 10.0  # seconds between two questions whether the controller is back
REMIND = 600.0  # seconds between two messages while it is away
UNLISTED = 600.0  # seconds after which a job that a working controller does not list has ended
LOST = 120.0  # seconds after which a job whose node failed, or that was preempted, does not come back
HELD = re.compile("held", re.IGNORECASE)  # in the reason why a job waits: until somebody releases it
MANY = 5  # so often back in the queue, a job may make no progress


# States that the executor only warns of -> what has happened.
LEFT_TO_SLURM = {"PREEMPTED": "was preempted", "NODE_FAIL": "ended because its node failed"}


class Controller:
    """What is known of Slurm's controller. `clock` gives seconds and `sleep` waits for some, for tests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self.clock, self.sleep = clock, sleep
        self.stopping = False  # Snakemake ends: nothing waits any more
        self.away_since: float | None = None
        self.told = 0.0
        self.unlisted: dict[str, float] = {}  # job -> when it was first missing from the answer
        self.lost: dict[str, float] = {}  # job -> when it was first seen in one of LEFT_TO_SLURM
        self.requeued: dict[str, int] = {}  # job -> how often it was put back into the queue
        self.held: set[str] = set()  # jobs that Slurm holds, of which was told

    def states(
        self, answer: dict[str, str] | None, jobs: set[str], complete: bool, warn: Callable[[str], None]
    ) -> dict[str, str]:
        """States of the jobs, from the answer of Slurm: None when it did not answer. A job without a state is asked for again.

        `complete` says that the answer lists every job that Slurm knows. A job that is missing from it for long is UNKNOWN: it has
        ended, and Snakemake looks at its output files.
        """
        if answer is None:
            self.is_away(warn, f"the jobs in the queue ({len(jobs)}) are kept")
            return {}
        self.is_back(warn)
        now, missing = (
            self.clock(),
            {job for job in jobs if not {job, job.partition("_")[0]} & answer.keys()} if complete else set(),
        )
        self.unlisted = {job: self.unlisted.get(job, now) for job in missing}
        for job, since in self.unlisted.items():
            if now - since >= UNLISTED:
                warn(f"Slurm has not listed job {job} for {minutes(now - since)}, so it has ended; its output files tell how")
                answer = answer | {job: "UNKNOWN"}
        return answer | self._lost({job: answer[job] for job in jobs if answer.get(job) in LEFT_TO_SLURM}, warn)

    def _lost(self, left: dict[str, str], warn: Callable[[str], None]) -> dict[str, str]:
        """Of the jobs that the executor leaves to Slurm: those that have not come back, as failed."""
        now = self.clock()
        self.lost = {job: self.lost.get(job, now) for job in left}
        gone = [job for job, since in self.lost.items() if now - since >= LOST]
        for job in gone:
            warn(
                f"Slurm job {job} {LEFT_TO_SLURM[left[job]]}, and Slurm does not requeue it: it counts as failed, and a retry resumes"
            )
        return dict.fromkeys(gone, "FAILED")

    def restarts(self, counts: dict[str, int], names: dict[str, str], warn: Callable[[str], None]) -> None:
        """Say which jobs are back in the queue, from how often each was put there. `names` are the jobs of this Snakemake."""
        for job, name in names.items():
            if (count := counts.get(job, 0)) > self.requeued.get(job, 0):
                self.requeued[job] = count
                often = f" {count} times so far" if count > 1 else ""
                look = "; look into its log whether it makes progress" if count >= MANY else ""
                warn(
                    f"Slurm has put job {job} ({name}) back into the queue{often} (time limit, preemption, or failure of its node):"
                    f" it resumes from what it has saved{look}"
                )

    def holds(self, reasons: dict[str, str], names: dict[str, str], warn: Callable[[str], None]) -> None:
        """Say which jobs wait for a person, from the reason why each job is in the queue. A job that was released is told of anew."""
        held = {job: reasons[job] for job in names if HELD.search(reasons.get(job, ""))}
        for job in held.keys() - self.held:
            warn(
                f"Slurm holds job {job} ({names[job]}; {held[job]}): it does not start by itself, and Snakemake waits for it."
                f" To go on: scontrol release {job}"
            )
        self.held = set(held)

    def wait(self, answers: Callable[[], bool], warn: Callable[[str], None]) -> None:
        """Return when the controller answers, or Snakemake ends."""
        while not answers() and not self.stopping:
            self.is_away(warn, "the next job is submitted when it answers")
            self.sleep(PAUSE)
        self.is_back(warn)

    def is_away(self, warn: Callable[[str], None], kept: str) -> None:
        now = self.clock()
        if self.away_since is None:
            self.away_since = now
        elif now - self.told < REMIND:
            return
        self.told = now
        warn(f"Slurm's controller has not answered for {minutes(now - self.away_since)}: {kept}; nothing is to be done")

    def is_back(self, warn: Callable[[str], None]) -> None:
        if self.away_since is not None:
            warn(f"Slurm's controller answers again, after {minutes(self.clock() - self.away_since)}")
            self.away_since = None


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def answers() -> bool:
    """Whether Slurm's controller answers."""
    try:
        return subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def queue() -> tuple[dict[str, int], dict[str, str]]:
    """Of each job of this user in the queue: how often it was put back there, and why it waits; empty if Slurm does not say."""
    try:
        command = ["squeue", "--me", "--noheader", "--Format=JobID:30,RestartCnt:10,Reason:80"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        rows = [line.split(None, 2) for line in said.splitlines()]
        return {job: int(count) for job, count, _ in rows}, {job: reason.strip() for job, _, reason in rows}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}, {}


def keep_jobs() -> None:
    """Make the Slurm executor of this process, if it is loaded, wait for a controller that is away."""
    if (plugin := sys.modules.get(EXECUTOR)) is not None and not hasattr(plugin, "mscl_controller"):
        plugin.mscl_controller = Controller()
        _patch(plugin, plugin.mscl_controller)


def _patch(plugin: ModuleType, controller: Controller) -> None:
    query, executor = plugin.query_job_status, plugin.Executor
    check, submit, shutdown = executor.check_active_jobs, executor.run_job, executor.shutdown
    jobs: dict[str, str] = {}  # number of a job in the queue -> its name

    async def query_job_status(command: str, logger: Any) -> tuple[dict[str, str], float]:
        answer, seconds = await query(command, logger)
        states = controller.states(answer, set(jobs), command.startswith("squeue"), logger.warning)
        if answer is not None and jobs:
            counts, reasons = queue()
            controller.restarts(counts, jobs, logger.warning)
            controller.holds(reasons, jobs, logger.warning)
        return states, seconds or 0.0

    async def check_active_jobs(self: Any, active: list) -> AsyncIterator:
        jobs.clear()
        jobs.update((job.external_jobid, _name(job.job)) for job in active)
        async for job in check(self, active):
            yield job

    def run_job(self: Any, job: Any) -> None:
        controller.wait(answers, self.logger.warning)
        submit(self, job)

    def stop(self: Any) -> None:
        controller.stopping = True
        shutdown(self)

    plugin.query_job_status = query_job_status
    executor.check_active_jobs, executor.run_job, executor.shutdown = check_active_jobs, run_job, stop


def _name(job: Any) -> str:
    """What the lines of a job begin with (`mscl.stages.rules.Rules.label`), or its rule."""
    return str(getattr(getattr(job, "params", None), "label", None) or getattr(job, "name", "?"))
