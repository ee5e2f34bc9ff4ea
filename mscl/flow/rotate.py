"""Flow rotation augmentation (FRA, method.md section 5): the angles, and the rotation of a field."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def angles(c_B: Tensor) -> Tensor:
    """FRA's rotations, radians: (0.2 + 0.2c)π for c in 0..7, i.e. 36° to 288°."""
    return (0.2 + 0.2 * c_B) * math.pi


def rotate_flow(flow_B2THW: Tensor, angle_B: Tensor) -> Tensor:
    """Rotate every vector of clip b by angle_B[b]; pixels stay where they are."""
    cos, sin = (f(angle_B).to(flow_B2THW.dtype)[:, None, None, None] for f in (torch.cos, torch.sin))
    u, v = flow_B2THW[:, 0], flow_B2THW[:, 1]
    return torch.stack([cos * u - sin * v, sin * u + cos * v], 1)
