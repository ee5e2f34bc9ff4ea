import json
import sys
import types

import numpy as np
import pandas as pd
import pytest
import simplejpeg
import torch
from torch import nn

from mscl.config.recipes import Finetune
from mscl.config.settings import Analysis
from mscl.evaluation.analysis import run_analysis
from mscl.models.colours import IMAGENET
from mscl.stages.jobs import AnalysisJob, Net, Source
from tests.store.shards import write_frames

NAMES = ["Moving something left", "Moving something right", "Lifting something"]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Module()
        self.backbone.layer4 = nn.Sequential(nn.Sequential(nn.Conv3d(3, 4, 3, (2, 4, 4), 1), nn.ReLU()))
        self.backbone.gradcam_layer = self.backbone.layer4[-1]
        self.backbone.colours = IMAGENET
        self.fc = nn.Linear(4, len(NAMES))

    def forward(self, x_BCTHW):
        return self.fc(self.backbone.layer4(x_BCTHW).mean(dim=(2, 3, 4)))


def job(folder, methods=("baseline", "mscl"), gradcam=()):
    """An analysis job for the runs below `folder`."""
    return AnalysisJob(
        net=Net(backbone="r3d_18", width=8, flow_width=8, neck=16, neck_blocks=1, size=32),
        finetune=Finetune(lr=0.1, batch=2, epochs=1, frames=8, test_size=32),
        analysis=Analysis(pairs=1, gradcam=gradcam),
        source=Source(name="d", manifest=folder / "m.parquet", frames=folder, shards=1),
        runs={m: tuple(folder / m / f"seed{s}" for s in (3, 4)) for m in methods},
        methods=methods,
        seeds=(3, 4),
        test="validation",
        device="cpu",
        threads=1,
    )


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Six videos, two of each class, in a real shard; predictions of two methods and seeds; a stub classifier."""
    ids, labels = [f"v{i}" for i in range(6)], [0, 0, 1, 1, 2, 2]
    whole = {"split": "validation", "start": np.nan, "end": np.nan, "shard": 0, "status": "ok", "reason": ""}
    videos = {"clip_id": ids, "path": ids, "label": labels, "class_name": [NAMES[i] for i in labels]}
    manifest = pd.DataFrame(videos | whole)
    manifest.to_parquet(tmp_path / "m.parquet")
    rng = np.random.default_rng(0)
    pictures = {clip: [simplejpeg.encode_jpeg(rng.integers(0, 255, (36, 48, 3), np.uint8)) for _ in range(10)] for clip in ids}
    write_frames(tmp_path / "0000.parquet", pictures)
    guesses = {"baseline": [[1, 0, 0, 1, 2, 2], [1, 0, 1, 1, 2, 2]], "mscl": [[0, 0, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2]]}
    for method, seeds in guesses.items():
        for seed, classes in zip((3, 4), seeds):
            run = tmp_path / method / f"seed{seed}"
            run.mkdir(parents=True)
            (run / "weights.safetensors").touch()
            tops = [[c, (c + 1) % 3] for c in classes]
            table = {"clip_id": ids, "label": labels, "top": tops, "probability": [[0.6, 0.3]] * 6, "status": "ok", "reason": ""}
            pd.DataFrame(table).to_parquet(run / "predictions.parquet")
    stub = types.ModuleType("mscl.training.finetune")
    stub.load_classifier = lambda path, net, finetune, classes: Tiny().eval()
    monkeypatch.setitem(sys.modules, "mscl.training.finetune", stub)
    return tmp_path


def test_pairs_and_figures(study):
    out = study / "out"
    run_analysis(job(study), out)
    pairs = pd.read_csv(out / "pairs.csv", keep_default_na=False)
    columns = ["block", "rank", "a", "b", "left_confused", "right_confused", "left_videos"]
    assert pairs[columns].values.tolist() == [["left", 1, NAMES[0], NAMES[1], 3, 0, 8], ["right", 1, NAMES[0], NAMES[2], 0, 1, 8]]
    document = json.loads((out / "gradcam.json").read_text())
    first = document["figures"][0]
    # Only mscl is right on v0 and v2. Their classes tie, so the first class of the pair is drawn.
    assert (first["clip_id"], first["template"], first["file"]) == ("v0", NAMES[0], "gradcam/fig1.png")
    assert first["predictions"]["mscl"]["correct"] and not first["predictions"]["baseline"]["correct"]
    assert list(first["predictions"]) == ["mscl", "baseline"] and document["seed"] == 3
    assert all((out / f["file"]).stat().st_size > 10_000 for f in document["figures"]) and len(document["figures"]) == 2


def test_configured_templates_brackets_or_not(study):
    run_analysis(job(study, gradcam=("Lifting [something]",)), study / "out")
    document = json.loads((study / "out" / "gradcam.json").read_text())
    assert [f["template"] for f in document["figures"]] == [NAMES[2]]
    assert document["figures"][0]["reason"].startswith("mscl is right; there is no video")


def test_an_unknown_template_is_a_note_and_the_others_are_drawn(study):
    run_analysis(job(study, gradcam=("Lifting somethin", "Lifting something")), study / "out")
    document = json.loads((study / "out" / "gradcam.json").read_text())
    assert document["notes"] == [
        "analysis.gradcam: no class 'Lifting somethin' in the test data set; did you mean 'Lifting something'?"
    ]
    assert [figure["template"] for figure in document["figures"]] == ["Lifting something"]


def test_one_method_alone(study):
    out = study / "out"
    run_analysis(job(study, methods=("mscl", "mscl")), out)
    document = json.loads((out / "gradcam.json").read_text())
    assert list(document["figures"][0]["predictions"]) == ["mscl"]
    assert set(pd.read_csv(out / "pairs.csv")["block"]) == {"right"}


def test_a_missing_method_is_named(study):
    (study / "baseline" / "seed3" / "predictions.parquet").unlink()
    with pytest.raises(ValueError, match="baseline/seed3/predictions.parquet is missing; run its finetune"):
        run_analysis(job(study), study / "out")
