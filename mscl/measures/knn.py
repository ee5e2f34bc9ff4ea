"""k-NN classification of the test videos by the training videos (Wu et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mscl.measures.neighbours import unit, votes

CHUNK = 1024  # test videos per block of the similarity matrix, to limit memory
K, TEMPERATURE = 20, 0.07  # of Wu et al.


def knn(train_x: np.ndarray, train_y: Sequence[int], test_x: np.ndarray, test_y: Sequence[int], k: int = K) -> dict[str, float]:
    """Weighted k-NN classification (Wu et al., CVPR 2018): {"top1": accuracy in [0, 1]} on the test features.

    Features are (N, D) and (M, D), labels (N,) and (M,). Each test video is classified by its k nearest training videos by cosine
    similarity; the weight of a vote is proportional to exp(similarity / 0.07). k is 20, or the number of training videos if that
    is smaller.
    """
    gallery, labels, truth = unit(train_x), np.asarray(train_y), np.asarray(test_y)
    classes, right = int(max(labels.max(), truth.max())) + 1, 0
    for start in range(0, len(truth), CHUNK):
        part = slice(start, start + CHUNK)
        similarity = unit(test_x[part]) @ gallery.T
        found = votes(similarity, labels, min(k, len(gallery)), classes, lambda s: np.exp((s - 1) / TEMPERATURE))
        right += int((found.argmax(1) == truth[part]).sum())
    return {"top1": right / len(truth)}
