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
        return [job async for job in copy.Executor().check_active_jobs([SimpleNamespace(external_jobid="7")])]

    assert [job.external_jobid for job in asyncio.run(ask())] == ["7"]


def test_the_pinned_executor_has_what_is_replaced():
    plugin = pytest.importorskip(controller.EXECUTOR)
    assert callable(plugin.query_job_status)
    assert all(hasattr(plugin.Executor, name) for name in ("check_active_jobs", "run_job", "shutdown"))
