"""Decode the JPEGs of the store to arrays."""

from __future__ import annotations

import numpy as np
import simplejpeg


def decode_rgb(data: bytes, min_side: int = 0) -> np.ndarray:
    """Decode a JPEG to RGB, (H, W, 3) uint8. Raises ValueError if it cannot be decoded.

    With `min_side` > 0 (pixels) the decoder may return the image scaled down by a multiple of 1/8, which is cheaper than
    decoding at full size and resizing. No side becomes smaller than `min_side`, unless it is smaller in the image itself.
    """
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=min_side, min_width=min_side)
    except ValueError as error:
        raise _refused(data, error) from None


def decode_gray(data: bytes) -> np.ndarray:
    """Decode a JPEG to luma, (H, W) uint8. Raises ValueError if it cannot be decoded."""
    try:
        return simplejpeg.decode_jpeg(data, colorspace="GRAY")[:, :, 0]
    except ValueError as error:
        raise _refused(data, error) from None


def _refused(data: bytes, error: ValueError) -> ValueError:
    """A lenient decoder would return half an image; in our own store that is damage, not a picture."""
    return ValueError(f"not a decodable JPEG of {len(data)} bytes ({str(error).strip()[:80]})")
