"""Numbers that are not finite: NaN or infinity in weights means that a training has failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def non_finite(value: Any, name: str = "") -> str:
    """The name of the first tensor within `value` that holds NaN or infinity, such as `model.fc.weight`; "" where all are finite.

    `value` is a tensor, or dictionaries and lists of tensors and anything else; numbers that are no tensors are not looked at.
    """
    if isinstance(value, Tensor):
        floating = value.is_floating_point() or value.is_complex()
        return name if floating and not torch.isfinite(value).all() else ""
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        inner = enumerate(value)
    else:
        return ""
    return next((found for key, part in inner if (found := non_finite(part, f"{name}.{key}" if name else str(key)))), "")
