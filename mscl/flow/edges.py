"""Flow edge maps: where neighbouring pixels move differently, whatever the camera does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
JUMP = 4.0  # what SOBEL answers to a straight edge of height 1


def flow_edges(flow_B2THW: Tensor) -> Tensor:
    """The root of the summed squared Sobel responses, x and y, of u and v, as an image of three like channels, (B, 3, T, H, W).

    A straight edge between pixels that differ by one unit of flow is 1, and so is more. Borders are mirrored.
    """
    B, _, T, H, W = flow_B2THW.shape
    sobel = flow_B2THW.new_tensor(SOBEL) / JUMP
    planes = F.pad(flow_B2THW.reshape(B * 2 * T, 1, H, W), (1, 1, 1, 1), mode="reflect")
    with torch.autocast(planes.device.type, enabled=False):  # differences of like numbers
        squared_B2THW = F.conv2d(planes, torch.stack([sobel, sobel.T])[:, None]).square().sum(1).view(B, 2, T, H, W)
    return squared_B2THW.sum(1, keepdim=True).sqrt().clamp(max=1).expand(B, 3, T, H, W)
