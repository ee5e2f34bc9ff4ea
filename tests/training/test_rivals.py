"""The rivals of the supplement's Table 1 train, stop and go on like the other methods."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mscl.config.methods import METHODS
from mscl.stages import build, jobs
from mscl.training import engine
from mscl.training.clips import PretrainClips, pretrain_rows
from mscl.training.pretrain import pretrain
from tests.conftest import ROOT

RIVALS = [m for m, s in METHODS.items() if s.switches.family != "mscl" and m not in ("rho-moco-2", "rho-moco-4")]


def job_of(prepared, method, **optim):
    """The tiny run of a method; a name that `prepared` does not list is as good as one that it does."""
    job = build.pretrain_job(prepared, "r18", method, 0)
    return job.model_copy(update={"optim": job.optim.model_copy(update=optim)})


def clips_of(prepared, method):
    job = job_of(prepared, method)
    return PretrainClips(pretrain_rows(job.sources, "train"), job.clip, job.augment, job.switches, 32, job.seed)


def test_a_sample_of_three_clips_is_one_of_two_and_a_further_key(prepared):
    two, three = (clips_of(prepared, m)[3] for m in ("rho-moco-2", "rho-moco-3"))
    assert list(three) == ["query_rgb", "key_rgb", "key2_rgb"]  # RGB alone
    assert all(three[name].shape == (8, 32, 32, 3) for name in three)
    moco = clips_of(prepared, "moco")[3]
    assert list(two) == list(moco) and all(np.array_equal(two[name], moco[name]) for name in moco)


def test_every_clip_starts_within_the_shift_and_the_keys_are_drawn_apart(prepared, monkeypatch):
    """Clips of 8 frames at stride 2 in videos of 24 frames may start at 0..9, a key at most 4 frames from its query."""
    import mscl.training.clips as data

    read = []
    monkeypatch.setattr(data, "read_clip", lambda shards, row, positions, box, size: read.append((positions, box)))
    clips = clips_of(prepared, "rho-moco-3")
    for epoch in range(20):
        clips.set_epoch(epoch)
        clips[0]
    starts = np.array([int(positions[0]) for positions, _ in read]).reshape(20, 3)
    assert starts.min() >= 0 and starts.max() <= 9 and np.abs(starts[:, 1:] - starts[:, :1]).max() == 4
    assert (starts[:, 1] != starts[:, 2]).any() and len({box for _, box in read}) == 60


def test_rho_2_is_moco_bit_for_bit(prepared, tmp_path):
    for method in ("moco", "rho-moco-2"):
        pretrain(job_of(prepared, method, epochs=1), tmp_path / method)
    a, b = (load_file(tmp_path / m / "weights.safetensors") for m in ("moco", "rho-moco-2"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_only_corp_is_told_when_its_clips_start(prepared):
    sample = clips_of(prepared, "corp-f")[3]
    assert list(sample) == ["query_rgb", "query_start", "key_rgb", "key_start"] and 0 <= sample["query_start"] <= 9
    assert not [name for name in clips_of(prepared, "mscl")[3] if "start" in name]


TOGETHER = """
import sys
from pathlib import Path
from mscl.stages import build, jobs
from mscl.training.pretrain import pretrain
for file in sys.argv[1:]:
    pretrain(jobs.loads(jobs.PretrainJob, file), Path(file).with_suffix(""))
"""


def test_two_processes_follow_the_losses_of_one(prepared, tmp_path):
    """Batch norm in two groups in both; what is compared across processes must be the same clips, with the same gradients."""
    methods = ("rho-moco-3", "corp-m", "corp-f")
    for method in methods:
        job = job_of(prepared, method, optimizer="sgd", lr=0.01)
        job = job.model_copy(update={"contrast": job.contrast.model_copy(update={"bn_groups": 2})})
        pretrain(job, tmp_path / "one" / method)
        (tmp_path / f"{method}.json").write_text(jobs.dumps(job))
    (tmp_path / "together.py").write_text(TOGETHER)
    files = [str(tmp_path / f"{method}.json") for method in methods]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(tmp_path / "together.py"),
        *files,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert run.returncode == 0, run.stderr[-3000:]
    for method in methods:
        one, two = (pd.read_csv(folder / method / "history.csv") for folder in (tmp_path / "one", tmp_path))
        measured = [c for c in one if c.startswith("loss")]
        assert two[measured].to_numpy() == pytest.approx(one[measured].to_numpy(), rel=1e-4)
        a, b = (load_file(folder / method / "weights.safetensors") for folder in (tmp_path / "one", tmp_path))
        trained = [k for k in a if "running" not in k and "num_batches" not in k]
        assert all(torch.allclose(a[k], b[k], atol=1e-4) for k in trained)


@pytest.mark.parametrize("method", RIVALS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(prepared, tmp_path, monkeypatch, method):
    """Batches in two parts, stopped within the second of two epochs: queue, optimiser and weights go on bit for bit."""
    job = job_of(prepared, method, accumulate=2)  # of one batch-norm group each
    pretrain(job, tmp_path / "whole")
    history = pd.read_csv(tmp_path / "whole" / "history.csv")
    terms = [c for c in history if c.startswith("loss_")]
    assert history.loss.to_numpy() == pytest.approx(history[terms].sum(axis=1).to_numpy())
    assert (
        (history.loss.abs().between(1e-4, 1)) if method == "simsiam" else history.loss > 0.1
    ).all()  # SimSiam's is a negative cosine
    step = engine.Run._step

    def stops(run, *arguments):
        if run.at.step == 4:
            run.save()
            raise KeyboardInterrupt
        return step(run, *arguments)

    monkeypatch.setattr(engine.Run, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        pretrain(job, tmp_path / "stopped")
    monkeypatch.undo()
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["at"]["step"] == 4
    pretrain(job, tmp_path / "stopped")
    a, b = (load_file(tmp_path / n / "weights.safetensors") for n in ("whole", "stopped"))
    assert all(torch.equal(a[k], b[k]) for k in a)
