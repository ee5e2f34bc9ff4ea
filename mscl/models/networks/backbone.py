"""RGB backbones: torchvision's `r3d_18` with a width multiplier, and the paper's R50.

Every backbone maps clips x_BCTHW (normalised RGB) to pooled features (B, feature_dim); `maps` returns
the outputs of layer2, layer3 and layer4, which the neck needs. Parameter names of `r3d_18` are
torchvision's, so that a width-64 backbone loads straight into `torchvision.models.video.r3d_18`.
"""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """A stem and four residual stages; subclasses fill them in."""

    stem: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module
    feature_dim: int

    def maps(self, x_BCTHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of layer2, layer3, layer4, each (B, C, T, H, W)."""
        x2 = self.layer2(self.layer1(self.stem(x_BCTHW)))
        x3 = self.layer3(x2)
        return x2, x3, self.layer4(x3)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Global average pool of the last stage, (B, feature_dim)."""
        return self.maps(x_BCTHW)[-1].mean((2, 3, 4))
