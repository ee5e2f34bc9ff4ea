"""Backbones by name, and their files of weights."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from mscl.config.backbones import backbone_path
from mscl.config.module_path import load
from mscl.models.colours import Colours, noted
from mscl.models.finite import non_finite
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
    """Load one of our safetensors files strictly; raise ValueError naming the file when it does not fit, or see `read_own_weights`."""
    weights, backbone.colours = read_own_weights(path), own_colours(path)
    try:
        backbone.load_state_dict({k: v for k, v in weights.items() if not k.startswith(ON_A_BACKBONE)})
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: not the weights of this backbone ({first}); check models.*.backbone and width") from None


def own_colours(path: Path) -> Colours:
    """The colours that the weights in one of our safetensors files want. Raises ValueError naming a file whose note is not one."""
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        note = (file.metadata() or {}).get("mscl", "{}")
    try:
        return noted(json.loads(note))
    except ValueError as error:
        raise ValueError(f"{path}: not one of mscl's files ({error}); make it again") from None


def read_own_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of one of our safetensors files, on the CPU, by name.

    Raises ValueError naming the file when it is absent, damaged, or holds values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({' '.join(str(error).split())}); make it again") from None
    if name := non_finite(weights):
        raise ValueError(f"{path}: {name} holds values that are not finite; delete the file and train again")
    return weights
