"""A flow field as a greyscale JPEG: the u plane above the v plane, eight bits each, with the field's own scale.

u8 = round(127 * u / scale) + 128 with scale = max(|u|, |v|) over the field, so zero motion is exact (128) and the
rounding is at most scale / 254; the JPEG adds its own small error. RGB codecs would mix the planes, hence grey.
"""

from __future__ import annotations

import math

import numpy as np
import simplejpeg

from mscl.store.jpeg import decode_gray


def encode_field(flow_HW2: np.ndarray, quality: int) -> tuple[bytes, float, float]:
    """Return (JPEG, scale, radius): scale = max(|u|, |v|) (1.0 for no motion), radius = max of sqrt(u^2 + v^2), both pixels.

    Raises ValueError when the field is not finite.
    """
    flow = np.asarray(flow_HW2, np.float32)
    scale = float(max(flow.max(), -flow.min()))  # NaN and infinity come through
    if not math.isfinite(scale):
        raise ValueError("the flow field is not finite")
    scale = scale or 1.0
    planes = np.rint(flow * (127 / scale)).astype(np.int16) + 128  # 1..255
    stacked = np.concatenate([planes[..., 0], planes[..., 1]]).astype(np.uint8)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(stacked[:, :, None]), quality=quality, colorspace="GRAY")
    u, v = flow[..., 0], flow[..., 1]
    return jpeg, scale, math.sqrt(float((u * u + v * v).max()))


def decode_planes(jpeg: bytes) -> np.ndarray:
    """The stored planes u and v as 2HW uint8; 128 is zero motion. Raises ValueError when they are no stored field."""
    stacked = decode_gray(jpeg)
    if len(stacked) % 2:
        raise ValueError(f"not a stored flow field: {len(stacked)} rows do not make two planes")
    return stacked.reshape(2, len(stacked) // 2, -1)


def decode_field(jpeg: bytes, scale: float) -> np.ndarray:
    """The field as HW2 float32 (u, v), pixels of its own grid."""
    planes = np.ascontiguousarray(decode_planes(jpeg).transpose(1, 2, 0), np.float32)
    return (planes - 128) * np.float32(scale / 127)
