"""Backbones by name, and their files of weights."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mscl.config.backbones import backbone_path
from mscl.config.module_path import load
from mscl.models.networks.backbone import Backbone
from mscl.stages.jobs import RGBNet

ON_A_BACKBONE = ("head.", "fc.")  # names of what stands on a backbone in our files: a projection head, a classifier


def backbone_class(name: str) -> type[Backbone]:
    """The class of a named backbone, or of one given by module path."""
    return load(backbone_path(name))


def build_backbone(net: RGBNet) -> Backbone:
    """The RGB backbone that `net` describes."""
    return backbone_class(net.backbone)(net.width)


def load_backbone_weights(backbone: Backbone, path: Path) -> None:
    """Load one of our safetensors files strictly; raise ValueError naming the file when it does not fit."""
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(str(path))
        backbone.load_state_dict({k: v for k, v in weights.items() if not k.startswith(ON_A_BACKBONE)})
    except (RuntimeError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: not the weights of this backbone ({first}); check models.*.backbone and width") from None
