"""The paper's R50: a SlowOnly-style 3D ResNet-50 with less temporal down-sampling (docs/method.md §3)."""

from __future__ import annotations

from functools import partial

from torch import nn

from mscl.models.networks.backbone import ResidualBackbone
from mscl.models.networks.blocks import Bottleneck, GroupedBatchNorm3d, SpatialMaxPool, conv, initialise, stage


class SlowR50(ResidualBackbone):
    """The paper's R50 "with less temporal down-sampling" [S]; as in the released code T=8 gives 4 at every stage."""

    neck_stride, flow_blocks = (1, 2, 2), "bottleneck"
    mark, width_from = "layer1.0.conv1.weight", "stem.0.weight"

    def __init__(self, width: int = 64):
        super().__init__()
        w = [width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(
            conv(3, width, (5, 7, 7), (2, 2, 2)), GroupedBatchNorm3d(width), nn.ReLU(inplace=True), SpatialMaxPool()
        )
        flat, deep = Bottleneck, partial(Bottleneck, temporal=3)  # temporal kernels in the last two stages only
        self.layer1 = stage(flat, width, w[0], 3, (1, 1, 1), 4)
        self.layer2 = stage(flat, 4 * w[0], w[1], 4, (1, 2, 2), 4)
        self.layer3 = stage(deep, 4 * w[1], w[2], 6, (1, 2, 2), 4)
        self.layer4 = stage(deep, 4 * w[2], w[3], 3, (1, 2, 2), 4)
        self.feature_dim = 4 * w[3]
        self.map_dims = tuple(4 * c for c in w[1:])
        initialise(self)
