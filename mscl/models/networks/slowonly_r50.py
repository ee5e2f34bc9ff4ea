"""SlowOnly-50 as published (Feichtenhofer et al., ICCV 2019): MMAction2's `ResNet3dSlowOnly`, PySlowFast's Slow R50.

The backbone of PySlowFast's MoCo, BYOL, SimCLR and SwAV (Feichtenhofer et al., CVPR 2021).
"""

from __future__ import annotations

from torch import nn

from mscl.models.networks.blocks import GroupedBatchNorm3d, SpatialMaxPool, conv, initialise
from mscl.models.networks.slow_r50 import SlowR50


class SlowOnlyR50(SlowR50):
    """As the paper's R50 but for its stem, which sees one frame and keeps every time step: T=8 gives 8 at every stage.

    LMCL pairs time steps with those of the flow network, which has half as many, so this backbone is not for it.
    """

    def __init__(self, width: int = 64):
        super().__init__(width)
        self.stem = nn.Sequential(
            conv(3, width, (1, 7, 7), (1, 2, 2)), GroupedBatchNorm3d(width), nn.ReLU(inplace=True), SpatialMaxPool()
        )
        self.map_dims = ()
        initialise(self)
