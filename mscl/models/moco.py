"""MoCo with an ageing queue: encoders, their momentum copies, InfoNCE (method.md §4)."""

from __future__ import annotations

import copy
import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mscl.config.settings import Contrast
from mscl.models import distributed
from mscl.models.networks.blocks import GroupedBatchNorm3d, grouped


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
    """Encode the batch in equal groups, each with its own batch-norm statistics, as each GPU of several would.

    Where every batch norm is one of `GroupedBatchNorm3d`, only they know the groups, and all else computes the whole batch at once.
    A network of somebody else's encodes one group after another, and so does ours where `compute.kernels.groups` says so.
    """
    if groups == 1:
        return encoder(x_BCTHW)
    norms = [m for m in encoder.modules() if isinstance(m, _BatchNorm)]
    if norms and all(isinstance(m, GroupedBatchNorm3d) and m.together for m in norms):
        with grouped(norms, groups):
            return encoder(x_BCTHW)
    maps, z = zip(*(encoder(x) for x in x_BCTHW.chunk(groups)))
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

    def send_keys(self, x_BCTHW: Tensor) -> Keys:
        """Send key clips to the groups that will encode them. Call it early, and let them travel while queries are encoded."""
        return Keys(self, x_BCTHW)


class Keys:
    """Keys of one kind in one part of a batch. They travel twice: as clips to their groups, as embeddings back.

    Nothing waits where a journey begins. Every process must make, encode and read its keys in the same order.
    """

    def __init__(self, moco: MoCo, x_BCTHW: Tensor):
        total = len(x_BCTHW) * distributed.size()
        self.moco, self._own, self._order = moco, distributed.rows(total), None
        if max(moco.groups, distributed.size()) == 1:
            self._clips = lambda: x_BCTHW
        else:
            self._order = torch.randperm(total)  # the same in every process
            self._clips = distributed.shuffle_later(x_BCTHW, self._order)

    @torch.no_grad()
    def encode(self) -> Keys:
        """Encode the clips that have come to this process, each group by itself, and send their embeddings back."""
        z_BD = in_groups(self.moco.key, self._clips(), own_groups(self.moco.groups))[1]
        self._z = distributed.gather_later(z_BD)
        del self._clips
        return self

    @cached_property
    def of_all(self) -> Tensor:
        """Embeddings of the keys of all processes, in their order, (processes * B, D)."""
        z = self._z()
        return z if self._order is None else z[self._order.argsort().to(z.device, non_blocking=True)]

    @property
    def own(self) -> Tensor:
        """Embeddings of this process's keys, (B, D)."""
        return self.of_all[self._own]


def build_moco(backbone: nn.Module, contrast: Contrast) -> MoCo:
    """An encoder over `backbone`, with the queue that `contrast` describes."""
    encoder = Encoder(backbone, contrast.dim)
    return MoCo(encoder, Queue(contrast.queue, contrast.dim, contrast.decay), contrast.bn_groups, contrast.momentum)


def key_momentum(progress: float, base: float) -> float:
    """Key momentum at `progress` in [0,1] of the training: base at the start, 1 at the end, by a cosine."""
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0
