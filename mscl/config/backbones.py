"""The backbones that have a name: one row each. How to add one: docs/extending.md."""

from __future__ import annotations

from mscl.config.module_path import refuse_unknown

# name -> class, called with the width of its first stage (`mscl.models.networks.backbone.Backbone` says what else it must have)
BACKBONES: dict[str, str] = {
    "r3d_18": "mscl.models.networks.r3d_18:R3D18",
    "slow_r50": "mscl.models.networks.slow_r50:SlowR50",
    "r2plus1d_18": "mscl.models.networks.r2plus1d_18:R2Plus1D18",
}


def backbone_path(name: str) -> str:
    """Module path of a backbone's class: that of its row, or the name itself where it is one."""
    return BACKBONES.get(name, name)


def known_backbone(name: str) -> str:
    """Check a name in a configuration; raises ValueError."""
    refuse_unknown("backbone", name, list(BACKBONES))
    return name
