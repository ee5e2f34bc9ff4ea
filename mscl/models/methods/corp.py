"""CORP (Hu et al., Contrast and Order Representations for Video Self-Supervised Learning, ICCV 2021).

Of two clips: are they of one video, and if so, which comes first? One encoder, RGB alone; no key encoder and no queue: clips are compared
within the batch. Two models, `CorpM` (each pair a 3-way question) and `CorpF` (each clip finds its partner, and the order, among all
others of the batch). docs/rivals.md says what is confirmed by which source.

Shapes: B videos, K clips of each, D embedding, i the clip that asks, j the clip that it is compared with.
"""

from __future__ import annotations

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mscl.config.methods import Switches
from mscl.config.settings import Contrast
from mscl.models import distributed
from mscl.models.method import Method, Terms
from mscl.models.moco import Encoder, in_groups, own_groups
from mscl.models.networks.build import build_backbone
from mscl.models.view import View
from mscl.stages.jobs import Net

HEADS = 8  # the first half symmetric, the second antisymmetric


class PairHead(nn.Module):
    """Decoupled attention and a classifier over it: what two clips are to each other.

    Each head is a bilinear form of the two embeddings. Of the first half the symmetric part is kept (likeness: the same from either side),
    of the second half the antisymmetric part (order: it changes its sign).
    """

    def __init__(self, dim: int, classes: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.u, self.v = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.classify = nn.Sequential(nn.Linear(HEADS, dim), nn.ReLU(inplace=True), nn.Linear(dim, classes))

    def attention(self, a_iD: Tensor, b_jD: Tensor) -> Tensor:
        """(…, i, D) and (…, j, D) -> (…, i, j, HEADS)."""
        forth, back = self._forms(self.u(a_iD), self.v(b_jD)), self._forms(self.v(a_iD), self.u(b_jD))
        half = HEADS // 2
        return torch.cat([(forth + back)[..., :half], (forth - back)[..., half:]], -1) / 2

    def _forms(self, a_iD: Tensor, b_jD: Tensor) -> Tensor:
        a, b = (x.unflatten(-1, (HEADS, -1)) for x in (a_iD, b_jD))
        return torch.einsum("...ihd,...jhd->...ijh", a, b)

    def forward(self, a_iD: Tensor, b_jD: Tensor) -> Tensor:
        """Logits, (…, i, j, classes)."""
        return self.classify(self.attention(a_iD, b_jD) / self.temperature)


def order_loss(logits_P2: Tensor, delta_P: Tensor) -> tuple[Tensor, Tensor]:
    """Does j come after i (class 0) or before (class 1)? `delta` is j's start less i's; where it is 0 nothing is asked.

    Returns the loss of each pair and the share of the asked that are right.
    """
    before, asked = (delta_P < 0).long(), delta_P != 0
    loss_P = F.cross_entropy(logits_P2, before, reduction="none") * asked
    right = ((logits_P2.argmax(-1) == before) & asked).sum()
    return loss_P, right / asked.sum().clamp(min=1)


class Corp(Method):
    """What both models share. `forward(query, key, …)` returns the terms `rgb` (contrast) and `order`, whose sum is the published loss."""

    classes: int

    def __init__(self, net: Net, contrast: Contrast, switches: Switches):
        super().__init__()
        self.groups = contrast.bn_groups
        self.encoder = Encoder(build_backbone(net), contrast.dim)
        self.head = PairHead(contrast.dim, self.classes, contrast.temperature)

    def forward(self, *views: View) -> tuple[Terms, Terms]:
        # The clips of a video side by side, so that one batch-norm group has all of them.
        x = torch.stack([view.rgb_BCTHW for view in views], 1).flatten(0, 1)
        z_nD = in_groups(self.encoder, x, own_groups(self.groups))[1]
        with torch.autocast(z_nD.device.type, enabled=False):
            z_BKD = distributed.gather_with_gradient(z_nD.float()).unflatten(0, (-1, len(views)))
            start_BK = distributed.gather(torch.stack([view.start_B for view in views], 1))
            if len(z_BKD) < 2:
                raise ValueError(
                    "CORP tells videos apart, and there is one only: raise models.*.pretrain.batch or lower accumulate"
                )
            return self.compare(z_BKD, start_BK, distributed.rows(len(z_BKD)))

    def compare(self, z_BKD: Tensor, start_BK: Tensor, own: slice) -> tuple[Terms, Terms]:
        """Losses and accuracies of the videos `own` among all."""
        raise NotImplementedError


class CorpM(Corp):
    """Each ordered pair of clips of two videos: of different ones, j after i, or j before i. A video is set beside the next of the batch."""

    classes = 3

    def compare(self, z_BKD: Tensor, start_BK: Tensor, own: slice) -> tuple[Terms, Terms]:
        K = z_BKD.shape[1]
        two, start = (torch.cat([x, x.roll(-1, 0)], 1)[own] for x in (z_BKD, start_BK))
        logits = self.head(two, two)  # (B, 2K, 2K, 3)
        i, j = torch.tensor(list(permutations(range(2 * K), 2)), device=two.device).T
        same, delta = (i // K == j // K).expand(len(two), -1), start[:, j] - start[:, i]
        different, ordered = logits[:, i, j].split([1, 2], -1)
        question = torch.cat([different, ordered.logsumexp(-1, keepdim=True)], -1).flatten(0, 1)
        order, told = order_loss(ordered.flatten(0, 1), (delta * same).flatten())
        losses = {"rgb": F.cross_entropy(question, same.flatten().long()), "order": order.mean()}
        return losses, {"rgb": (question.argmax(-1) == same.flatten()).float().mean(), "order": told}


class CorpF(Corp):
    """Each clip finds, among all others of the batch, the one of its own video and whether it comes after or before: 2(2B-1) answers."""

    classes = 2

    def compare(self, z_BKD: Tensor, start_BK: Tensor, own: slice) -> tuple[Terms, Terms]:
        every, start = z_BKD.flatten(0, 1), start_BK.flatten()
        i = torch.arange(len(every), device=every.device).view(-1, 2)[own].flatten()
        partner = i ^ 1  # the other clip of the same video
        logits = self.head(every[i], every)  # (i, j, 2)
        scores = logits.logsumexp(-1).scatter(1, i[:, None], float("-inf"))  # over both orders; no clip is its own partner
        order, told = order_loss(logits[torch.arange(len(i), device=i.device), partner], start[partner] - start[i])
        losses = {"rgb": F.cross_entropy(scores, partner), "order": order.mean()}
        return losses, {"rgb": (scores.argmax(1) == partner).float().mean(), "order": told}
