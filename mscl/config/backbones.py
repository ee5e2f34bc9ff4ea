"""The table of built-in backbones. docs/extending.md explains how to add one."""

from __future__ import annotations

from mscl.config.module_path import refuse_unknown

# name -> class; its argument is the width of the first stage. `mscl.models.networks.backbone.Backbone` lists what it must have.
BACKBONES: dict[str, str] = {
    "r3d_18": "mscl.models.networks.r3d_18:R3D18",
    "slow_r50": "mscl.models.networks.slow_r50:SlowR50",
    "slowonly_r50": "mscl.models.networks.slowonly_r50:SlowOnlyR50",
    "r2plus1d_18": "mscl.models.networks.r2plus1d_18:R2Plus1D18",
}


def backbone_path(name: str) -> str:
    """The module path of a backbone's class: from its row, or `name` itself if it is a module path."""
    return BACKBONES.get(name, name)


def known_backbone(name: str) -> str:
    """Return `name` if it is a known backbone or a module path that exists; else raise ValueError."""
    refuse_unknown("backbone", name, list(BACKBONES))
    return name
