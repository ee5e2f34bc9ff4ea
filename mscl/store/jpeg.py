"""JPEGs of the store to arrays."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg


def decode_rgb(data: bytes, min_side: int = 0) -> np.ndarray:
    """Decode a JPEG to HWC uint8 RGB; ValueError when it is none.

    With `min_side` > 0 the decoder may return the image scaled down by eighths (cheaper than decoding it whole and
    resizing), but never with a side below `min_side` that the image itself does not have.
    """
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=min_side, min_width=min_side)
    except ValueError:
        return _fallback(data, cv2.IMREAD_COLOR_RGB)


def decode_gray(data: bytes) -> np.ndarray:
    """Decode a JPEG to HW uint8 luma; ValueError when it is none."""
    try:
        return simplejpeg.decode_jpeg(data, colorspace="GRAY")[:, :, 0]
    except ValueError:
        return _fallback(data, cv2.IMREAD_GRAYSCALE)


def _fallback(data: bytes, flag: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if len(data) else None
    if image is None:
        raise ValueError(f"not a decodable JPEG ({len(data)} bytes); remake the shard")
    return image
