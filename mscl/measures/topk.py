"""Top-k accuracy from ranked predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def top_k_accuracy(ranked: Sequence[Sequence[int]], labels: Sequence[int], k: int) -> float:
    """Share in [0, 1] of videos whose label is among their first `k` ranked classes; NaN without videos."""
    hits = [label in list(classes)[:k] for classes, label in zip(ranked, labels, strict=True)]
    return float(np.mean(hits)) if hits else float("nan")


def with_prediction(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of a predictions table that have a prediction and a label."""
    return predictions[(predictions["top"].map(len) > 0) & (predictions["label"] >= 0)]


def majority_share(labels: Sequence[int]) -> float:
    """Share in [0, 1] of the most frequent label: what always answering it would score; NaN without labels."""
    return float(pd.Series(labels).value_counts(normalize=True).iloc[0]) if len(labels) else float("nan")


def metrics_from_predictions(predictions: pd.DataFrame, classes: int) -> dict:
    """Accuracies of one test run, recomputed from its `predictions.parquet`.

    `predictions` has the columns `label` and `top` (classes, best first; empty for a skipped video). Skipped videos are counted
    in `skipped` and not in the accuracies. Returns {"top1", "top5": in [0, 1], "videos", "skipped"}. Raises ValueError when a
    label or a predicted class is not below `classes`.
    """
    rows = with_prediction(predictions)
    highest = max([int(rows["label"].max()), *(int(max(t)) for t in rows["top"])]) if len(rows) else -1
    if highest >= classes:
        raise ValueError(
            f"predictions: class {highest} is not one of {classes} classes; the manifest does not belong to this model; run finetuning again"
        )
    accuracy = {f"top{k}": top_k_accuracy(rows["top"].tolist(), rows["label"].tolist(), k) for k in (1, 5)}
    return accuracy | {"videos": len(rows), "skipped": len(predictions) - len(rows)}
