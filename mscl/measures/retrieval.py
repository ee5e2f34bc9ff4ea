"""Nearest-neighbour retrieval between splits: queries from the test split, gallery the training split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CHUNK = 256  # queries per matrix product: bounds memory at CHUNK x gallery float32


def centred(features_ND: np.ndarray) -> np.ndarray:
    """Features minus their own mean, each row of length 1 (a row of zeros stays zero). float32 (N, D)."""
    features = np.asarray(features_ND, dtype=np.float64)
    features = features - features.mean(axis=0, keepdims=True)
    # A collapsed model gives equal rows: what rounding leaves of them must not be blown up to unit length.
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
    """R@k in [0, 1], keyed by str(k): the share of queries with one of the k nearest of their class.

    Each split loses its own mean, rows are L2-normalised, similarity is the dot product. Among equal
    similarities the wrong classes come first, so a collapsed representation scores 0, not 1.
    """
    gallery_labels, query_labels = np.asarray(gallery_labels), np.asarray(query_labels)
    for name, rows, labels in (("gallery", gallery_ND, gallery_labels), ("query", query_MD, query_labels)):
        if len(rows) != len(labels) or not len(rows):
            raise ValueError(
                f"retrieval: {len(rows)} {name} features but {len(labels)} labels; need one label per feature, and at least one"
            )
    gallery, query = centred(gallery_ND), centred(query_MD)
    ahead = np.empty(len(query), dtype=np.int64)  # videos of other classes that come before the nearest of the own class
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        similarity = query[part] @ gallery.T
        same = query_labels[part, None] == gallery_labels[None]
        best = np.where(same, similarity, -np.inf).max(axis=1, keepdims=True)
        ahead[part] = np.where(np.isneginf(best[:, 0]), len(gallery), (~same & (similarity >= best)).sum(axis=1))
    return {str(k): float(np.mean(ahead < min(k, len(gallery)))) for k in ks}
