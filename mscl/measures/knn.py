"""k-nearest-neighbour classification of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F

K = 5


def knn_top1(features_ND: torch.Tensor, labels_N: torch.Tensor, k: int = K) -> float:
    """Share of videos whose k nearest others (cosine, each a vote of its similarity) name their class."""
    z = F.normalize(features_ND, dim=1)
    near = (z @ z.T).fill_diagonal_(-torch.inf).topk(min(k, len(z) - 1))
    votes = torch.zeros(len(z), int(labels_N.max()) + 1)
    votes.scatter_add_(1, labels_N[near.indices], near.values + 1)  # above zero, so that any vote counts
    return (votes.argmax(1) == labels_N).float().mean().item()
