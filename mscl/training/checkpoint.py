"""Files that are whole or absent: checkpoints to resume from, final weights as safetensors."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mscl.io import whole


class CheckpointError(ValueError):
    """A checkpoint cannot be resumed from; the text says which file, why, and what to do."""


def fingerprint(*parts: str) -> str:
    """Hash of the settings, code and data that a checkpoint belongs to."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def save_checkpoint(path: Path, state: dict[str, Any], settings: str) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under a temporary name, then rename."""
    with whole(path) as temporary, open(temporary, "wb") as file:
        torch.save({"settings": settings, **state}, file)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: Path, settings: str) -> dict[str, Any] | None:
    """The state at `path`, None where there is none.

    Raises CheckpointError for a torn or foreign file, and for one that other settings wrote.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        written = state["settings"]
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint of mscl ({type(error).__name__}); delete it to start again") from None
    if written != settings:
        raise CheckpointError(
            f"{path}: written with other settings, code or data; delete it to start again, or restore them to resume"
        )
    return state


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name, then rename; the same weights give the same bytes."""
    from safetensors.torch import save_file

    with whole(path) as temporary:
        # One metadata key only: safetensors writes several in no fixed order.
        tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
        save_file(tensors, str(temporary), metadata={"mscl": json.dumps(metadata, sort_keys=True)})
