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


def leave_one_out(features_ND: np.ndarray, labels_N: np.ndarray, k: int = 5, groups_N: np.ndarray | None = None) -> float:
    """Leave-one-out k-NN accuracy in [0, 1] of features (N, D) with labels (N,).

    Each video is classified by its k nearest neighbours among the others; the weight of a vote is its cosine similarity + 1. With
    groups (N,), only videos of other groups vote. NaN if all videos are of one group.
    """
    z, labels = unit(features_ND), np.asarray(labels_N)
    groups = np.arange(len(z)) if groups_N is None else np.asarray(groups_N)
    own = groups[:, None] == groups[None]
    similarity = np.where(own, -np.inf, z @ z.T)
    found = votes(similarity, labels, min(k, len(z) - 1), int(labels.max()) + 1, lambda s: np.where(np.isneginf(s), 0, s + 1))
    classified = ~own.all(1)
    return float((found.argmax(1) == labels)[classified].mean()) if classified.any() else float("nan")
