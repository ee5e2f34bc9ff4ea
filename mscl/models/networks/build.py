"""Backbones by name, and their files of weights."""

from __future__ import annotations

from torch import Tensor

from mscl.models.networks.backbone import Backbone
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.networks.slow_r50 import SlowR50

BACKBONES: dict[str, type[Backbone]] = {"r3d_18": R3D18, "slow_r50": SlowR50}


def build_backbone(net) -> Backbone:
    """The RGB backbone that `net` (`mscl.stages.jobs.Net`) describes."""
    return BACKBONES[net.backbone](net.width)


def backbone_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what is not the backbone's from a state dict (heads, a classifier)."""
    parts = ("stem.", "layer1.", "layer2.", "layer3.", "layer4.")
    return {k: v for k, v in weights.items() if k.startswith(parts)}


def load_backbone_weights(backbone: Backbone, path) -> None:
    """Load a safetensors file strictly; raise ValueError naming the file when it does not fit."""
    from safetensors.torch import load_file

    try:
        backbone.load_state_dict(backbone_state(load_file(str(path))))
    except (RuntimeError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: not the weights of this backbone ({first}); check models.*.backbone and width") from None
