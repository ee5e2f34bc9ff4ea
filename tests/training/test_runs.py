"""Pretraining and finetuning end to end on tiny real videos; interruption, resumption, refusal."""

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

from mscl.config.recipes import Optim
from mscl.stages import build, jobs
from mscl.training import engine
from mscl.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mscl.training.finetune import finetune, load_classifier
from mscl.training.pretrain import pretrain
from mscl.training.recipe import epoch_batches, learning_rate


def test_cosine_and_step_schedules():
    cosine = Optim(lr=0.1, batch=8, epochs=10)
    assert [learning_rate(cosine, s, 1) for s in (0, 5)] == pytest.approx([0.1, 0.05])
    steps = Optim(lr=0.1, batch=8, epochs=22, steps=(14, 18))
    assert [learning_rate(steps, 10 * e, 10) for e in (0, 13, 14, 18)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_an_epoch_is_a_permutation_of_whole_batches():
    batches = epoch_batches(10, 4, seed=0, epoch=0)
    assert [len(b) for b in batches] == [4, 4] and len({i for b in batches for i in b}) == 8
    assert batches != epoch_batches(10, 4, seed=0, epoch=1) and batches == epoch_batches(10, 4, seed=0, epoch=0)
    assert sorted(epoch_batches(3, 4, 0, 0)[0]) == [0, 1, 2]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(prepared, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pretrain(build.pretrain_job(prepared, "r18", "mscl", seed), tmp_path / name)
    a, b, c = ((tmp_path / n / "weights.safetensors").read_bytes() for n in "abc")
    assert a == b != c
    assert len({(tmp_path / n / "history.csv").read_bytes() for n in "ab"}) == 1
    history = pd.read_csv(tmp_path / "a" / "history.csv")
    assert list(history.epoch) == [1, 2] and {"loss", "loss_lmcl", "acc_rgb"} <= set(history)
    assert prepared.contrast.momentum < history.momentum[0] < history.momentum[1] < 1


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(prepared, tmp_path, stop):
    """SIGTERM checkpoints within a step; SIGKILL falls back to the last checkpoint. Either way: the same weights."""
    job = build.pretrain_job(prepared, "r18", "baseline", 0)
    job = job.model_copy(update={"optim": job.optim.model_copy(update={"epochs": 6})})
    pretrain(job, tmp_path / "whole")
    out = tmp_path / "stopped"
    command = [
        sys.executable,
        "-m",
        "mscl",
        "pretrain",
        "--job",
        jobs.dumps(job),
        "--out",
        str(out),
        "--checkpoint-minutes",
        "1e-9",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (128 + stop if stop == signal.SIGTERM else -stop), errors.decode()[-2000:]
    assert not (out / "weights.safetensors").exists() and not (out / "run.json").exists()
    at = torch.load(out / "checkpoint.pt", weights_only=True)["at"]["step"]
    assert 0 < at < 18
    pretrain(job, out)
    whole, resumed = (load_file(tmp_path / n / "weights.safetensors") for n in ("whole", "stopped"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert (tmp_path / "whole/history.csv").read_bytes() == (out / "history.csv").read_bytes()
    assert not (out / "checkpoint.pt").exists()


@pytest.mark.parametrize("last", [3, 6])
def test_a_run_that_was_stopped_at_an_epochs_last_step_keeps_its_row(last, prepared, tmp_path, monkeypatch):
    """Two epochs of three steps; the signal comes during the last step of one of them."""
    job = build.pretrain_job(prepared, "r18", "moco", 0)
    pretrain(job, tmp_path / "whole")
    one_step = engine.Run._step

    def told(run, *arguments):
        one_step(run, *arguments)
        if run.at.step == last:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(engine.Run, "_step", told)
    with pytest.raises(SystemExit):
        pretrain(job, tmp_path / "stopped")
    monkeypatch.undo()
    pretrain(job, tmp_path / "stopped")
    for name in ("history.csv", "weights.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_a_foreign_torn_or_drifted_checkpoint_is_refused(tmp_path):
    path, mine = tmp_path / "checkpoint.pt", {"job": '{"contrast":{"dim":8},"seed":0}', "code": "a"}
    assert load_checkpoint(path, mine) is None
    save_checkpoint(path, {"step": 1}, mine)
    assert load_checkpoint(path, mine)["step"] == 1
    other = {"job": '{"contrast":{"dim":9},"seed":0}', "code": "b"}
    with pytest.raises(CheckpointError, match=r"another run \(the code changed; contrast.dim was 8 and is 9\); restore"):
        load_checkpoint(path, other)
    assert load_checkpoint(path, other, anyway=True)["step"] == 1
    save_checkpoint(path, {"step": 2}, mine)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="checkpoint.pt: not a checkpoint of mscl, .* rename checkpoint.previous.pt to"):
        load_checkpoint(path, mine)
    (tmp_path / "checkpoint.previous.pt").rename(path)
    assert load_checkpoint(path, mine)["step"] == 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1}, {})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"step": 2}, {})
    monkeypatch.undo()
    assert load_checkpoint(path, {})["step"] == 1 and [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_loses_nothing(prepared, tmp_path, small_disk):
    """The disk fills up while a run goes on; with room made, it goes on from the last checkpoint and ends with the same weights."""
    job = build.pretrain_job(prepared, "r18", "moco", 0)
    job = job.model_copy(update={"optim": job.optim.model_copy(update={"epochs": 30})})
    pretrain(job, tmp_path / "whole")
    disk = small_disk(3000)
    out, filler = disk / "run", disk / "filler"
    command = [
        sys.executable,
        "-m",
        "mscl",
        "pretrain",
        "--job",
        jobs.dumps(job),
        "--out",
        str(out),
        "--checkpoint-minutes",
        "1e-9",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.005)
    handle = os.open(filler, os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(handle, b"x" * 4096):
            pass
    os.close(handle)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "no space left" in errors and "Traceback" not in errors
    assert "no space left for a checkpoint at step" in errors and not (out / "weights.safetensors").exists()
    assert 0 < torch.load(out / "checkpoint.pt", weights_only=True)["at"]["step"] < 90
    filler.unlink()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "resuming at step" in again.stdout, again.stderr
    whole, resumed = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "whole", out))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_too_few_videos_for_a_batch_is_said_at_the_start(prepared, tmp_path):
    job = build.pretrain_job(prepared, "r18", "moco", 0)
    job = job.model_copy(update={"optim": job.optim.model_copy(update={"batch": 32})})
    with pytest.raises(ValueError, match="24 usable videos in split 'train' are fewer than one batch of 32; lower"):
        pretrain(job, tmp_path)


def test_finetuning_from_pretrained_weights_writes_everything_and_loads_back(prepared, tmp_path):
    pretrain(build.pretrain_job(prepared, "r18", "moco", 0), tmp_path / "pre")
    job = build.finetune_job(prepared, "ss", "r18", "moco", 0)
    finetune(job.model_copy(update={"weights": tmp_path / "pre" / "weights.safetensors"}), tmp_path / "fine")
    predictions = pd.read_parquet(tmp_path / "fine" / "predictions.parquet")
    metrics = json.loads((tmp_path / "fine" / "metrics.json").read_text())
    assert len(predictions) == metrics["videos"] == 12 and metrics["classes"] == 12
    assert metrics["top1"] == pytest.approx((predictions.top.str[0] == predictions.label).mean())
    model = load_classifier(tmp_path / "fine" / "weights.safetensors", job.net, job.finetune, 12)
    assert not model.training and model.fc.out_features == 12
    with pytest.raises(ValueError, match="no classifier of 7 classes"):
        load_classifier(tmp_path / "fine" / "weights.safetensors", job.net, job.finetune, 7)


def test_a_signal_after_the_training_ends_at_once_and_loses_nothing(prepared, tmp_path, monkeypatch):
    """The test of 25,000 videos takes long; a time limit that comes meanwhile must not cost the training."""
    job = build.finetune_job(prepared, "ss", "r18", "scratch", 0)
    finetune(job, tmp_path / "whole")
    module = sys.modules["mscl.training.finetune"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "predict", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit, match="143"):
            finetune(job, tmp_path / "stopped")
    assert torch.load(tmp_path / "stopped/checkpoint.pt", weights_only=True)["at"]["step"] > 0
    monkeypatch.setattr(engine.Run, "_step", lambda *_: pytest.fail("it was trained already"))
    finetune(job, tmp_path / "stopped")
    names = ("weights.safetensors", "predictions.parquet", "metrics.json", "history.csv")
    assert all((tmp_path / "whole" / n).read_bytes() == (tmp_path / "stopped" / n).read_bytes() for n in names)


def test_finetuning_really_starts_from_the_pretrained_backbone(prepared, tmp_path):
    pretrain(build.pretrain_job(prepared, "r18", "moco", 0), tmp_path / "pre")
    job = build.finetune_job(prepared, "ss", "r18", "moco", 0)
    job = job.model_copy(update={"finetune": job.finetune.model_copy(update={"lr": 1e-12, "weight_decay": 0.0})})
    finetune(job.model_copy(update={"weights": tmp_path / "pre" / "weights.safetensors"}), tmp_path / "fine")
    before, after = (load_file(tmp_path / n / "weights.safetensors") for n in ("pre", "fine"))
    assert torch.allclose(before["layer4.1.conv2.0.weight"], after["layer4.1.conv2.0.weight"], atol=1e-6)
