"""The k-NN test that watches pretraining: its numbers by hand, and that training does not notice it."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mscl.measures.neighbours import leave_one_out
from mscl.models.networks.backbone import Backbone
from mscl.stages import build, jobs
from mscl.training.monitor import Monitor, choose, spread
from mscl.training.pretrain import pretrain


def test_nearest_others_vote():
    """Two tight pairs and one stranger: with one neighbour the pairs are right; the stranger takes its neighbour's class."""
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.9, 0.3]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert leave_one_out(features.numpy(), labels.numpy(), k=1) == pytest.approx(4 / 5)
    assert leave_one_out(features.numpy(), np.array([0, 1, 0, 1, 2]), k=1) == 0.0


def test_videos_of_the_same_recording_do_not_vote():
    """Two pairs of equal clips, each pair one recording: alone, each finds its copy; by other recordings, all take the other's class."""
    features, labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 0, 1, 1])
    assert leave_one_out(features, labels, k=1) == 1.0
    assert leave_one_out(features, labels, k=1, groups_N=[0, 0, 1, 1]) == 0.0
    assert leave_one_out(features, labels, k=3, groups_N=[0, 0, 1, 1]) == 0.0  # only two of the three others may vote
    assert leave_one_out(features, labels, k=1, groups_N=[0, 1, 2, 3]) == 1.0
    assert np.isnan(leave_one_out(features, labels, groups_N=[0, 0, 0, 0]))
    # the fifth clip's three nearest are its own recording's (class 1); the next is of class 0
    features = np.array([[1.0, 0.0], [0.9, 0.1], [0.9, 0.2], [0.9, 0.3], [0.9, 0.15]])
    assert leave_one_out(features, np.array([0, 1, 1, 1, 0]), k=1, groups_N=[0, 1, 1, 1, 1]) == pytest.approx(1 / 5)


def test_the_monitor_keeps_recordings_apart(prepared, tmp_path):
    """Its groups are those of the manifest, in the order of its videos."""
    job = watched(prepared)[1]
    rows = pd.read_parquet(job.monitor.source.manifest)
    rows.assign(group=rows.clip_id.str[-1]).to_parquet(tmp_path / "m.parquet")
    source = job.monitor.source.model_copy(update={"manifest": tmp_path / "m.parquet"})
    job = job.model_copy(update={"monitor": job.monitor.model_copy(update={"source": source})})
    monitor = Monitor(job, torch.nn.Identity(), torch.device("cpu"))
    same = np.array([a[-1] == b[-1] for a in monitor.clips.rows.clip_id for b in monitor.clips.rows.clip_id])
    assert ((monitor.groups[:, None] == monitor.groups[None]).ravel() == same).all() and 20 < same.sum() < 400


def test_spread_is_one_on_the_sphere_and_zero_in_a_point():
    torch.manual_seed(0)
    everywhere = torch.nn.functional.normalize(torch.randn(4000, 16), dim=1)
    assert spread(everywhere) == pytest.approx(1.0, abs=0.01)
    assert spread(everywhere[:1].expand(100, -1)) == 0.0


def watched(prepared, method="moco", **monitor):
    config = prepared.model_copy(update={"pretrain": prepared.pretrain.model_copy(update={"monitor": None})})
    job = build.pretrain_job(config, "r18", method, 0)
    settings = {"source": build.source(config, "ss"), "split": "train", "videos": 20, "every": 1} | monitor
    return job, job.model_copy(update={"monitor": jobs.Watched(**settings)})


@pytest.mark.parametrize("method", ["moco", "simsiam"])  # SimSiam's head has batch norms
def test_training_does_not_notice_that_it_is_watched(prepared, tmp_path, method):
    alone, seen = watched(prepared, method)
    pretrain(alone, tmp_path / "alone")
    pretrain(seen, tmp_path / "seen")
    a, b = (load_file(tmp_path / n / "weights.safetensors") for n in ("alone", "seen"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    history = pd.read_csv(tmp_path / "seen" / "history.csv")
    assert history.knn_top1.between(0, 1).all() and history.spread.between(0, 1.01).all() and (history.knn_chance < 0.4).all()


def test_a_collapse_is_said(prepared, capsys):
    job = watched(prepared)[1]

    class Same(Backbone):
        def forward(self, x):
            return torch.ones(len(x), 4)

    encoder = torch.nn.ModuleDict({"backbone": Same(), "head": torch.nn.Linear(4, 8)})
    encoder.backbone, encoder.head = encoder["backbone"], encoder["head"]
    found = Monitor(job, encoder, torch.device("cpu")).measure(1, last=False)
    assert found["spread"] < 1e-3 and "collapsed" in capsys.readouterr().err


def test_the_watched_videos_are_usable_labelled_and_always_the_same(prepared):
    rows = pd.read_parquet(build.source(prepared, "ss").manifest)
    rows.loc[rows.index[:3], "status"] = "missing"
    rows.loc[rows.index[3:5], "label"] = -1
    few = choose(rows, "train", 10)
    assert len(few) == 10 and (few.status == "ok").all() and (few.label >= 0).all() and (few.split == "train").all()
    assert choose(rows.sample(frac=1, random_state=0), "train", 10).clip_id.tolist() == few.clip_id.tolist()


def test_no_usable_video_is_said_at_the_start(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"pretrain.monitor: .* has 0 usable labelled videos in split 'nowhere'"):
        pretrain(watched(prepared, split="nowhere")[1], tmp_path)
