"""Several processes share a batch: two of them compute what one does, and stop, resume and fail together."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mscl.stages import build, jobs
from mscl.training.pretrain import pretrain


def command(job, out, *more):
    stage = "pretrain" if isinstance(job, jobs.PretrainJob) else "finetune"
    return [sys.executable, "-m", "mscl", stage, "--job", jobs.dumps(job), "--out", str(out), "--processes", "2", *more]


def job_of(prepared, method="mscl", groups=2, epochs=2, **optim):
    job = build.pretrain_job(prepared, "r18", method, 0)
    optim = job.optim.model_copy(update={"optimizer": "sgd", "lr": 0.001, "epochs": epochs} | optim)
    return job.model_copy(update={"contrast": job.contrast.model_copy(update={"bn_groups": groups}), "optim": optim})


def test_two_processes_follow_the_losses_of_one(prepared, tmp_path):
    """Same total batch, batch norm in two groups in both, shuffled over both: gathered keys, queues and gradients must agree."""
    job = job_of(prepared)
    pretrain(job, tmp_path / "one")
    run = subprocess.run(command(job, tmp_path / "two"), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    one, two = (pd.read_csv(tmp_path / n / "history.csv") for n in ("one", "two"))
    measured = [c for c in one if c.startswith("loss")]
    assert len(measured) == 9 and two[measured].to_numpy() == pytest.approx(one[measured].to_numpy(), rel=1e-4)
    a, b = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two"))
    trained = [k for k in a if "running" not in k and "num_batches" not in k]
    assert all(torch.allclose(a[k], b[k], atol=1e-4) for k in trained)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


def test_a_batch_in_parts_gives_the_step_of_the_whole(prepared, tmp_path):
    """Gradient accumulation: each part holds a whole group of batch norm, all keys enter the queue together."""
    pretrain(job_of(prepared, "moco", groups=1, epochs=1, accumulate=2), tmp_path / "parts")
    history = pd.read_csv(tmp_path / "parts" / "history.csv")
    assert history.loss[0] == pytest.approx(history.loss_rgb[0]) and 1 < history.loss[0] < 10


def second_process(out: Path) -> int:
    """The number of the second process of the training that writes to `out`."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            environment, line = ((process / name).read_bytes().split(b"\0") for name in ("environ", "cmdline"))
            if b"RANK=1" in environment and str(out).encode() in line:
                return int(process.name)
    raise AssertionError(f"no second process writes to {out}")


def test_stopped_together_they_go_on_together(prepared, tmp_path):
    """The signal reaches one process only: both leave after the same step."""
    job = job_of(prepared, "moco", epochs=8)
    whole = subprocess.run(command(job, tmp_path / "whole"), capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stderr[-3000:]
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        command(job, out, "--checkpoint-minutes", "1e-9"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(second_process(out), signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and not (out / "weights.safetensors").exists(), errors.decode()[-2000:]
    again = subprocess.run(command(job, out), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "resuming at step" in again.stdout, again.stderr[-3000:]
    a, b = (load_file(tmp_path / n / "weights.safetensors") for n in ("whole", "stopped"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert sorted(p.name for p in out.iterdir() if ".kept" not in p.name) == ["history.csv", "run.json", "weights.safetensors"]


def test_finetuning_by_two_processes_tests_every_video_once(prepared, tmp_path):
    job = build.finetune_job(prepared, "ss", "r18", "scratch", 0)
    run = subprocess.run(command(job, tmp_path), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(pd.read_parquet(tmp_path / "predictions.parquet")) == 12


def test_a_batch_that_does_not_divide_is_a_sentence(prepared, tmp_path):
    job = job_of(prepared, "moco", groups=1, batch=7)
    job = job.model_copy(update={"contrast": job.contrast.model_copy(update={"queue": 28})})
    run = subprocess.run(command(job, tmp_path), capture_output=True, text=True, timeout=300)
    assert run.returncode != 0 and "a batch of 7 does not divide among 2 processes" in run.stderr
    assert os.listdir(tmp_path) == []
