"""Tests and features that were interrupted go on where they were, with the same bits; what changed is looked at again."""

import os
import signal
import sys

import pytest
import torch

from mscl.evaluation.frozen import evaluate_frozen
from mscl.stages import build
from mscl.training import partial
from mscl.training.checkpoint import load_checkpoint
from mscl.training.finetune import finetune

REAL = partial.normalise


class Seen:
    """Counts batches, and sends this process a signal within batch `stop`."""

    def __init__(self, monkeypatch, stop=0, number=signal.SIGTERM):
        self.batches, self.stop, self.number = 0, stop, number
        monkeypatch.setattr(partial, "normalise", self)

    def __call__(self, clips, colours):
        self.batches += 1
        if self.batches == self.stop:
            os.kill(os.getpid(), self.number)
        return REAL(clips, colours)


def frozen_job(prepared):
    """24 videos to train, in two batches of 16 and 8; 12 to test, in one."""
    return build.frozen_job(prepared, "ss", "r18", "scratch", 0).model_copy(update={"clips": 2})


@pytest.mark.parametrize(("number", "stop", "left"), [(signal.SIGTERM, 1, 2), (signal.SIGINT, 2, 1), (signal.SIGUSR1, 3, 0)])
def test_features_go_on_where_they_were(number, stop, left, prepared, tmp_path, monkeypatch, capsys):
    job = frozen_job(prepared)
    whole = Seen(monkeypatch)
    evaluate_frozen(job, tmp_path / "whole")
    assert whole.batches == 3 and [p.name for p in (tmp_path / "whole").iterdir()] == ["metrics.json"]
    Seen(monkeypatch, stop, number)
    with pytest.raises(SystemExit, match=str(128 + number)):
        evaluate_frozen(job, tmp_path / "run")
    assert "videos: the same command goes on from there" in capsys.readouterr().err
    (tmp_path / "run" / ".features.test.part.4711.tmp").touch()
    again = Seen(monkeypatch)
    evaluate_frozen(job, tmp_path / "run")
    assert again.batches == left and "going on after" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["metrics.json"]
    assert (tmp_path / "whole" / "metrics.json").read_bytes() == (tmp_path / "run" / "metrics.json").read_bytes()


def test_features_of_another_job_are_not_used(prepared, tmp_path, monkeypatch, capsys):
    job = frozen_job(prepared)
    Seen(monkeypatch, stop=3)
    with pytest.raises(SystemExit):
        evaluate_frozen(job, tmp_path)
    again = Seen(monkeypatch)
    evaluate_frozen(job.model_copy(update={"seed": 1}), tmp_path)  # another random network
    assert again.batches == 3
    assert "not used, all videos are looked at again: " in (said := capsys.readouterr().err) and "the weights changed" in said


def test_features_are_kept_now_and_then(prepared, tmp_path, monkeypatch):
    """A kill that cannot be answered costs minutes."""
    saved = []
    monkeypatch.setattr(partial.Partial, "due", lambda self: True)
    monkeypatch.setattr(partial.Partial, "save", lambda self, rows: saved.append((self.path.name, sum(map(len, rows)))))
    evaluate_frozen(frozen_job(prepared), tmp_path)
    train, test = ".features.train.part", ".features.test.part"
    assert saved == [(train, 16), (train, 24), (train, 24), (test, 12), (test, 12)]


def test_the_test_of_a_finetuning_goes_on_where_it_was(prepared, tmp_path, monkeypatch):
    job = build.finetune_job(prepared, "ss", "r18", "scratch", 0)
    job = job.model_copy(update={"test": job.train})
    monkeypatch.setattr(sys.modules["mscl.training.finetune"], "TEST_BATCH", 8)
    finetune(job, tmp_path / "whole")
    Seen(monkeypatch, stop=2)
    with pytest.raises(SystemExit, match="143"):
        finetune(job, tmp_path / "run")
    held = torch.load(tmp_path / "run" / ".predictions.part", weights_only=True)
    assert len(held["rows"]) == 16 and load_checkpoint(tmp_path / "run" / ".predictions.part", held["identity"])
    again = Seen(monkeypatch)
    finetune(job, tmp_path / "run")
    assert again.batches == 1 and not list((tmp_path / "run").glob(".*"))
    for name in ("predictions.parquet", "metrics.json", "weights.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
