"""Augmentation, batched on the device with per-clip parameters (method.md §2).

The loader crops and resizes; flips, colours and blur happen here. Brightness, contrast, saturation
and hue are affine in RGB, so one 3x4 matrix per clip applies them all in a fixed order (hue is a
rotation about the grey axis, the linear form of the YIQ hue shift); values are clamped once, at the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mscl.config.schema import Augment
from mscl.training.draws import Draws

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values)[None, :, None, None, None]


def to_float(clip_BTHWC: Tensor) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float (B, 3, T, H, W) in [0, 1]."""
    return clip_BTHWC.permute(0, 4, 1, 2, 3).float().div_(255)


def normalise(clip_BTHWC: Tensor) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float (B, 3, T, H, W) with ImageNet mean and std."""
    x = to_float(clip_BTHWC)
    return (x - _channels(MEAN, x)) / _channels(STD, x)


def flip(x_BCTHW: Tensor, mask_B: Tensor) -> Tensor:
    """Mirror the clips whose mask is set."""
    return torch.where(mask_B[:, None, None, None, None], x_BCTHW.flip(-1), x_BCTHW)


def flip_flow(flow_B2THW: Tensor, mask_B: Tensor) -> Tensor:
    """Mirror the fields and negate u, as a mirrored scene moves."""
    mirrored = flow_B2THW.flip(-1)
    mirrored = torch.stack([-mirrored[:, 0], mirrored[:, 1]], 1)
    return torch.where(mask_B[:, None, None, None, None], mirrored, flow_B2THW)


def _hue_matrices(turns_B: Tensor) -> Tensor:
    """Rotations about the grey axis by `turns` of the circle, (B, 3, 3)."""
    angle = turns_B * 2 * math.pi
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    third, root = 1 / 3, math.sqrt(1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return cos * torch.eye(3) + (1 - cos) * third * torch.ones(3, 3) + sin * root * cross


def colour_matrices(mean_B3: Tensor, cfg: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """Per-clip affine colour changes: matrices (B, 3, 3) and offsets (B, 3).

    brightness and contrast in 1±j, saturation in 1±j, hue in ±j turns, with probability
    `jitter_p`; grey with `gray_p`. `mean_B3` is the clips' mean colour, which contrast pivots on.
    """
    batch = len(mean_B3)
    brightness, contrast, saturation = (draws.uniform(1 - j, 1 + j) for j in cfg.jitter[:3])
    hue = draws.uniform(-cfg.jitter[3], cfg.jitter[3])
    jittered, greyed = draws.chance(cfg.jitter_p), draws.chance(cfg.gray_p)
    eye, grey = torch.eye(3), torch.tensor(GREY).expand(3, 3)
    one = torch.ones(batch)
    b, c, s = (torch.where(jittered, v, one)[:, None, None] for v in (brightness, contrast, saturation))
    h = torch.where(jittered, hue, torch.zeros(batch))
    pivot_B = (b[:, :, 0] * mean_B3 * torch.tensor(GREY)).sum(1, keepdim=True)
    matrix, offset = b * c * eye, (1 - c[:, :, 0]) * pivot_B * torch.ones(batch, 3)
    for step in (s * eye + (1 - s) * grey, _hue_matrices(h), torch.where(greyed[:, None, None], grey, eye)):
        matrix, offset = step @ matrix, (step @ offset[:, :, None])[:, :, 0]
    return matrix, offset


def blur_matrices(size: int, sigma_B: Tensor, apply_B: Tensor) -> Tensor:
    """Row-normalised Gaussian band matrices, (B, size, size); the identity where not applied."""
    distance = (torch.arange(size)[:, None] - torch.arange(size)[None, :]).float()
    kernel = torch.exp(-0.5 * (distance[None] / sigma_B[:, None, None]) ** 2)
    kernel = kernel / kernel.sum(2, keepdim=True)
    return torch.where(apply_B[:, None, None], kernel, torch.eye(size))


def augment_rgb(clip_BTHWC: Tensor, flip_B: Tensor, cfg: Augment, draws: Draws) -> Tensor:
    """uint8 clips -> augmented, normalised (B, 3, T, H, W); parameters are drawn from `draws`."""
    x = flip(to_float(clip_BTHWC), flip_B.to(clip_BTHWC.device))
    B, _, T, H, W = x.shape
    matrix, offset = colour_matrices(x.mean((2, 3, 4)).cpu(), cfg, draws)
    sigma, blurred = draws.uniform(*cfg.blur_sigma), draws.chance(cfg.blur_p)
    x = torch.baddbmm(offset.to(x.device)[:, :, None], matrix.to(x.device), x.flatten(2)).clamp_(0, 1)
    rows, columns = (blur_matrices(n, sigma, blurred).to(x.device) for n in (H, W))
    x = torch.bmm(x.view(B, 3 * T * H, W), columns.transpose(1, 2))
    x = torch.matmul(rows[:, None], x.view(B, 3 * T, H, W)).view(B, 3, T, H, W)
    return (x - _channels(MEAN, x)) / _channels(STD, x)


def flow_from_planes(planes_BTHW2: Tensor, factor_BT: Tensor) -> Tensor:
    """Stored 8-bit planes -> (B, 2, T, H, W) with each field's largest radius at most 1.

    `factor_BT` is scale / (radius + 1e-5) of each whole field (method.md §1), before its crop.
    """
    centred = (planes_BTHW2.permute(0, 4, 1, 2, 3).float() - 128.0) / 127.0
    return centred * factor_BT[:, None, :, None, None]
