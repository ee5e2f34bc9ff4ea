"""`from mscl.machine.torchvision import torchvision`: import torchvision, also with a torch that it was not built for.

PyPI's torchvision with a CPU-only torch fails to import because its compiled operators do not load
("operator torchvision::nms does not exist"). mscl does not use these operators, so declaring their schemas is sufficient.
"""

from __future__ import annotations

import sys

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # the schemas exist as long as this object

try:
    import torchvision
    import torchvision.models
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]  # partly imported modules of the failed import
    _library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        _library.define(schema)
    import torchvision
    import torchvision.models

__all__ = ["torchvision"]
