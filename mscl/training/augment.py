"""Augmentation, batched on the device with per-clip parameters (method.md §2).

The loader crops and resizes; flips, colours and blur happen here. Brightness, contrast, saturation
and hue are affine in RGB, so one 3x4 matrix per clip (or per frame, as in the released code: `colours`) applies them all in a
fixed order (hue is a rotation about the grey axis, the linear form of the YIQ hue shift); values are clamped once, at the end.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from mscl.config.settings import Augment
from mscl.models.colours import IMAGENET, Colours
from mscl.training.draws import Draws

MEAN, STD = IMAGENET
GREY = (0.299, 0.587, 0.114)


@functools.lru_cache(maxsize=32)
def _constant(values: tuple, device: torch.device) -> Tensor:
    """Values as float32 on a device, copied there once: a copy from the CPU waits until the device is idle."""
    return torch.tensor(values, device=device)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return _constant(values, like.device)[None, :, None, None, None]


def to_float(clip_BTHWC: Tensor) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float (B, 3, T, H, W) in [0, 1]."""
    return clip_BTHWC.permute(0, 4, 1, 2, 3).float().div_(255)


def normalise(clip_BTHWC: Tensor, colours: Colours = IMAGENET) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float (B, 3, T, H, W) with the mean and std that a backbone wants."""
    x = to_float(clip_BTHWC)
    return x.sub_(_channels(colours.mean, x)).div_(_channels(colours.std, x))


def flip(x_BCTHW: Tensor, mask_B: Tensor | None) -> Tensor:
    """Mirror the clips whose mask is set; None: of no clip."""
    if mask_B is None:
        return x_BCTHW
    return torch.where(mask_B[:, None, None, None, None], x_BCTHW.flip(-1), x_BCTHW)


def flip_flow(flow_B2THW: Tensor, mask_B: Tensor | None) -> Tensor:
    """Mirror the fields and negate u, as a mirrored scene moves; None: of no clip."""
    if mask_B is None:
        return flow_B2THW
    mirrored = flow_B2THW.flip(-1)
    mirrored = torch.stack([-mirrored[:, 0], mirrored[:, 1]], 1)
    return torch.where(mask_B[:, None, None, None, None], mirrored, flow_B2THW)


def _hue_matrices(turns_BT: Tensor) -> Tensor:
    """Rotations about the grey axis by `turns` of the circle, (B, T, 3, 3)."""
    angle, device = turns_BT * 2 * math.pi, turns_BT.device
    cos, sin = torch.cos(angle)[..., None, None], torch.sin(angle)[..., None, None]
    third, root = 1 / 3, math.sqrt(1 / 3)
    cross = _constant(((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0)), device)
    return cos * torch.eye(3, device=device) + (1 - cos) * third * torch.ones(3, 3, device=device) + sin * root * cross


def colour_matrices(mean_BT3: Tensor, cfg: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
    """Affine colour changes: matrices (B, T, 3, 3) and offsets (B, T, 3), with T = 1 for factors that a clip's frames share.

    Brightness and contrast in 1±j, saturation in 1±j, hue in ±j turns, with probability `jitter_p` for a clip; grey with `gray_p`.
    `mean_BT3` is the mean colour of each clip (T = 1) or frame, which contrast pivots on.
    """
    frames, device = mean_BT3.shape[1], mean_BT3.device
    brightness, contrast, saturation = (draws.uniform(1 - j, 1 + j, frames) for j in cfg.jitter[:3])
    hue = draws.uniform(-cfg.jitter[3], cfg.jitter[3], frames)
    jittered_B1, greyed_B1 = draws.chance(cfg.jitter_p)[:, None], draws.chance(cfg.gray_p)[:, None]
    eye, grey = torch.eye(3, device=device), _constant(GREY, device).expand(3, 3)
    b, c, s = (torch.where(jittered_B1, v, 1.0)[..., None, None] for v in (brightness, contrast, saturation))
    pivot_BT1 = (b[..., 0] * mean_BT3 * _constant(GREY, device)).sum(-1, keepdim=True)
    matrix, offset = b * c * eye, ((1 - c[..., 0]) * pivot_BT1).expand(-1, -1, 3)
    turned = _hue_matrices(torch.where(jittered_B1, hue, 0.0))
    for step in (s * eye + (1 - s) * grey, turned, torch.where(greyed_B1[..., None, None], grey, eye)):
        matrix, offset = step @ matrix, (step @ offset[..., None])[..., 0]
    return matrix, offset


def blur_matrices(size: int, sigma_B: Tensor, apply_B: Tensor) -> Tensor:
    """Row-normalised Gaussian band matrices, (B, size, size); the identity where not applied."""
    device = sigma_B.device
    places = torch.arange(size, device=device)
    distance = (places[:, None] - places[None, :]).float()
    kernel = torch.exp(-0.5 * (distance[None] / sigma_B[:, None, None]) ** 2)
    kernel = kernel / kernel.sum(2, keepdim=True)
    return torch.where(apply_B[:, None, None], kernel, torch.eye(size, device=device))


def augment_rgb(clip_BTHWC: Tensor, flip_B: Tensor | None, cfg: Augment, draws: Draws) -> Tensor:
    """uint8 clips -> augmented, normalised (B, 3, T, H, W); parameters are drawn from `draws`, all on the same device.

    A blur that the recipe never asks for costs nothing; its draws are made all the same, so that they move no other draw.
    """
    x = flip(to_float(clip_BTHWC), flip_B)
    B, _, T, H, W = x.shape
    mean_BT3 = x.mean((3, 4)).transpose(1, 2)
    if cfg.colours == "clip":
        mean_BT3 = mean_BT3.mean(1, keepdim=True)
    matrix, offset = colour_matrices(mean_BT3, cfg, draws)
    sigma, blurred = draws.uniform(*cfg.blur_sigma), draws.chance(cfg.blur_p)
    if cfg.colours == "clip":
        x = torch.baddbmm(offset[:, 0, :, None], matrix[:, 0], x.flatten(2))
    else:
        x = torch.einsum("btij,bjtp->bitp", matrix, x.flatten(3)) + offset.transpose(1, 2)[..., None]
    x = x.clamp_(0, 1)
    if cfg.blur_p:
        rows, columns = (blur_matrices(n, sigma, blurred) for n in (H, W))
        x = torch.bmm(x.reshape(B, 3 * T * H, W), columns.transpose(1, 2))
        x = torch.matmul(rows[:, None], x.view(B, 3 * T, H, W)).view(B, 3, T, H, W)
    x = x.view(B, 3, T, H, W)
    return x.sub_(_channels(MEAN, x)).div_(_channels(STD, x))


def flow_from_planes(planes_BTHW2: Tensor, factor_BT: Tensor) -> Tensor:
    """Stored 8-bit planes -> (B, 2, T, H, W) with each field's largest radius at most 1.

    `factor_BT` is scale / (radius + 1e-5) of each whole field (method.md §1), before its crop.
    """
    planes = planes_BTHW2.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.sub_(128.0).div_(127.0).mul_(factor_BT[:, None, :, None, None])
