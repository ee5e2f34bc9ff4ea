"""`r3d_18` of torchvision (Tran et al., CVPR 2018), with a width multiplier.

Names of weights are torchvision's, so that one of width 64 loads straight into `torchvision.models.video.r3d_18`.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from mscl.models.networks.backbone import ResidualBackbone
from mscl.models.networks.blocks import BasicBlock, GroupedBatchNorm3d, conv, initialise, simple, stage


class R3D18(ResidualBackbone):
    """T=8 gives 8, 4, 2, 1 at layer1..4 (docs/method.md §3)."""

    mark, width_from = "layer1.0.conv1.0.weight", "stem.0.weight"

    def __init__(self, width: int = 64):
        super().__init__()
        block = partial(BasicBlock, make=simple)
        w = [width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(conv(3, width, (3, 7, 7), (1, 2, 2)), GroupedBatchNorm3d(width), nn.ReLU(inplace=True))
        self.layer1 = stage(block, width, w[0], 2, (1, 1, 1), 1)
        self.layer2 = stage(block, w[0], w[1], 2, (2, 2, 2), 1)
        self.layer3 = stage(block, w[1], w[2], 2, (2, 2, 2), 1)
        self.layer4 = stage(block, w[2], w[3], 2, (2, 2, 2), 1)
        self.feature_dim = w[3]
        self.map_dims = tuple(w[1:])
        initialise(self)
