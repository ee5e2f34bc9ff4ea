"""Parts that the networks share: convolutions, residual blocks and stages, their initialisation.

`BasicBlock` and its convolutions are those of torchvision's `models/video/resnet.py` (BSD-3), with its names of weights. They stand
here because importing them from torchvision loads all of its models and torch's compiler, about a second in every job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedBatchNorm3d(nn.BatchNorm3d):
    """Batch norm that in training normalises each of `groups` equal parts of the batch by the part's own statistics.

    The same numbers as one part after another through the whole network, while all other layers compute the whole batch at once.
    """

    groups = 1
    together = True  # False: the network is asked to take one part after another instead (`compute.kernels.groups`)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.groups == 1 or not self.training:
            return super().forward(x_BCTHW)
        return torch.cat([nn.BatchNorm3d.forward(self, part) for part in x_BCTHW.chunk(self.groups)])


@contextmanager
def grouped(norms: Iterable[GroupedBatchNorm3d], groups: int) -> Iterator[None]:
    """In the body, the batch of each of `norms` has `groups` groups; afterwards one."""
    norms = list(norms)
    try:
        for norm in norms:
            norm.groups = groups
        yield
    finally:
        for norm in norms:
            norm.groups = 1


def simple(cin: int, cout: int, within: int, stride: int = 1) -> nn.Conv3d:
    """A 3x3x3 convolution with a stride in time and space."""
    return conv(cin, cout, (3, 3, 3), (stride, stride, stride))


def spatial(cin: int, cout: int, within: int, stride: int = 1) -> nn.Conv3d:
    """A 1x3x3 convolution with a stride in space."""
    return conv(cin, cout, (1, 3, 3), (1, stride, stride))


def factorised(cin: int, cout: int, within: int, stride: int = 1) -> nn.Sequential:
    """A 1x3x3 and a 3x1x1 convolution with `within` channels between them (R(2+1)D)."""
    return nn.Sequential(
        conv(cin, within, (1, 3, 3), (1, stride, stride)),
        GroupedBatchNorm3d(within),
        nn.ReLU(inplace=True),
        conv(within, cout, (3, 1, 1), (stride, 1, 1)),
    )


class BasicBlock(nn.Module):
    """Two convolutions made by `make`: (channels in, out, between the parts of a factorised one, stride) -> module."""

    def __init__(
        self, inplanes: int, planes: int, make: Callable[..., nn.Module], stride: int = 1, downsample: nn.Module | None = None
    ):
        super().__init__()
        within = (inplanes * planes * 3 * 3 * 3) // (inplanes * 3 * 3 + 3 * planes)  # as many weights as 3x3x3 has
        self.conv1 = nn.Sequential(make(inplanes, planes, within, stride), GroupedBatchNorm3d(planes), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(make(planes, planes, within), GroupedBatchNorm3d(planes))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + skip)


class Bottleneck(nn.Module):
    """1x1x1 (or 3x1x1) -> 1x3x3 -> 1x1x1, as in SlowOnly; output has 4 x planes channels."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, temporal: int = 1):
        super().__init__()
        out = planes * self.expansion
        self.conv1 = conv(inplanes, planes, (temporal, 1, 1))
        self.bn1 = GroupedBatchNorm3d(planes)
        self.conv2 = conv(planes, planes, (1, 3, 3), (1, stride, stride))
        self.bn2 = GroupedBatchNorm3d(planes)
        self.conv3 = conv(planes, out, (1, 1, 1))
        self.bn3 = GroupedBatchNorm3d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + skip)


class SpatialMaxPool(nn.Module):
    """A 3x3 max pool of stride 2 in every picture: on a GPU its gradient is the same at every run, unlike that of MaxPool3d."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        B, _, T = x_BCTHW.shape[:3]
        pictures = F.max_pool2d(x_BCTHW.transpose(1, 2).flatten(0, 1), 3, 2, 1)
        return pictures.unflatten(0, (B, T)).transpose(1, 2)


def conv(cin: int, cout: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Conv3d:
    """A bias-free 3D convolution that keeps the size where its stride is 1."""
    return nn.Conv3d(cin, cout, kernel, stride, padding=tuple(k // 2 for k in kernel), bias=False)


def stage(block, inplanes: int, planes: int, blocks: int, stride: tuple[int, int, int], expansion: int) -> nn.Sequential:
    """`blocks` residual blocks, the first with `stride` (T, H, W) and a projected skip where shapes change."""
    out, skip = planes * expansion, None
    if stride != (1, 1, 1) or inplanes != out:
        skip = nn.Sequential(nn.Conv3d(inplanes, out, 1, stride, bias=False), GroupedBatchNorm3d(out))
    first = block(inplanes, planes, stride=stride[-1], downsample=skip)
    return nn.Sequential(first, *(block(out, planes) for _ in range(blocks - 1)))


def initialise(net: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out) and unit batch norms, as in torchvision; the last batch norm of a bottleneck starts at 0.

    So each bottleneck starts as the identity (docs/method.md §8).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
