"""`r2plus1d_18` of torchvision (Tran et al., CVPR 2018): each 3D convolution is a spatial and a temporal one, with a width multiplier.

Names of weights are torchvision's, so that one of width 64 loads straight into `torchvision.models.video.r2plus1d_18`.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from mscl.models.networks.backbone import ResidualBackbone
from mscl.models.networks.blocks import BasicBlock, GroupedBatchNorm3d, conv, factorised, initialise, stage

STEM = 45 / 64  # channels between the two convolutions of the stem, for each of the width


class R2Plus1D18(ResidualBackbone):
    """T=8 gives 8, 4, 2, 1 at layer1..4, as r3d_18 does."""

    mark, width_from = "layer1.0.conv1.0.0.weight", "stem.3.weight"

    def __init__(self, width: int = 64):
        super().__init__()
        block = partial(BasicBlock, make=factorised)
        w, within = [width, 2 * width, 4 * width, 8 * width], max(1, round(STEM * width))
        self.stem = nn.Sequential(
            conv(3, within, (1, 7, 7), (1, 2, 2)),
            GroupedBatchNorm3d(within),
            nn.ReLU(inplace=True),
            conv(within, width, (3, 1, 1)),
            GroupedBatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = stage(block, width, w[0], 2, (1, 1, 1), 1)
        self.layer2 = stage(block, w[0], w[1], 2, (2, 2, 2), 1)
        self.layer3 = stage(block, w[1], w[2], 2, (2, 2, 2), 1)
        self.layer4 = stage(block, w[2], w[3], 2, (2, 2, 2), 1)
        self.feature_dim = w[3]
        self.map_dims = tuple(w[1:])
        initialise(self)
