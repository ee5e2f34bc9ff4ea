"""Nearest-neighbour retrieval: the test split gives the queries, the training split is the gallery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CHUNK = 256  # queries per matrix product: limits memory to CHUNK x gallery float32 values


def centred(features_ND: np.ndarray) -> np.ndarray:
    """Features (N, D) minus their mean, with L2-normalised rows; a zero row stays zero. float32 (N, D)."""
    features = np.asarray(features_ND, dtype=np.float64)
    features = features - features.mean(axis=0, keepdims=True)
    # A collapsed model gives equal rows. After subtracting the mean only rounding errors are left; do not scale them to length 1.
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    tiny = 1e-9 * max(1.0, float(np.abs(np.asarray(features_ND)).max(initial=0.0)))
    return np.where(norm > tiny, features / np.maximum(norm, tiny), 0.0).astype(np.float32)


def retrieval(
    gallery_ND: np.ndarray,
    gallery_labels: Sequence[int],
    query_MD: np.ndarray,
    query_labels: Sequence[int],
    ks: Sequence[int] = (1, 5, 10, 20, 50),
) -> dict[str, float]:
    """R@k in [0, 1], keyed by str(k): the share of queries that have a video of their class among their k nearest neighbours.

    Features are (N, D) for the gallery and (M, D) for the queries. The mean of each split is subtracted, rows are L2-normalised,
    and similarity is the dot product. Among equal similarities other classes come first, so a collapsed representation scores 0,
    not 1. Raises ValueError when features and labels differ in number or there are none.
    """
    gallery_labels, query_labels = np.asarray(gallery_labels), np.asarray(query_labels)
    for name, rows, labels in (("gallery", gallery_ND, gallery_labels), ("query", query_MD, query_labels)):
        if len(rows) != len(labels) or not len(rows):
            raise ValueError(
                f"retrieval: {len(rows)} {name} features but {len(labels)} labels; give one label per feature, and at least one feature"
            )
    gallery, query = centred(gallery_ND), centred(query_MD)
    ahead = np.empty(len(query), dtype=np.int64)  # videos of other classes ranked before the first video of the query's class
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        similarity = query[part] @ gallery.T
        same = query_labels[part, None] == gallery_labels[None]
        best = np.where(same, similarity, -np.inf).max(axis=1, keepdims=True)
        ahead[part] = np.where(np.isneginf(best[:, 0]), len(gallery), (~same & (similarity >= best)).sum(axis=1))
    return {str(k): float(np.mean(ahead < min(k, len(gallery)))) for k in ks}
