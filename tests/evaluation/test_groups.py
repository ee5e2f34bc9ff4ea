"""Measures of the frozen features that split the training videos are told which of these are of one recording."""

import json

import numpy as np
import pandas as pd

from mscl.evaluation.frozen import evaluate_frozen
from mscl.stages import build


def count(train_x, train_y, test_x, test_y, groups):
    """How many recordings the training videos have, and whether there is a number for each video."""
    return {"recordings": float(len(np.unique(groups))), "videos": float(len(groups) == len(train_y))}


def test_a_measure_that_asks_gets_the_recordings_of_the_training_videos(prepared, tmp_path):
    job = build.frozen_job(prepared, "ss", "r18", "scratch", 0)
    rows = pd.read_parquet(job.source.manifest)
    train = rows.split == "train"
    rows.assign(group=[f"g{n % 5}" if t else "test" for n, t in enumerate(train)]).to_parquet(tmp_path / "m.parquet")
    source = job.source.model_copy(update={"manifest": tmp_path / "m.parquet"})
    measures = ("probe", "logistic", "knn", f"{__name__}:count")
    evaluate_frozen(job.model_copy(update={"source": source, "measures": measures}), tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())["measures"]
    assert found[f"{__name__}:count"] == {"recordings": 5.0, "videos": 1.0}
    assert all(np.isfinite(found[name]["top1"]) for name in ("probe", "logistic", "knn"))
