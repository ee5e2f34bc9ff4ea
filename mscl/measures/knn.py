"""k-nearest-neighbour classification of features by cosine similarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

CHUNK = 1024  # test videos per block of the similarity matrix, to limit memory
K, TEMPERATURE = 20, 0.07  # of Wu et al., CVPR 2018

Weight = Callable[[np.ndarray], np.ndarray]  # similarities -> weights of the votes


def _unit(features_ND: np.ndarray) -> np.ndarray:
    """L2-normalised rows, float32 (N, D)."""
    features = np.asarray(features_ND, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _votes(similarity_MN: np.ndarray, labels_N: np.ndarray, k: int, classes: int, weight: Weight) -> np.ndarray:
    """Votes (M, classes): for each of the M rows, `weight(similarity)` summed over its k most similar neighbours, by class."""
    near = np.argpartition(-similarity_MN, k - 1, axis=1)[:, :k]
    rows = np.arange(len(near))[:, None]
    votes = np.zeros((len(near), classes))
    np.add.at(votes, (rows, labels_N[near]), weight(similarity_MN[rows, near]))
    return votes


def leave_one_out(features_ND: np.ndarray, labels_N: np.ndarray, k: int = 5) -> float:
    """Leave-one-out k-NN accuracy in [0, 1] of features (N, D) with labels (N,).

    Each video is classified by its k nearest neighbours among the others; the weight of a vote is its cosine similarity + 1.
    """
    z, labels = _unit(features_ND), np.asarray(labels_N)
    similarity = z @ z.T
    np.fill_diagonal(similarity, -np.inf)
    votes = _votes(similarity, labels, min(k, len(z) - 1), int(labels.max()) + 1, lambda s: s + 1)
    return float((votes.argmax(1) == labels).mean())


def knn(train_x: np.ndarray, train_y: Sequence[int], test_x: np.ndarray, test_y: Sequence[int], k: int = K) -> dict[str, float]:
    """Weighted k-NN classification (Wu et al., CVPR 2018): {"top1": accuracy in [0, 1]} on the test features.

    Features are (N, D) and (M, D), labels (N,) and (M,). Each test video is classified by its k nearest training videos by cosine
    similarity; the weight of a vote is exp(similarity / 0.07). k is 20, or the number of training videos if that is smaller.
    """
    gallery, labels, truth = _unit(train_x), np.asarray(train_y), np.asarray(test_y)
    classes, right = int(max(labels.max(), truth.max())) + 1, 0
    for start in range(0, len(truth), CHUNK):
        part = slice(start, start + CHUNK)
        similarity = _unit(test_x[part]) @ gallery.T
        votes = _votes(similarity, labels, min(k, len(gallery)), classes, lambda s: np.exp((s - 1) / TEMPERATURE))
        right += int((votes.argmax(1) == truth[part]).sum())
    return {"top1": right / len(truth)}
