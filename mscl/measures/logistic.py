"""Logistic regression on frozen features (the linear classifier of SimCLR's and SEVERE-benchmark's evaluations of features)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler

STRENGTHS = tuple(float(c) for c in np.logspace(-5, 2, 8))  # C, the inverse of the L2 penalty
HELD_OUT = 0.25  # share of the training videos on which C is chosen


def logistic(train_x: np.ndarray, train_y: Sequence[int], test_x: np.ndarray, test_y: Sequence[int]) -> dict[str, float]:
    """Multinomial logistic regression with an L2 penalty on standardised features.

    The strength C is chosen by the accuracy on a held-out quarter of the training videos (the smallest of equally good ones), then
    the classifier is fitted to all of them. Features are (N, D) and (M, D), labels (N,) and (M,). Returns {"top1", "train_top1":
    accuracies in [0, 1], "C", "predicted_classes": number of classes predicted for the test videos}. Deterministic.
    """
    labels, truth = np.asarray(train_y), np.asarray(test_y)
    scaler = StandardScaler().fit(np.asarray(train_x, np.float64))
    x, test = scaler.transform(np.asarray(train_x, np.float64)), scaler.transform(np.asarray(test_x, np.float64))
    fitted, held = held_out(labels)
    found = [_fit(x[fitted], labels[fitted], c).score(x[held], labels[held]) for c in STRENGTHS]
    best = STRENGTHS[int(np.argmax(found))]
    model = _fit(x, labels, best)
    predicted = model.predict(test)
    return {
        "top1": float(np.mean(predicted == truth)),
        "train_top1": float(model.score(x, labels)),
        "C": best,
        "predicted_classes": len(np.unique(predicted)),
    }


def held_out(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the videos to fit and of those to choose by: the same share of every class where each has enough videos."""
    counts = np.unique(labels, return_counts=True)[1]
    enough = counts.min() >= 2 and len(labels) * HELD_OUT >= len(counts)
    split = (StratifiedShuffleSplit if enough else ShuffleSplit)(1, test_size=HELD_OUT, random_state=0)
    fitted, held = next(split.split(labels, labels))
    if len(np.unique(labels[fitted])) < 2:  # a few videos only: choose by all of them
        return np.arange(len(labels)), np.arange(len(labels))
    return np.sort(fitted), np.sort(held)


def _fit(x: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000, tol=1e-4).fit(x, labels)
