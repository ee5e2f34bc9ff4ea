"""Middlebury's colour wheel (Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011).

Hue is the direction, saturation the radius: no motion is white, motion to the right red, down yellow, left cyan-blue.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

# Hues of each transition, and its (rising or falling channel, step): red-yellow, yellow-green, green-cyan, cyan-blue, ...
SEGMENTS = ((15, 1, +1), (6, 0, -1), (4, 2, +1), (11, 1, -1), (13, 0, +1), (6, 2, -1))
HUES = sum(count for count, _, _ in SEGMENTS)  # 55


def wheel() -> np.ndarray:
    """The 55 hues as (55, 3) float32 RGB, 0..255, integers as in the reference code."""
    colours, colour = [], np.array([255, 0, 0])
    for count, channel, sign in SEGMENTS:
        ramp = np.floor(255 * np.arange(count) / count)
        part = np.tile(colour, (count, 1))
        part[:, channel] = ramp if sign > 0 else 255 - ramp
        colours.append(part)
        colour = colour.copy()
        colour[channel] = 255 if sign > 0 else 0
    return np.concatenate(colours).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _table(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """1 - colour of each hue, and the step to the next, (3, 55) each, in [0, 1]."""
    lack = 1 - torch.from_numpy(wheel().T / 255).to(device)
    return lack.contiguous(), (lack.roll(-1, 1) - lack).contiguous()


def colourwheel(flow: torch.Tensor) -> torch.Tensor:
    """Colour a batch of flow fields of shape (B, 2, ...), u and v scaled so that the radius is at most 1.

    Returns (B, 3, ...) float32 in [0, 1], on the same device; a radius above 1 counts as 1.
    """
    u, v = flow.float().unbind(1)
    radius = torch.hypot(u, v).clamp_(max=1)
    hue = torch.atan2(-v, -u).div_(math.pi).add_(1).mul_((HUES - 1) / 2)  # 0..54, as in the reference code
    low = hue.int().clamp_(0, HUES - 1)
    part = hue.sub_(low)
    image = torch.empty(len(flow), 3, *flow.shape[2:], device=flow.device)
    for c in range(3):  # in place: fresh memory for every term takes a third of the time
        lack, step = (table[c].index_select(0, low.flatten()).view_as(low) for table in _table(flow.device))
        torch.sub(1, step.mul_(part).add_(lack).mul_(radius), out=image[:, c])
    return image


def unit_radius(flow: torch.Tensor) -> torch.Tensor:
    """Divide each field of (B, 2, H, W) by its largest radius + 1e-5."""
    return flow / (torch.linalg.vector_norm(flow, dim=1, keepdim=True).amax((-2, -1), keepdim=True) + 1e-5)


def colour_field(flow_HW2: np.ndarray) -> np.ndarray:
    """One field of any magnitude as an HW3 uint8 picture, for figures."""
    flow = torch.from_numpy(np.ascontiguousarray(flow_HW2, np.float32)).permute(2, 0, 1)[None]
    return (colourwheel(unit_radius(flow))[0].permute(1, 2, 0) * 255).round().byte().numpy()
