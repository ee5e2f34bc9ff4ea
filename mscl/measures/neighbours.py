"""k-nearest-neighbour votes by cosine similarity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def unit(features_ND: np.ndarray) -> np.ndarray:
    """L2-normalised rows, float32 (N, D); a zero row stays zero."""
    features = np.asarray(features_ND, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def votes(
    similarity_MN: np.ndarray, labels_N: np.ndarray, k: int, classes: int, weight: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Votes (M, classes): for each of the M rows, `weight(similarity)` summed over its k most similar neighbours, by class."""
    near = np.argpartition(-similarity_MN, k - 1, axis=1)[:, :k]
    rows = np.arange(len(near))[:, None]
    found = np.zeros((len(near), classes))
    np.add.at(found, (rows, labels_N[near]), weight(similarity_MN[rows, near]))
    return found


def leave_one_out(features_ND: np.ndarray, labels_N: np.ndarray, k: int = 5) -> float:
    """Leave-one-out k-NN accuracy in [0, 1] of features (N, D) with labels (N,).

    Each video is classified by its k nearest neighbours among the others; the weight of a vote is its cosine similarity + 1.
    """
    z, labels = unit(features_ND), np.asarray(labels_N)
    similarity = z @ z.T
    np.fill_diagonal(similarity, -np.inf)
    found = votes(similarity, labels, min(k, len(z) - 1), int(labels.max()) + 1, lambda s: s + 1)
    return float((found.argmax(1) == labels).mean())
