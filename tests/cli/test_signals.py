"""What stages with hours answer to SIGTERM, SIGUSR1 and Ctrl-C: they keep what is done, and Slurm gets its job back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mscl.stages import build, jobs

SLOW = "import time; import {module} as m; real = m.{name}; m.{name} = lambda *a: (time.sleep(0.3), real(*a))[1]\n"
RUN = "import sys; from mscl.cli.main import main; sys.argv[0] = 'mscl'; main()"
LINE = "stopped: finished clips are kept, and the same command resumes"


def started(stage, arguments, slow="", environment=None):
    """The stage in a process group of its own, each clip of it slowed down."""
    command = [sys.executable, "-c", slow + RUN, stage, *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "MSCL_SYNC_SECONDS": "0"} | (environment or {}),
    )


def stopped(process, number, when):
    """(exit code, stderr, seconds that it took) after the signal to all processes of the stage, sent when `when()` is true."""
    deadline = time.monotonic() + 60
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    at = time.monotonic()
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.monotonic() - at


def frames_of(prepared, out, stage):
    """(arguments, what to slow down, files of the whole result) of one shard of frames or flow."""
    source = build.source(prepared, "kin", flow=True)
    index = (source.frame_indexes() if stage == "frames" else source.flow_indexes())[0]
    given = [source.manifest, 0] if stage == "frames" else [source.frame_indexes()[0]]
    job = build.frames_job(prepared, "kin") if stage == "frames" else build.flow_job(prepared)
    module, name = ("mscl.video.extract", "_video") if stage == "frames" else ("mscl.flow.shard", "_clip")
    return ["--job", jobs.dumps(job), *given, "--out", out], SLOW.format(module=module, name=name), index


@pytest.mark.parametrize("stage", ["frames", "flow"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_frames_and_flow_end_at_once_and_go_on(stage, number, prepared, tmp_path):
    out = tmp_path / "kin" / "0000.parquet"  # an index holds the name of its store
    arguments, slow, whole = frames_of(prepared, out, stage)
    journal = tmp_path / "kin" / ".0000.tar.journal"
    code, errors, seconds = stopped(
        started(stage, arguments, slow), number, lambda: journal.exists() and journal.read_bytes().count(b"\n") > 2
    )
    assert code == 128 + number and errors.count(LINE) == 1 and "Traceback" not in errors and seconds < 3, errors
    assert not out.exists()
    again = started(stage, arguments)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0 and "resuming after" in errors, errors
    for suffix in (".parquet", ".tar"):
        assert out.with_suffix(suffix).read_bytes() == Path(whole).with_suffix(suffix).read_bytes()


def test_a_video_that_takes_long_does_not_hold_up_the_end(prepared, tmp_path):
    arguments, slow, _ = frames_of(prepared, tmp_path / "0000.parquet", "frames")
    process = started("frames", arguments, slow.replace("0.3", "30"))
    journal = tmp_path / ".0000.tar.journal"
    code, errors, seconds = stopped(process, signal.SIGTERM, lambda: journal.exists() and not time.sleep(1))
    assert code == 143 and seconds < 5, errors


def test_frames_near_the_end_of_their_time_go_back_into_the_queue(prepared, tmp_path):
    """A scontrol that says that the job has two minutes left, and writes down what it is asked for."""
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 120))
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho JobState=RUNNING Requeue=1 Restarts=0 EndTime={end}\n')
    scontrol.chmod(0o755)
    arguments, slow, _ = frames_of(prepared, tmp_path / "out" / "0000.parquet", "frames")
    environment = {"SLURM_JOB_ID": "7", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    journal = tmp_path / "out" / ".0000.tar.journal"
    code, errors, _ = stopped(started("frames", arguments, slow, environment), signal.SIGTERM, journal.exists)
    assert code == 143 and (tmp_path / "asked").read_text().splitlines()[-1] == "requeue 7", errors
    assert "Slurm job 7 is back in the queue" in errors


def test_a_second_ctrl_c_ends_a_training_at_once(tmp_path):
    """Two within a second are one: torchrun hands on what the terminal has told its processes already."""
    code = (
        "import os, signal, time\nfrom mscl.machine.signals import StopSignal\nstop = StopSignal()\n"
        "for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\nprint('first', stop.number, flush=True)\n"
        "time.sleep(1.1)\nos.kill(os.getpid(), signal.SIGINT)\nprint('still here')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 130 and run.stdout == "first 2\n" and run.stderr.count("press Ctrl-C again") == 1
