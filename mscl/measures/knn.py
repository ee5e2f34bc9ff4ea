"""k-nearest-neighbour classification of features, by cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CHUNK = 1024  # rows of similarities in memory at a time
K, TEMPERATURE = 20, 0.07


def _unit(features_ND: np.ndarray) -> np.ndarray:
    features = np.asarray(features_ND, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _votes(similarity_MN: np.ndarray, labels_N: np.ndarray, k: int, classes: int, weight) -> np.ndarray:
    """For each row, the sum over its k most similar of `weight(similarity)`, by class: (M, classes)."""
    near = np.argpartition(-similarity_MN, k - 1, axis=1)[:, :k]
    rows = np.arange(len(near))[:, None]
    votes = np.zeros((len(near), classes))
    np.add.at(votes, (rows, labels_N[near]), weight(similarity_MN[rows, near]))
    return votes


def leave_one_out(features_ND: np.ndarray, labels_N: np.ndarray, k: int = 5) -> float:
    """Share of videos whose k nearest others (each a vote of its similarity + 1) name their class."""
    z, labels = _unit(features_ND), np.asarray(labels_N)
    similarity = z @ z.T
    np.fill_diagonal(similarity, -np.inf)
    votes = _votes(similarity, labels, min(k, len(z) - 1), int(labels.max()) + 1, lambda s: s + 1)
    return float((votes.argmax(1) == labels).mean())


def knn(train_x: np.ndarray, train_y: Sequence[int], test_x: np.ndarray, test_y: Sequence[int], k: int = K) -> dict[str, float]:
    """{"top1"}: share of test videos whose class wins among their k nearest of train, each a vote of exp(similarity / .07).

    The usual form (Wu et al., CVPR 2018): cosine similarity, k = 20; fewer where train is smaller.
    """
    gallery, labels, truth = _unit(train_x), np.asarray(train_y), np.asarray(test_y)
    classes, right = int(max(labels.max(), truth.max())) + 1, 0
    for start in range(0, len(truth), CHUNK):
        part = slice(start, start + CHUNK)
        similarity = _unit(test_x[part]) @ gallery.T
        votes = _votes(similarity, labels, min(k, len(gallery)), classes, lambda s: np.exp((s - 1) / TEMPERATURE))
        right += int((votes.argmax(1) == truth[part]).sum())
    return {"top1": right / len(truth)}
