"""MoCo with an ageing queue: encoders, their momentum copies, InfoNCE (method.md §4)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mscl.config.schema import Contrast
from mscl.models import distributed


class Encoder(nn.Module):
    """A backbone and its 2-layer projection head: clips -> (stage maps, L2-normalised embedding z_BD)."""

    def __init__(self, backbone: nn.Module, dim: int):
        super().__init__()
        self.backbone = backbone
        width = backbone.feature_dim
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))

    def forward(self, x_BCTHW: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        maps = self.backbone.maps(x_BCTHW)
        return maps, F.normalize(self.head(self.backbone.pool(maps)).float(), dim=1)


class Queue(nn.Module):
    """The K most recent keys, each with its age in enqueue steps. It starts with random unit vectors."""

    def __init__(self, size: int, dim: int, decay: float):
        super().__init__()
        self.decay = decay
        self.register_buffer("keys_KD", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("age_K", torch.zeros(size, dtype=torch.long))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self._start: int | None = None  # what `pointer` holds; unknown until it is read

    def negatives(self) -> Tensor:
        """Keys scaled by decay^age, (K, D)."""
        return self.keys_KD * (self.decay ** self.age_K.to(self.keys_KD.dtype))[:, None]

    @torch.no_grad()
    def enqueue(self, k_BD: Tensor) -> None:
        """Replace the oldest B keys by new ones of age 0; all others become one step older. ValueError unless B divides K."""
        size, batch = len(self.keys_KD), len(k_BD)
        if size % batch:
            raise ValueError(f"the queue's length {size} is not a multiple of the batch {batch}")
        start = int(self.pointer) if self._start is None else self._start  # to read it from a GPU waits for the step
        self.age_K += 1
        self.keys_KD[start : start + batch] = k_BD.to(self.keys_KD.dtype)
        self.age_K[start : start + batch] = 0
        self._start = (start + batch) % size
        self.pointer.fill_(self._start)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._start = None


def in_groups(encoder: Encoder, x_BCTHW: Tensor, groups: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Encode the batch in equal groups, each with its own batch-norm statistics, as each GPU of several would."""
    parts = [encoder(x) for x in x_BCTHW.chunk(groups)]
    if len(parts) == 1:
        return parts[0]
    maps, z = zip(*parts)
    return tuple(torch.cat(level) for level in zip(*maps)), torch.cat(z)


def own_groups(groups: int) -> int:
    """Number of batch-norm groups in this process, of `groups` in the whole batch; at least one."""
    return distributed.groups(groups) // distributed.size()


class MoCo(nn.Module):
    """A query encoder, its momentum copy and its queue.

    Shuffle-BN: keys are normalised in other groups than their queries. Otherwise query and key share batch statistics, which no
    key in the queue has; the network then recognises the key by these statistics and learns nothing else.
    """

    def __init__(self, encoder: Encoder, queue: Queue, groups: int = 1, momentum: float = 0.994):
        super().__init__()
        self.query = encoder
        self.key = copy.deepcopy(encoder).requires_grad_(False)
        self.queue, self.groups, self.momentum = queue, groups, momentum

    def encode_query(self, x_BCTHW: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Stage maps and embedding of the queries."""
        return in_groups(self.query, x_BCTHW, own_groups(self.groups))

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """key <- m * key + (1 - m) * query, over parameters, with the momentum m of this progress of the training.

        Batch-norm statistics are the key's own.
        """
        m = key_momentum(progress, self.momentum)
        torch._foreach_lerp_(list(self.key.parameters()), list(self.query.parameters()), 1.0 - m)

    @torch.no_grad()
    def encode_key(self, x_BCTHW: Tensor) -> Tensor:
        """Embedding of the keys, (B, D), encoded in groups shuffled over all processes and put back in order."""
        if max(self.groups, distributed.size()) == 1:
            return self.key(x_BCTHW)[1]
        own = distributed.rows(len(x_BCTHW) * distributed.size())
        order = torch.randperm(len(x_BCTHW) * distributed.size()).to(
            x_BCTHW.device, non_blocking=True
        )  # the same in every process
        shuffled = torch.empty_like(x_BCTHW).copy_(distributed.gather(x_BCTHW)[order[own]])  # in the same memory format
        z_BD = distributed.gather(in_groups(self.key, shuffled, own_groups(self.groups))[1])
        return z_BD[order.argsort()[own]]


def build_moco(backbone: nn.Module, contrast: Contrast) -> MoCo:
    """An encoder over `backbone`, with the queue that `contrast` describes."""
    encoder = Encoder(backbone, contrast.dim)
    return MoCo(encoder, Queue(contrast.queue, contrast.dim, contrast.decay), contrast.bn_groups, contrast.momentum)


def key_momentum(progress: float, base: float) -> float:
    """Key momentum at `progress` in [0,1] of the training: base at the start, 1 at the end, by a cosine."""
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0
