"""What a user reads while a run goes on: Snakemake's messages without their lists of files, and plain lines of progress."""

import io
import logging
import sys
from types import SimpleNamespace

from mscl.watch import progress
from mscl.watch.console import Readable, few, last_error, short_reason

THREE = ((6, 15, "02:50"), (12, 30, "02:20"), (18, 45, "01:50"))  # videos, percent, time left


def record(kind, **values):
    found = logging.LogRecord("snakemake", logging.INFO, "", 0, "", None, None)
    found.event = SimpleNamespace(value=kind)
    given = {
        "reason": "",
        "input": [],
        "output": [],
        "log": [],
        "wildcards": {},
        "rule_name": "frames",
        "rule_msg": "Frames",
        "jobid": 3,
    }
    given["resources"] = SimpleNamespace(mem_mb=400)
    vars(found).update(given | values)
    return found


def test_long_lists_of_files_are_cut():
    names = [f"data/{n:04d}.tar" for n in range(512)]
    assert few(names) == ["data/0000.tar", "data/0001.tar", "data/0002.tar", "and 509 more"]
    assert few(names[:4]) == names[:4] and few(None) == []
    reason = f"Missing output files: a, b; Input files updated by another job: {', '.join(names)}; Forced execution"
    assert short_reason(reason) == (
        "Missing output files: a, b; Input files updated by another job: data/0000.tar, data/0001.tar, data/0002.tar, and 509 more; "
        "Forced execution"
    )


def test_a_dry_run_shows_the_first_jobs_of_a_sharded_rule():
    readable = Readable(lambda: False)
    jobs = [record("job_info", wildcards={"shard": f"{n:04d}"}) for n in range(5)]
    assert [readable.filter(job) for job in jobs] == [True, True, True, False, False]
    assert jobs[2].rule_msg == "Frames (the table below counts the other jobs of frames)"
    assert all(readable.filter(record("job_info", rule_name="pretrain", wildcards={"seed": "0"})) for _ in range(5))
    assert all(Readable(lambda: True).filter(job) for job in jobs)  # a run shows all


def test_a_failed_run_ends_with_the_log_and_the_error_of_its_last_attempt(tmp_path):
    log = tmp_path / "seed0.log"
    log.write_text(
        "started 2026-11-25 10:00:00\nerror: the first\nstarted 2026-11-25 11:00:00\nr18/mscl/s0 pretrain: error: no space: 1\n"
    )
    readable = Readable(lambda: True)
    failed = record("job_error", log=[str(log), str(tmp_path / "none.log")], input=["x"] * 900)
    assert readable.filter(failed) and len(failed.input) == 4
    assert readable.farewell() == f"log: {log}\nerror: no space: 1"
    log.write_text("started 2026-11-25 10:00:00\nerror: the first\nstarted 2026-11-25 11:00:00\nKilled\n")
    assert last_error(log) == ""  # killed: the error of an earlier attempt explains nothing


def test_a_job_that_ended_without_a_word_has_a_reason_and_what_to_do(tmp_path):
    log, slurm = tmp_path / "seed0.log", tmp_path / "7.log"
    message = "SLURM-job '7' failed, SLURM status is: '{}'. Detailed failure reason unavailable"

    def said(own, of_slurm="", state="FAILED"):
        log.write_text(f"started 2026-11-25 10:00:00\n{own}")
        slurm.write_text(of_slurm)
        readable = Readable(lambda: True)
        readable.filter(record("job_info", rule_name="pretrain"))
        failed = record("job_error", log=[str(log), str(slurm)], rule_name="pretrain", rule_msg=message.format(state))
        readable.filter(failed)
        assert failed.rule_msg.endswith(f"({message.format(state)})") or not readable.farewell()
        return readable.farewell().partition("\n")[2]

    memory = (
        "error: out of memory: Slurm ended this job, which had asked for 400 MB; a retry asks for more (mem_mb); "
        'to start with more: --set-resources "pretrain:mem_mb=800*attempt"'
    )
    assert said("epoch 1: loss 2\n", state="OUT_OF_MEMORY") == memory
    assert (
        said("epoch 1\n", "slurmstepd-node: error: StepId=14.0 exceeded memory limit (555646976 > 419430400), being killed\n")
        == memory
    )
    assert (
        said("epoch 1\n", "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0\nsrun: error: n1: task 0: Out Of Memory\n")
        == memory
    )
    assert said("epoch 1\n", "slurmstepd: error: *** JOB 7 CANCELLED ***\n", "TIMEOUT").startswith(
        "error: Slurm ended this job: its time was up"
    )
    assert said("epoch 1\n", "srun: error: node: task 0: Killed\n").startswith(
        "error: the job ended without a reason in its log, so it was killed"
    )
    assert said("Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory\n") == (
        "error: torch.OutOfMemoryError: CUDA out of memory"
    )
    assert (
        said(
            "Traceback (most recent call last):\n  File x\ntorch.distributed.elastic.SignalException: Process 7 got signal: 15\n"
        )
        == ""
    )
    assert said("stopping: what is done is saved first; press Ctrl-C again to stop without saving\n") == ""


def test_without_a_terminal_there_is_a_line_in_30_seconds_with_the_time_left(monkeypatch):
    shown, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(sys, "stdout", shown)
    bar = progress.tqdm(total=40, desc="ss/0000", unit="video", miniters=1)
    bar._time, bar.start_t, bar.last_print_t = (lambda: now[0]), 0.0, 0.0

    def step(seconds, count=1):
        now[0] += seconds
        bar.update(count)

    assert not shown.getvalue()
    for _ in range(20):
        step(5)  # 12 videos a minute
    said = [f"ss/0000: {n} of 40 videos ({p}%), {left} left, 0.2 videos/s" for n, p, left in THREE]
    assert shown.getvalue().splitlines() == said
    bar.write("epoch 1: loss 2.1")
    step(29)
    assert shown.getvalue().splitlines() == [*said, "epoch 1: loss 2.1"]  # no second line right after it
    step(0.5, 19)
    bar.close()
    assert shown.getvalue().splitlines()[4:] == ["ss/0000: 40 of 40 videos (100%), 0.309 videos/s"]


def test_bytes_and_unknown_totals():
    state = {"n": 2**31, "initial": 0, "total": 2**32, "elapsed": 10.0, "rate": 2**20, "unit": "B", "unit_scale": True}
    state |= {"prefix": "train.zip: ", "postfix": None}
    assert progress.line(state) == "train.zip: 2.15G of 4.29GB (50%), 34:08 left, 1.05MB/s"
    assert (
        progress.line(state | {"total": None, "n": 3, "rate": None, "elapsed": 0, "unit": "video", "unit_scale": False})
        == "train.zip: 3 videos"
    )
