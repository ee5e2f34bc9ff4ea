"""What every RGB backbone must say of itself; one file beside this one per backbone (docs/extending.md)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from mscl.models.colours import IMAGENET, Colours


class Backbone(nn.Module):
    """Clips x_BCTHW (RGB, normalised) -> pooled features (B, feature_dim). A subclass is built with the width of its first stage.

    A network without residual stages overrides `maps` and `pool`, and has no `map_dims`: then it serves every method
    without LMCL. Names of its weights must not begin with `head.` or `fc.`, which are those of what stands on a backbone.
    """

    feature_dim: int
    colours: Colours = IMAGENET  # that its weights want clips normalised by; others' weights may want others
    map_dims: tuple[int, ...] = ()  # channels of the maps that LMCL's neck looks at: layer2, layer3, layer4
    neck_stride: ClassVar[tuple[int, int, int]] = (2, 2, 2)  # T, H, W between one of these maps and the next
    flow_blocks: ClassVar[Literal["basic", "bottleneck"]] = "basic"  # of the flow network beside it
    # How a file of weights is recognised: a name that no other backbone has, and one whose first dimension is the width.
    mark: ClassVar[str] = ""
    width_from: ClassVar[str] = ""

    def maps(self, x_BCTHW: Tensor) -> tuple[Tensor, ...]:
        """Maps that the neck looks at, (B, C, T, H, W) each, the last of which is pooled."""
        raise NotImplementedError

    def pool(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Features of what `maps` returns: the mean of the last map over time and space, (B, feature_dim)."""
        return maps[-1].mean((2, 3, 4))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.pool(self.maps(x_BCTHW))

    @property
    def gradcam_layer(self) -> nn.Module | None:
        """The module whose output (B, C, T, H, W) GradCAM explains; None where there is no such map."""
        return None


class ResidualBackbone(Backbone):
    """A stem and four residual stages; subclasses fill them in."""

    stem: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Sequential

    def maps(self, x_BCTHW: Tensor) -> tuple[Tensor, ...]:
        """Outputs of layer2, layer3, layer4, each (B, C, T, H, W)."""
        x2 = self.layer2(self.layer1(self.stem(x_BCTHW)))
        x3 = self.layer3(x2)
        return x2, x3, self.layer4(x3)

    @property
    def gradcam_layer(self) -> nn.Module:
        return self.layer4[-1]
