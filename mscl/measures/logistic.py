"""Logistic regression on frozen features (the linear classifier of SimCLR's and SEVERE-benchmark's evaluations of features)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedGroupKFold, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler

STRENGTHS = tuple(float(c) for c in np.logspace(-5, 2, 8))  # C, the inverse of the L2 penalty
HELD_OUT = 0.25  # share of the training videos on which C is chosen


def logistic(
    train_x: np.ndarray,
    train_y: Sequence[int],
    test_x: np.ndarray,
    test_y: Sequence[int],
    groups: Sequence[int] | None = None,
) -> dict[str, float]:
    """Multinomial logistic regression with an L2 penalty on standardised features.

    The strength C is chosen by the accuracy on a held-out quarter of the training videos (the smallest of equally good ones), then
    the classifier is fitted to all of them. Features are (N, D) and (M, D), labels (N,) and (M,); training videos of one of the
    `groups` (N,) are held out together. Returns {"top1", "train_top1": accuracies in [0, 1], "C", "predicted_classes": number of classes predicted for the test videos}. Deterministic.
    """
    labels, truth = np.asarray(train_y), np.asarray(test_y)
    scaler = StandardScaler().fit(np.asarray(train_x, np.float64))
    x, test = scaler.transform(np.asarray(train_x, np.float64)), scaler.transform(np.asarray(test_x, np.float64))
    fitted, held = held_out(labels, groups)
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


def held_out(labels: np.ndarray, groups: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the videos to fit and of those to choose by: the same share of every class where each has enough videos.

    Videos of one group are in the same part. Where this leaves fewer than two classes to fit, both parts are all videos.
    """
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if len(np.unique(groups)) == 1:
        return np.arange(len(labels)), np.arange(len(labels))
    single = len(np.unique(groups)) == len(labels)
    fitted, held = next(
        _single(labels).split(labels, labels) if single else _grouped(labels, groups).split(labels, labels, groups)
    )
    if len(np.unique(labels[fitted])) < 2:  # a few videos only: choose by all of them
        return np.arange(len(labels)), np.arange(len(labels))
    return np.sort(fitted), np.sort(held)


def _single(labels: np.ndarray) -> StratifiedShuffleSplit | ShuffleSplit:
    """How videos are held out one by one."""
    counts = np.unique(labels, return_counts=True)[1]
    enough = counts.min() >= 2 and len(labels) * HELD_OUT >= len(counts)
    return (StratifiedShuffleSplit if enough else ShuffleSplit)(1, test_size=HELD_OUT, random_state=0)


def _grouped(labels: np.ndarray, groups: np.ndarray) -> StratifiedGroupKFold | GroupShuffleSplit:
    """How whole groups are held out: by class where every class has a group for each of the parts."""
    parts = round(1 / HELD_OUT)
    if min(len(np.unique(groups[labels == label])) for label in np.unique(labels)) >= parts:
        return StratifiedGroupKFold(parts, shuffle=True, random_state=0)
    return GroupShuffleSplit(1, test_size=HELD_OUT, random_state=0)


def _fit(x: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000, tol=1e-4).fit(x, labels)
