"""The neck of the local loss: an FPN over layer2-4, then pyramid convolutions (method.md §3).

The top-down path doubles sizes by nearest neighbours. A pyramid convolution mixes, per level,
its own level with the finer one (strided) and the coarser one (trilinear). Only level 0, at
layer2's resolution, is used.

On a GPU maps are enlarged by copies and by products with small matrices: torch's own interpolation has a deterministic gradient
there that took a third of a step (benchmarks/2026-11-27-gpu.md).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int, int]  # T, H, W


def nearest(x_BCTHW: Tensor, size: Size) -> Tensor:
    """`F.interpolate(x, size, mode="nearest")`."""
    return copied(x_BCTHW, size) if x_BCTHW.is_cuda else F.interpolate(x_BCTHW, size=size, mode="nearest")


def trilinear(x_BCTHW: Tensor, size: Size) -> Tensor:
    """`F.interpolate(x, size, mode="trilinear", align_corners=False)`."""
    if x_BCTHW.is_cuda:
        return weighted(x_BCTHW, size)
    return F.interpolate(x_BCTHW, size=size, mode="trilinear", align_corners=False)


def copied(x_BCTHW: Tensor, size: Size) -> Tensor:
    """`nearest`, for whole factors by copies, whose gradient is a sum."""
    B, C, *shape = x_BCTHW.shape
    t, h, w = (new // old for new, old in zip(size, shape))
    if (t * shape[0], h * shape[1], w * shape[2]) != tuple(size):
        return F.interpolate(x_BCTHW, size=size, mode="nearest")
    T, H, W = shape
    x = x_BCTHW.permute(0, 2, 3, 4, 1)[:, :, None, :, None, :, None].expand(B, T, t, H, h, W, w, C)
    return x.reshape(B, *size, C).permute(0, 4, 1, 2, 3)


def weighted(x_BCTHW: Tensor, size: Size) -> Tensor:
    """`trilinear`, along one axis after the other, by a product with a matrix."""
    x = x_BCTHW.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C): in memory in this order, where channels come last
    for axis, new in enumerate(size, start=1):
        old = x.shape[axis]
        if new == old:
            continue
        matrix = _linear(old, new, x.dtype, x.device)
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        flat = x.reshape(before.numel(), old, after.numel())
        x = torch.bmm(matrix.expand(len(flat), -1, -1), flat).view(*before, new, *after)
    return x.permute(0, 4, 1, 2, 3)


@functools.lru_cache(maxsize=32)
def _linear(old: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(new, old): the weights of linear interpolation along one axis, where pixels are areas (align_corners=False)."""
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp_(min=0)
    low = place.long().clamp_(max=old - 1)
    part = place - low
    matrix = torch.zeros(new, old, dtype=torch.float64)
    rows = torch.arange(new)
    matrix[rows, low] = 1 - part
    matrix[rows, (low + 1).clamp_(max=old - 1)] += part
    return matrix.to(device, dtype)


def _conv3(channels: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, 3, stride, padding=1)


class PyramidConv(nn.Module):
    """conv3(x_l) + strided conv3(x_{l-1}) + upsampled conv3(x_{l+1}), then ReLU, with shared weights over levels."""

    def __init__(self, channels: int, stride: tuple[int, int, int]):
        super().__init__()
        self.same, self.finer, self.coarser = _conv3(channels), _conv3(channels, stride), _conv3(channels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return [self.level(levels, i) for i in range(len(levels))]

    def level(self, levels: list[Tensor], i: int) -> Tensor:
        """Level `i` alone."""
        y = self.same(levels[i])
        if i > 0:
            y = y + self.finer(levels[i - 1])
        if i + 1 < len(levels):
            y = y + trilinear(self.coarser(levels[i + 1]), levels[i].shape[2:])
        return F.relu(y)


class Neck(nn.Module):
    """(layer2, layer3, layer4) maps -> level 0, (B, channels, T, H, W) at layer2's resolution."""

    def __init__(self, map_dims: tuple[int, ...], channels: int, blocks: int, stride: tuple[int, int, int]):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv3d(c, channels, 1) for c in map_dims)
        self.outputs = nn.ModuleList(nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1)) for _ in map_dims)
        self.pyramid = nn.Sequential(*(PyramidConv(channels, stride) for _ in range(blocks)))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + nearest(levels[i], levels[i - 1].shape[2:])
        levels = [out(x) for out, x in zip(self.outputs, levels)]
        for block in self.pyramid[:-1]:
            levels = block(levels)
        return self.pyramid[-1].level(levels, 0)
