"""MSCL (Motion Sensitive Contrastive Learning, ECCV 2022): from videos to the paper's tables."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mscl.models.networks.backbone import Backbone

__version__ = "0.1.0"


def load_backbone(path: str | PathLike) -> Backbone:
    """The RGB backbone of a file of weights, in eval mode: clips (B, 3, T, H, W) -> features (B, feature_dim).

    mscl's own files, torchvision's, MMAction2's and PySlowFast's; see `mscl.models.export.load_backbone`.
    """
    from mscl.models.export import load_backbone as load  # torch is loaded only now

    return load(path)
