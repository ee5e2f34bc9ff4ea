"""InfoNCE against a queue of keys (method.md section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(q_BD: Tensor, k_BD: Tensor, negatives_KD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of queries with their keys against the keys of a queue, scaled by their age (`mscl.models.moco.Queue.negatives`).

    Returns the mean loss and the share of queries whose own key is nearer than every negative.
    """
    with torch.autocast(q_BD.device.type, enabled=False):
        q_BD, k_BD = q_BD.float(), k_BD.float()
        positive_B1 = (q_BD * k_BD).sum(1, keepdim=True)
        logits = torch.cat([positive_B1, q_BD @ negatives_KD.T], 1) / temperature
        target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return F.cross_entropy(logits, target), (logits.argmax(1) == 0).float().mean()
