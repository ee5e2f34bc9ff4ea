"""Dense inverse search (Kroeger et al., ECCV 2016) by OpenCV: needs no weights and no GPU."""

from __future__ import annotations

import threading

import cv2
import numpy as np

from mscl.config.settings import FlowConfig
from mscl.flow.grid import Pairs, resize


class Dis:
    grey = True

    def __init__(self, flow: FlowConfig):
        self.flow = flow
        self._own = threading.local()  # a DISOpticalFlow object keeps its pyramids: one per thread

    def __call__(self, frames: np.ndarray, pairs: Pairs) -> list[np.ndarray]:
        if not hasattr(self._own, "dis"):
            self._own.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        brightness = lambda frame: frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)  # noqa: E731
        grey = {k: resize(brightness(frames[k]), self.flow.size) for k in sorted({k for pair in pairs for k in pair})}
        return [self._own.dis.calc(grey[i], grey[j], None) for i, j in pairs]
