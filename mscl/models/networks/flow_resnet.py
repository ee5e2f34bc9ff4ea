"""The flow network: a light per-frame 2D ResNet written as 3D convolutions (method.md §3).

The stem is (1,7,7) with stride (2,2,2): of a clip's 8 fields it keeps every second. Here the loader reads
only those (`FLOW_TEMPORAL_STRIDE`), and the stem strides in space alone, which is the same. No convolution looks across
time, so the network sees single fields and the clip embedding averages over them.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from mscl.models.networks.blocks import (
    BasicBlock,
    Bottleneck,
    GroupedBatchNorm3d,
    SpatialMaxPool,
    conv,
    initialise,
    spatial,
    stage,
)

FLOW_TEMPORAL_STRIDE = 2  # of a clip's fields, which the network looks at


class FlowResNet(nn.Module):
    """flow_B3THW (colour-wheel images in [0,1] of every second field) -> (B, feature_dim, T, H', W')."""

    def __init__(self, blocks: Literal["basic", "bottleneck"], width: int):
        super().__init__()
        w = [width, 2 * width, 4 * width, 8 * width]
        deep = blocks == "bottleneck"
        block = Bottleneck if deep else partial(BasicBlock, make=spatial)
        depths, expansion = ((3, 4, 6, 3), 4) if deep else ((2, 2, 2, 2), 1)
        pool = [SpatialMaxPool()] if deep else []
        self.stem = nn.Sequential(conv(3, width, (1, 7, 7), (1, 2, 2)), GroupedBatchNorm3d(width), nn.ReLU(inplace=True), *pool)
        inplanes = [width, *(expansion * c for c in w[:3])]
        strides = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)]
        self.layers = nn.Sequential(*(stage(block, i, c, n, s, expansion) for i, c, n, s in zip(inplanes, w, depths, strides)))
        self.feature_dim = expansion * w[3]
        initialise(self)

    def maps(self, flow_B3THW: Tensor) -> tuple[Tensor]:
        return (self.layers(self.stem(flow_B3THW)),)

    def pool(self, maps: tuple[Tensor, ...]) -> Tensor:
        """The mean over time and space, (B, feature_dim)."""
        return maps[-1].mean((2, 3, 4))
