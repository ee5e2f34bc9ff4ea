"""MSCL (Motion Sensitive Contrastive Learning, ECCV 2022): from videos to the paper's tables."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mscl.models.networks.backbone import Backbone

__version__ = "0.2.0"


def load_backbone(path: str | PathLike) -> Backbone:
    """Load an RGB backbone, in eval mode: clips (B, 3, T, H, W) -> features (B, feature_dim).

    `path` is a file of mscl, torchvision, MMAction2 or PySlowFast, a folder of `mscl publish`, or such a folder on the Hugging Face
    hub as hf://user/name@revision. `mscl.models.export.load_backbone` and `mscl.models.published.weights_file` say what is raised.
    """
    from mscl.models.export import load_backbone as load  # imported here, so that `import mscl` does not load torch
    from mscl.models.published import weights_file

    return load(weights_file(path))
