"""Linear probe: accuracy of a linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ALPHAS = tuple(float(a) for a in np.logspace(-2, 5, 15))


def linear_probe(train_x: np.ndarray, train_y: Sequence[int], test_x: np.ndarray, test_y: Sequence[int]) -> dict[str, float]:
    """Ridge classifier on standardised features. The regularisation strength is chosen by leave-one-out on the training split only.

    Features are (N, D), labels (N,). Returns {"top1", "train_top1": accuracies in [0, 1], "alpha": the chosen strength,
    "predicted_classes": number of classes that it predicts for the test videos}. Deterministic.
    Raises ValueError with fewer than 2 training classes or without a test video.
    """
    train_x, test_x = np.asarray(train_x, dtype=np.float64), np.asarray(test_x, dtype=np.float64)
    train_y, test_y = np.asarray(train_y), np.asarray(test_y)
    if len(np.unique(train_y)) < 2:
        raise ValueError("linear_probe: the training split has fewer than 2 classes; a classifier needs at least 2")
    if not len(test_y):
        raise ValueError(
            "linear_probe: the test split has no usable video; the table of unusable videos in the report gives the reasons"
        )
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=ALPHAS)).fit(train_x, train_y)
    predicted = model.predict(test_x)
    return {
        "top1": float(np.mean(predicted == test_y)),
        "train_top1": float(np.mean(model.predict(train_x) == train_y)),
        "alpha": float(model[-1].alpha_),
        "predicted_classes": len(np.unique(predicted)),
    }
