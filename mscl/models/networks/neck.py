"""The neck of the local loss: an FPN over layer2-4, then pyramid convolutions (method.md §3).

The top-down path doubles sizes by nearest neighbours. A pyramid convolution mixes, per level,
its own level with the finer one (strided) and the coarser one (trilinear). Only level 0, at
layer2's resolution, is used.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def _conv3(channels: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, 3, stride, padding=1)


class PyramidConv(nn.Module):
    """conv3(x_l) + strided conv3(x_{l-1}) + upsampled conv3(x_{l+1}), then ReLU, with shared weights over levels."""

    def __init__(self, channels: int, stride: tuple[int, int, int]):
        super().__init__()
        self.same, self.finer, self.coarser = _conv3(channels), _conv3(channels, stride), _conv3(channels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        out = []
        for i, x in enumerate(levels):
            y = self.same(x)
            if i > 0:
                y = y + self.finer(levels[i - 1])
            if i + 1 < len(levels):
                y = y + F.interpolate(self.coarser(levels[i + 1]), size=x.shape[2:], mode="trilinear", align_corners=False)
            out.append(F.relu(y))
        return out


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
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size=levels[i - 1].shape[2:], mode="nearest")
        return self.pyramid([out(x) for out, x in zip(self.outputs, levels)])[0]
