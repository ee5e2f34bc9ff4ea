"""The network of a method: what its family says (`mscl.config.methods`)."""

from __future__ import annotations

from mscl.config.methods import Switches
from mscl.config.module_path import load
from mscl.config.schema import Contrast
from mscl.models.method import Method
from mscl.stages.jobs import Net


def build_method(net: Net, contrast: Contrast, switches: Switches) -> Method:
    """The method of `switches` with networks of `net`."""
    return load(switches.network)(net, contrast, switches)
