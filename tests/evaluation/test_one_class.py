"""Where only one class has usable videos, nothing can be measured; every stage says so, and there is a report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mscl.config.schema import load_config
from mscl.datasets.health import health
from mscl.evaluation.analysis import run_analysis
from mscl.evaluation.frozen import _constant, evaluate_frozen, nothing_to_measure
from mscl.reporting.report import build_report
from mscl.stages import build
from mscl.stages.jobs import ReportJob, Source
from mscl.stages.layout import Layout
from mscl.stages.table import STAGES
from mscl.training.finetune import finetune
from tests.conftest import tiny_config
from tests.store.shards import write_frames


@pytest.fixture
def one_class(prepared, tmp_path):
    """A configuration of one method, and its source with a manifest whose videos of all classes but one are of no split."""
    values = tiny_config(prepared.paths.data.parent) | {"methods": ["scratch"]}
    values["paths"] = values["paths"] | {"results": str(tmp_path / "results")}
    config = load_config(values)
    source = build.source(config, "ss")
    manifest = pd.read_parquet(source.manifest)
    kept = manifest.label[manifest.split == "train"].iloc[0]
    manifest.loc[manifest.label != kept, "split"] = "unused"
    manifest.to_parquet(tmp_path / "one.parquet")
    return config, source.model_copy(update={"manifest": tmp_path / "one.parquet"})


def test_there_is_a_report_of_one_class_with_the_reasons(one_class, tmp_path, capsys):
    config, source = one_class
    at, run = Layout(config), {"target": "ss", "model": "r18", "method": "scratch", "seed": 0}
    fine, frozen = (STAGES[stage].settings(config, run).model_copy(update={"source": source}) for stage in ("finetune", "frozen"))
    finetune(fine, Path(at.finetune("ss", "r18", "scratch", 0)))
    assert "usable training videos are of one class, so the accuracy will say nothing" in capsys.readouterr().out
    evaluate_frozen(frozen, Path(at.frozen("ss", "r18", "scratch", 0)))
    metrics = json.loads((Path(at.frozen("ss", "r18", "scratch", 0)) / "metrics.json").read_text())
    assert all(np.isnan(value) for columns in metrics["measures"].values() for value in columns.values())
    assert metrics["notes"] == [nothing_to_measure([3, 3], [3])] and "of 1 class, and a measure needs 2" in metrics["notes"][0]
    run_analysis(build.analysis_job(config, "ss", "r18").model_copy(update={"source": source}), Path(at.analysis("ss", "r18")))
    build_report(ReportJob(config=config), Path(config.paths.results), tmp_path / "report")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "The frozen tests of r18, scratch, seed 0: not measured: the usable training videos are of 1 class" in page
    assert "## Table 2. Confusing pairs, measured" in page
    header = next(line for line in page.splitlines() if line.startswith("| Model") and "Top-1" in line)
    assert "Top-5" not in header and "Majority" in header and "Probe top-1" in header


def test_a_measure_needs_two_classes_and_a_test_video():
    assert nothing_to_measure([0, 1], [0]) == ""
    assert "of 0 classes" in nothing_to_measure([], [0]) and "the test split has no usable video" in nothing_to_measure(
        [0, 1], []
    )


def test_a_probe_that_predicts_one_class_says_so(one_class):
    found = {"probe": {"top1": 0.5, "alpha": 100000.0, "predicted_classes": 1}, "knn": {"top1": 0.5}}
    assert _constant(found) == [
        "probe: one class is predicted for every test video (alpha 100000), so its accuracy is the share of that class and says nothing "
        "about the features"
    ]
    assert _constant({"probe": {"top1": 0.5, "alpha": 1.0, "predicted_classes": 2}}) == []


def test_frozen_metrics_keep_what_the_probe_was_made_of(prepared, tmp_path):
    job = STAGES["frozen"].settings(prepared, {"target": "ss", "model": "r18", "method": "scratch", "seed": 0})
    evaluate_frozen(job, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"top1", "train_top1", "alpha", "predicted_classes"} == set(metrics["measures"]["probe"])
    labels = pd.read_parquet(job.source.manifest).query("split == 'validation'").label
    assert metrics["majority"] == labels.value_counts().max() / len(labels)


def test_the_health_of_the_data_names_a_class_whose_videos_are_all_broken(tmp_path):
    table = {
        "clip_id": ["a", "b"],
        "path": ["x/a", "x/b"],
        "split": "train",
        "label": [0, 1],
        "class_name": ["bow", "wave"],
        "status": "ok",
    }
    frame = pd.DataFrame(table)
    frame.attrs = {"notes": ["1 file(s) are not videos and are ignored (1 .txt)"]}
    frame.to_parquet(tmp_path / "m.parquet")
    write_frames(tmp_path / "0000.parquet", {"a": [b"\xff\xd8\xff\xd9"]})
    source = Source(name="d", manifest=tmp_path / "m.parquet", frames=tmp_path, shards=1)
    notes = health(source)["notes"]
    assert notes[0] == frame.attrs["notes"][0] and notes[1].startswith(
        "split 'train': all 1 usable videos are of one class, 'bow'"
    )
