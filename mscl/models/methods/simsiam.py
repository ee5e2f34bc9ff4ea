"""SimSiam (Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021), on clips of RGB.

Two clips of a video predict each other's projection; no negatives, no queue, no momentum encoder. What keeps it from a collapse is
that no gradient flows through the projection that is predicted. Heads as in the paper: three layers to project, two to predict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mscl.config.methods import Switches
from mscl.config.settings import Contrast
from mscl.models.method import Method, Terms
from mscl.models.moco import Encoder, in_groups, own_groups
from mscl.models.networks.build import build_backbone
from mscl.models.view import View
from mscl.stages.jobs import Net


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]


class SimSiam(Method):
    """`forward(query, key)` returns one term, the mean negative cosine similarity of predictions and projections, in [-1, 1]."""

    def __init__(self, net: Net, contrast: Contrast, switches: Switches):
        super().__init__()
        self.groups = contrast.bn_groups
        backbone = build_backbone(net)
        width, dim = backbone.feature_dim, contrast.dim
        self.encoder = Encoder(backbone, dim)
        self.encoder.head = nn.Sequential(
            *_layer(width, width), *_layer(width, width), nn.Linear(width, dim, bias=False), nn.BatchNorm1d(dim, affine=False)
        )
        self.predict = nn.Sequential(*_layer(dim, max(1, dim // 4)), nn.Linear(max(1, dim // 4), dim))

    def forward(self, query: View, key: View) -> tuple[Terms, Terms]:
        z1, z2 = (in_groups(self.encoder, view.rgb_BCTHW, own_groups(self.groups))[1] for view in (query, key))
        near = (self._similarity(z1, z2) + self._similarity(z2, z1)) / 2
        return {"rgb": -near}, {"rgb": (z1 @ z2.T).argmax(1).eq(torch.arange(len(z1), device=z1.device)).float().mean()}

    def _similarity(self, z_BD: Tensor, other_BD: Tensor) -> Tensor:
        """Mean cosine of what is predicted from `z` and the other clip's projection, which takes no gradient."""
        predicted_BD = F.normalize(self.predict(z_BD), dim=1)
        return (predicted_BD * other_BD.detach()).sum(1).mean()
