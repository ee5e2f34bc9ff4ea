"""Which Slurm jobs are requeued; tests/workflow/test_slurm.py tests it with a real Slurm."""

from datetime import datetime

import pytest

from mscl.machine.slurm import out_of_time, requeue_when_time_is_up

NOW = datetime(2026, 3, 1, 12, 0)
RUNNING = "JobId=7 JobState=RUNNING Requeue=1 Restarts=3 TimeLimit=2-00:00:00 EndTime=2026-03-01T12:03:00 Comment=a=b"


@pytest.mark.parametrize(("old", "new", "told"), [
    ("", "", True),
    ("12:03:00", "12:40:00", False),  # stopped by the user
    ("RUNNING", "COMPLETING", False),  # cancelled
    ("Requeue=1", "Requeue=0", False),
    ("Restarts=3", "Restarts=50", False),  # no progress after 50 restarts
    ("EndTime=2026-03-01T12:03:00", "EndTime=Unknown", False),
])  # fmt: skip
def test_only_a_running_job_near_its_time_limit_is_requeued(old, new, told):
    assert out_of_time(RUNNING.replace(old, new), NOW) is told


def test_nothing_is_done_outside_slurm_and_a_failing_slurm_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue_when_time_is_up() is False and capsys.readouterr().err == ""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue_when_time_is_up() is False
    assert "could not put Slurm job 7 back into the queue" in capsys.readouterr().err
