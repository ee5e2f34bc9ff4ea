"""Which Slurm jobs training may put back into the queue; the real thing is in workflow/test_slurm.py."""

from datetime import datetime

import pytest

from mscl.machine.slurm import out_of_time, requeue_when_time_is_up

NOW = datetime(2026, 3, 1, 12, 0)
RUNNING = "JobId=7 JobState=RUNNING Requeue=1 Restarts=3 TimeLimit=2-00:00:00 EndTime=2026-03-01T12:03:00 Comment=a=b"


@pytest.mark.parametrize(("old", "new", "told"), [
    ("", "", True),
    ("12:03:00", "12:40:00", False),  # told to stop by a person
    ("RUNNING", "COMPLETING", False),  # cancelled
    ("Requeue=1", "Requeue=0", False),
    ("Restarts=3", "Restarts=50", False),  # something keeps it from getting on
    ("EndTime=2026-03-01T12:03:00", "EndTime=Unknown", False),
])  # fmt: skip
def test_only_a_running_job_at_the_end_of_its_time_goes_back(old, new, told):
    assert out_of_time(RUNNING.replace(old, new), NOW) is told


def test_nothing_is_done_outside_slurm_and_a_slurm_that_does_not_answer_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue_when_time_is_up() is False and capsys.readouterr().err == ""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue_when_time_is_up() is False
    assert "could not put Slurm job 7 back into the queue" in capsys.readouterr().err
