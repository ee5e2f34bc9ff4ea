"""Local Motion Contrastive Learning and Flow Rotation Augmentation (method.md §5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_vectors(map_BCTHW: Tensor) -> Tensor:
    """L2-normalised spatial means at every time, (B, T, C)."""
    return F.normalize(map_BCTHW.float().mean((3, 4)).transpose(1, 2), dim=2)


def lmcl(u_BTD: Tensor, v_BTD: Tensor, extra_BTD: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """Each time of the RGB clip must find the flow of its own time among those of its own video.

    `extra_BTD` (the rotated flow) adds T negatives. RGB -> flow only. Returns the mean loss over
    clips and times, and the share of times found.
    """
    with torch.autocast(u_BTD.device.type, enabled=False):
        candidates = v_BTD if extra_BTD is None else torch.cat([v_BTD, extra_BTD], 1)
        logits_BTN = torch.einsum("btd,bnd->btn", u_BTD.float(), candidates.float()) / temperature
        B, T = logits_BTN.shape[:2]
        target = torch.arange(T, device=logits_BTN.device).repeat(B)
        logits = logits_BTN.flatten(0, 1)
        return F.cross_entropy(logits, target), (logits.argmax(1) == target).float().mean()
