"""RGB backbones: torchvision's `r3d_18` with a width multiplier, and the paper's R50.

Every backbone maps clips x_BCTHW (normalised RGB) to pooled features (B, feature_dim); `maps` returns
the outputs of layer2, layer3 and layer4, which the neck needs. Parameter names of `r3d_18` are
torchvision's, so that a width-64 backbone loads straight into `torchvision.models.video.r3d_18`.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mscl._torchvision import video_resnet


class Bottleneck(nn.Module):
    """1x1x1 (or 3x1x1) -> 1x3x3 -> 1x1x1, as in SlowOnly; output has 4 x planes channels."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, temporal: int = 1):
        super().__init__()
        out = planes * self.expansion
        self.conv1 = conv(inplanes, planes, (temporal, 1, 1))
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = conv(planes, planes, (1, 3, 3), (1, stride, stride))
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = conv(planes, out, (1, 1, 1))
        self.bn3 = nn.BatchNorm3d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + skip)


def conv(cin: int, cout: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Conv3d:
    """A bias-free 3D convolution that keeps the size where its stride is 1."""
    return nn.Conv3d(cin, cout, kernel, stride, padding=tuple(k // 2 for k in kernel), bias=False)


def stage(block, inplanes: int, planes: int, blocks: int, stride: tuple[int, int, int], expansion: int) -> nn.Sequential:
    """`blocks` residual blocks, the first with `stride` (T, H, W) and a projected skip where shapes change."""
    out, skip = planes * expansion, None
    if stride != (1, 1, 1) or inplanes != out:
        skip = nn.Sequential(nn.Conv3d(inplanes, out, 1, stride, bias=False), nn.BatchNorm3d(out))
    first = block(inplanes, planes, stride=stride[-1], downsample=skip)
    return nn.Sequential(first, *(block(out, planes) for _ in range(blocks - 1)))


def initialise(net: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out), unit batch norms: torchvision's own initialisation."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


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


class R3D18(Backbone):
    """`r3d_18` of torchvision; T=8 gives 8, 4, 2, 1 at layer1..4 (method.md §3)."""

    def __init__(self, width: int = 64):
        super().__init__()
        block = partial(video_resnet.BasicBlock, conv_builder=video_resnet.Conv3DSimple)
        w = [width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(conv(3, width, (3, 7, 7), (1, 2, 2)), nn.BatchNorm3d(width), nn.ReLU(inplace=True))
        self.layer1 = stage(block, width, w[0], 2, (1, 1, 1), 1)
        self.layer2 = stage(block, w[0], w[1], 2, (2, 2, 2), 1)
        self.layer3 = stage(block, w[1], w[2], 2, (2, 2, 2), 1)
        self.layer4 = stage(block, w[2], w[3], 2, (2, 2, 2), 1)
        self.feature_dim = w[3]
        self.map_dims = tuple(w[1:])
        initialise(self)


class SlowR50(Backbone):
    """The paper's R50 "with less temporal down-sampling" [S]; as in the released code T=8 gives 4 at every stage."""

    def __init__(self, width: int = 64):
        super().__init__()
        w = [width, 2 * width, 4 * width, 8 * width]
        pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.stem = nn.Sequential(conv(3, width, (5, 7, 7), (2, 2, 2)), nn.BatchNorm3d(width), nn.ReLU(inplace=True), pool)
        flat, deep = Bottleneck, partial(Bottleneck, temporal=3)  # temporal kernels in the last two stages only
        self.layer1 = stage(flat, width, w[0], 3, (1, 1, 1), 4)
        self.layer2 = stage(flat, 4 * w[0], w[1], 4, (1, 2, 2), 4)
        self.layer3 = stage(deep, 4 * w[1], w[2], 6, (1, 2, 2), 4)
        self.layer4 = stage(deep, 4 * w[2], w[3], 3, (1, 2, 2), 4)
        self.feature_dim = 4 * w[3]
        self.map_dims = tuple(4 * c for c in w[1:])
        initialise(self)


BACKBONES: dict[str, type[Backbone]] = {"r3d_18": R3D18, "slow_r50": SlowR50}


def build_backbone(net) -> Backbone:
    """The RGB backbone that `net` (`mscl.jobs.Net`) describes."""
    return BACKBONES[net.backbone](net.width)


def backbone_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what is not the backbone's from a state dict (heads, a classifier)."""
    parts = ("stem.", "layer1.", "layer2.", "layer3.", "layer4.")
    return {k: v for k, v in weights.items() if k.startswith(parts)}


def load_backbone_weights(backbone: Backbone, path) -> None:
    """Load a safetensors file strictly; raise ValueError naming the file when it does not fit."""
    from safetensors.torch import load_file

    try:
        backbone.load_state_dict(backbone_state(load_file(str(path))))
    except (RuntimeError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: not the weights of this backbone ({first}); check models.*.backbone and width") from None
