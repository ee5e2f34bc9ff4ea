"""The network of a method: what its family says (`mscl.config.methods`).

Each has `encoder` (what is kept), `momentum_update(m)`, `enqueue()` and `forward(*views, enqueue)`, which returns its loss terms
(all of weight 1) and accuracies, by name.
"""

from __future__ import annotations

from torch import nn

from mscl.models.methods.corp import CorpF, CorpM
from mscl.models.methods.modist import MoDist
from mscl.models.methods.mscl import MSCL
from mscl.models.methods.rho_moco import RhoMoCo

FAMILIES: dict[str, type[nn.Module]] = {
    "mscl": MSCL,
    "rho-moco": RhoMoCo,
    "modist": MoDist,
    "corp-m": CorpM,
    "corp-f": CorpF,
}


def build_method(net, contrast, switches) -> nn.Module:
    """The method of `switches` with networks of `net` (`mscl.stages.jobs.Net`)."""
    return FAMILIES[switches.family](net, contrast, switches)
