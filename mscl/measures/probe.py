"""Linear probe: accuracy of a linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge, RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelBinarizer, StandardScaler

ALPHAS = tuple(float(a) for a in np.logspace(-2, 5, 15))


FOLDS = 10  # parts of the training split in turn left out to choose the strength, where recordings have several clips


def linear_probe(
    train_x: np.ndarray,
    train_y: Sequence[int],
    test_x: np.ndarray,
    test_y: Sequence[int],
    groups: Sequence[int] | None = None,
) -> dict[str, float]:
    """Ridge classifier on standardised features. The regularisation strength is chosen by leave-one-out on the training split only.

    Features are (N, D), labels (N,). If several training videos are of one of the `groups` (N,), up to ten parts of whole groups
    are left out in turn instead of single videos (single videos again if there is only one group). Returns {"top1", "train_top1": accuracies in [0, 1], "alpha": the chosen strength,
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
    model = make_pipeline(StandardScaler(), _ridge(train_x, train_y, groups)).fit(train_x, train_y)
    predicted = model.predict(test_x)
    return {
        "top1": float(np.mean(predicted == test_y)),
        "train_top1": float(np.mean(model.predict(train_x) == train_y)),
        "alpha": _alpha(model[-1]),
        "predicted_classes": len(np.unique(predicted)),
    }


def _ridge(x: np.ndarray, y: np.ndarray, groups: Sequence[int] | None) -> RidgeClassifierCV | RidgeClassifier:
    """The classifier for raw features (N, D): it chooses its strength itself, or has the strength that is best for left-out groups."""
    number = 0 if groups is None else len(np.unique(groups))
    if number < 2 or number == len(y):
        return RidgeClassifierCV(alphas=ALPHAS)
    targets = LabelBinarizer(neg_label=-1).fit_transform(y)
    found = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": ALPHAS},
        scoring="neg_mean_squared_error",
        cv=GroupKFold(min(FOLDS, number)),
        refit=False,
    ).fit(x, targets, groups=groups)
    return RidgeClassifier(alpha=found.best_params_["ridge__alpha"])


def _alpha(model: RidgeClassifierCV | RidgeClassifier) -> float:
    return float(model.alpha_ if isinstance(model, RidgeClassifierCV) else model.alpha)
