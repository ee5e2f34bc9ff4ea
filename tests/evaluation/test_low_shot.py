"""A target with few training videos, drawn twice: features are extracted once, every measure sees the drawn videos, tables average."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mscl.config.schema import load_config
from mscl.evaluation import embed
from mscl.evaluation.frozen import evaluate_frozen
from mscl.reporting.report import build_report
from mscl.stages import build
from mscl.stages.jobs import ReportJob
from mscl.stages.table import STAGES, planned
from mscl.training.few import draw_few
from mscl.training.finetune import finetune
from mscl.training.linear import linear
from tests.conftest import tiny_config

MEASURES = ["finetune", "linear", "probe", "knn"]
RUN = {"finetune": finetune, "linear": linear, "embed": embed.embed, "frozen": evaluate_frozen}


@pytest.fixture(scope="module")
def config(prepared, tmp_path_factory):
    values = tiny_config(prepared.paths.data.parent) | {"methods": ["scratch"]}
    values["paths"] = values["paths"] | {"results": str(tmp_path_factory.mktemp("few") / "results")}
    few = {"dataset": "ss", "name": "ss-few", "per_class": 1, "draws": 2, "measures": MEASURES}
    few |= {"finetune": {"epochs": 1}, "linear": {"epochs": 1, "warmup": 0}}
    values["targets"] = [{"dataset": "ss", "measures": ["knn"]}, few]
    return load_config(values)


def test_draws_share_features_and_are_averaged_in_the_tables(config, monkeypatch):
    passes = []
    real = embed.extract_features
    monkeypatch.setattr(embed, "extract_features", lambda *given: passes.append(1) or real(*given))
    jobs = list(planned(config, *RUN))
    assert [(job.stage.name, job.values["target"]) for job in jobs] == [
        *((stage, f"ss-few-draw{draw}") for stage in ("finetune", "linear") for draw in (1, 2)),
        ("embed", "ss"),  # of the target that uses all videos; the draws read the same file
        *(("frozen", name) for name in ("ss", "ss-few-draw1", "ss-few-draw2")),
    ]
    from mscl.stages.layout import Layout

    for job in jobs:
        settings = job.stage.settings(config, job.values)
        RUN[job.stage.name](settings, Path(job.stage.makes(Layout(config), **job.values)["card"].replace("/cards/", "/")).parent)
    assert len(passes) == 2  # the training and the test split, once
    results = config.paths.results
    one = json.loads((results / "frozen/ss-few-draw1/r18/scratch/seed0/metrics.json").read_text())
    assert one["videos"] == 12 and set(one["measures"]) == {"probe", "knn"}
    build_report(ReportJob(config=config), results, results / "report")
    table = pd.read_csv(results / "report/tables/table3.csv").set_index("target")
    assert list(table.index) == ["ss", "ss-few, mean of 2 draws"]
    runs = pd.read_csv(results / "report/tables/runs.csv").set_index("target")
    assert list(runs.index) == ["ss", "ss-few-draw1", "ss-few-draw2"]
    for key in ("top1", "linear_top1", "probe_top1", "knn_top1"):
        draws = runs[key].iloc[1:]
        mean, deviation = table.loc["ss-few, mean of 2 draws", [key, f"{key}_std"]]
        assert mean == pytest.approx(100 * draws.mean()) and deviation == pytest.approx(100 * draws.std(ddof=1))
    page = (results / "report/report.md").read_text()
    assert "2 (1 x 2 draws)" in page and "ss-few (per_class: 1, 2 draws)" in page and "Linear (SGD) top-1" in page
    assert (results / "report/figures/linear_top1.png").exists() and "Pairs of" not in page


def test_measures_of_a_draw_see_its_videos_alone(config, tmp_path):
    run = {"target": "ss-few-draw2", "model": "r18", "method": "scratch", "seed": 0}
    job = STAGES["frozen"].settings(config, run)
    assert job.reads() == {"features": [Path(job.features)]} and "/embed/ss/" in str(job.features)
    own = job.model_copy(update={"features": tmp_path / "features.npz"})
    embed.embed(STAGES["embed"].settings(config, run | {"target": "ss"}), tmp_path)
    found = embed.read_embedding(own.features)
    kept = draw_few(found.train, job.few, 0, "")
    assert len(kept) == kept.label.nunique() == found.train.label.nunique()
    evaluate_frozen(own, tmp_path)
    gallery = found.train_x[kept.index] / np.linalg.norm(found.train_x[kept.index], axis=1, keepdims=True)
    query = found.test_x / np.linalg.norm(found.test_x, axis=1, keepdims=True)
    similarity = query @ gallery.T  # one video a class and k = 20: the vote is for the most similar one
    right = kept.label.to_numpy()[similarity.argmax(1)] == found.test.label.to_numpy()
    assert json.loads((tmp_path / "metrics.json").read_text())["measures"]["knn"]["top1"] == right.mean()


def test_features_stored_and_features_of_the_job_give_the_same_numbers(prepared, config, tmp_path):
    run = {"target": "ss", "model": "r18", "method": "scratch", "seed": 0}
    embed.embed(STAGES["embed"].settings(config, run), tmp_path)
    job = STAGES["frozen"].settings(prepared, run)
    assert job.features is None  # nothing is stored where no target draws videos
    evaluate_frozen(job, tmp_path / "own")
    evaluate_frozen(job.model_copy(update={"features": tmp_path / "features.npz"}), tmp_path / "stored")
    assert (tmp_path / "own/metrics.json").read_bytes() == (tmp_path / "stored/metrics.json").read_bytes()
    (tmp_path / "features.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="features.npz: not readable features .*; run the embed stage again"):
        embed.read_embedding(tmp_path / "features.npz")


def test_too_few_videos_end_a_job_at_its_start(config, tmp_path):
    run = {"target": "ss-few-draw1", "model": "r18", "method": "scratch", "seed": 0}
    job = STAGES["linear"].settings(config, run)
    job = job.model_copy(update={"few": job.few.model_copy(update={"per_class": 50})})
    with pytest.raises(ValueError, match="ss.parquet, split 'train': per_class: 50, but class '.*' has 2 usable training videos"):
        linear(job, tmp_path)


def test_targets_that_see_other_clips_have_features_of_their_own(config):
    values = config.model_dump(mode="json")
    values["targets"][0]["clips"] = 3
    other = load_config(values)
    assert build.features_of(other, "ss", "r18") is None
    assert build.features_of(other, "ss-few-draw2", "r18") == "ss-few-draw1"
