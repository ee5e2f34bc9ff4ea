"""Optical flow between frames of a clip, by RAFT (torchvision), DIS (OpenCV) or a program of your own, behind one callable.

RAFT is the paper's; DIS needs no weights and no GPU, so the demo and machines without either use it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mscl.config.settings import FlowConfig
from mscl.flow.dis import Dis
from mscl.flow.grid import Pairs
from mscl.flow.program import Program
from mscl.machine.device import pick_device


class Estimator(Protocol):
    """f(frames, pairs) -> one flow_HW2 float32 per pair (i, j) of positions in `frames`, which are THWC uint8 RGB.

    Fields have `flow.size` (H, W), and (u, v) is in its pixels: neither depends on how they will be stored. One that looks at brightness only (`grey`) also takes THW, which is cheaper to decode.
    """

    grey: bool

    def __call__(self, frames: np.ndarray, pairs: Pairs) -> list[np.ndarray]: ...


def make_estimator(flow: FlowConfig, device: str) -> Estimator:
    """The estimator of a configuration.

    May be called from several threads. Raises ValueError when RAFT's weights, or the program, cannot be used.
    """
    if flow.method == "dis":
        return Dis(flow)
    if flow.method == "command":
        return Program(flow, device)
    from mscl.flow.raft import Raft

    return Raft(flow, pick_device(device))
