"""k-NN classification of the test videos by the training videos, in the usual form (Wu et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mscl.measures.neighbours import unit, votes

CHUNK = 1024  # rows of similarities in memory at a time
K, TEMPERATURE = 20, 0.07


def knn(train_x: np.ndarray, train_y: Sequence[int], test_x: np.ndarray, test_y: Sequence[int], k: int = K) -> dict[str, float]:
    """{"top1"}: share of test videos whose class wins among their k nearest of train, each a vote of exp(similarity / .07).

    Features (N, D), labels (N,). Cosine similarity; k = 20, fewer where train is smaller.
    """
    gallery, labels, truth = unit(train_x), np.asarray(train_y), np.asarray(test_y)
    classes, right = int(max(labels.max(), truth.max())) + 1, 0
    for start in range(0, len(truth), CHUNK):
        part = slice(start, start + CHUNK)
        similarity = unit(test_x[part]) @ gallery.T
        found = votes(similarity, labels, min(k, len(gallery)), classes, lambda s: np.exp((s - 1) / TEMPERATURE))
        right += int((found.argmax(1) == truth[part]).sum())
    return {"top1": right / len(truth)}
