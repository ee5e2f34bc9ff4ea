"""What the submit host does while Slurm's controller is away; on a real cluster in tests/workflow/test_slurm.py."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from mscl.machine import controller
from mscl.machine.controller import Controller


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def known(clock):
    return Controller(clock, clock.sleep)


def test_a_query_without_an_answer_forgets_no_job_and_is_told_at_times(known, clock):
    said = []
    for _ in range(62):  # 20 minutes and a bit
        assert known.states(None, {"7", "8"}, True, said.append) == {}
        clock.sleep(20)
    assert [line.partition(":")[0] for line in said] == [
        f"Slurm's controller has not answered for {t}" for t in ("0 seconds", "10 minutes", "20 minutes")
    ]
    assert "the jobs in the queue (2) are kept" in said[0]
    assert known.states({"7": "RUNNING", "8": "COMPLETED"}, {"7", "8"}, True, said.append) == {"7": "RUNNING", "8": "COMPLETED"}
    assert said[3:] == ["Slurm's controller answers again, after 21 minutes"]


def test_a_job_that_slurm_no_longer_lists_ends_after_a_while(known, clock):
    said = []
    for _ in range(10):
        assert known.states({"7": "RUNNING"}, {"7", "8", "7_1"}, True, said.append) == {"7": "RUNNING"}
        clock.sleep(60)
    assert known.states({"7": "RUNNING"}, {"7", "8", "7_1"}, True, said.append) == {"7": "RUNNING", "8": "UNKNOWN"}
    assert said == ["Slurm has not listed job 8 for 10 minutes, so it has ended; its output files tell how"]


def test_a_job_that_is_listed_again_is_not_unknown(known, clock):
    for listed in ({}, {"8": "PENDING"}, {}):
        assert known.states(listed, {"8"}, True, print) == listed
        clock.sleep(590)
    known.states(None, {"8"}, True, print)
    assert known.states({}, {"8"}, False, print) == {}  # sacct may list a new job late


@pytest.mark.parametrize("state, what", [("NODE_FAIL", "ended because its node failed"), ("PREEMPTED", "was preempted")])
def test_a_job_that_slurm_does_not_requeue_fails_after_a_while_so_that_it_is_retried(known, clock, state, what):
    said = []
    for _ in range(2):
        assert known.states({"7": state, "8": "RUNNING"}, {"7", "8"}, True, said.append) == {"7": state, "8": "RUNNING"}
        clock.sleep(60)
    assert known.states({"7": "PENDING"}, {"7"}, True, said.append) == {"7": "PENDING"} and not said  # it has come back
    for passed in (0, 60, 60):
        clock.sleep(passed)
        found = known.states({"7": state}, {"7"}, True, said.append)
    assert found == {"7": "FAILED"}
    assert said == [f"Slurm job 7 {what}, and Slurm does not requeue it: it counts as failed, and a retry resumes"]


def test_each_return_to_the_queue_is_told_once_with_the_name_of_the_run(known):
    said, names = [], {"7": "r18/mscl/s0 pretrain", "8": "r18/moco/s0 pretrain"}
    for count in (0, 1, 1, 3, 5):
        known.restarts({"7": count, "99": 4}, names, said.append)  # 99 is of another Snakemake
    back = "Slurm has put job 7 (r18/mscl/s0 pretrain) back into the queue"
    why = " (time limit, preemption, or failure of its node): it resumes from what it has saved"
    look = "; look into its log whether it makes progress"
    assert said == [back + why, f"{back} 3 times so far{why}", f"{back} 5 times so far{why}{look}"]


def test_a_job_that_slurm_holds_is_told_once_with_the_command_that_releases_it(known):
    said, names = [], {"7": "r18/mscl/s0 pretrain", "8": "r18/moco/s0 pretrain"}
    held = {"7": "launch failed requeued held", "8": "Priority", "99": "JobHeldUser"}  # 99 is of another Snakemake
    for reasons in (held, held, {"7": "Priority"}, {"7": "JobHeldAdmin"}):
        known.holds(reasons, names, said.append)
    assert [line.split("; ")[1].split(")")[0] for line in said] == ["launch failed requeued held", "JobHeldAdmin"]
    assert all(line.startswith("Slurm holds job 7 (r18/mscl/s0 pretrain;") for line in said)
    assert all(line.endswith("Snakemake waits for it. To go on: scontrol release 7") for line in said)


def test_a_submission_waits_for_the_controller(known, clock):
    said, replies = [], iter([False, False, False, True])
    known.wait(lambda: next(replies), said.append)
    assert clock.now == 30 and said[0].endswith("the next job is submitted when it answers; nothing is to be done")
    assert said[1:] == ["Slurm's controller answers again, after 30 seconds"]
    known.stopping = True  # Ctrl-C while it is away
    known.wait(lambda: False, said.append)


def test_the_executor_yields_every_job_of_an_unanswered_query(monkeypatch):
    """The executor's own loop, with a query that fails as its own does: it must get an empty answer and not None."""
    plugin = pytest.importorskip(controller.EXECUTOR)
    names = ("query_job_status", "Executor")
    copy = SimpleNamespace(**{n: getattr(plugin, n) for n in names})

    async def fails(command, logger):
        return None, None

    class Executor:
        async def check_active_jobs(self, active):
            states, _ = await copy.query_job_status("squeue --name x", SimpleNamespace(warning=print))
            for job in active if states is not None else []:
                yield job

        def run_job(self, job):
            raise AssertionError

        shutdown = run_job

    copy.query_job_status, copy.Executor = fails, Executor
    monkeypatch.setitem(sys.modules, controller.EXECUTOR, copy)
    controller.keep_jobs()
    controller.keep_jobs()  # once only

    async def ask():
        return [
            job
            async for job in copy.Executor().check_active_jobs(
                [SimpleNamespace(external_jobid="7", job=SimpleNamespace(name="pretrain"))]
            )
        ]

    assert [job.external_jobid for job in asyncio.run(ask())] == ["7"]


def test_the_pinned_executor_has_what_is_replaced():
    plugin = pytest.importorskip(controller.EXECUTOR)
    assert callable(plugin.query_job_status)
    assert all(hasattr(plugin.Executor, name) for name in ("check_active_jobs", "run_job", "shutdown"))
