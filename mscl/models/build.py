"""The network of a method: what its family says (`mscl.config.methods`)."""

from __future__ import annotations

from mscl.config.methods import Switches
from mscl.config.module_path import load
from mscl.config.settings import Contrast
from mscl.models.method import Method
from mscl.models.moco import Encoder
from mscl.stages.jobs import Net


def build_method(net: Net, contrast: Contrast, switches: Switches) -> Method:
    """The method of `switches` with networks of `net`. Raises ValueError unless it says which encoder is kept."""
    method = load(switches.network)(net, contrast, switches)
    if not isinstance(getattr(method, "encoder", None), Encoder):
        raise ValueError(f"{switches.network}: set self.encoder to an mscl.models.moco.Encoder, which is what training keeps")
    return method
