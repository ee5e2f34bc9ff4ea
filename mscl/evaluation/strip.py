"""The strip: frames and flow of two classes that a model must tell apart. Also the flow beneath the frames of other figures."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mscl.config.settings import FlowConfig
from mscl.evaluation.gradcam import draw_pictures
from mscl.flow.colour import colourwheel
from mscl.flow.dis import Dis

FLOW_SIDE = 128  # pixels; smaller frames are enlarged to it, since DIS finds little on fewer
FLOW_NAME = "Flow"


def flow_pictures(frames_THWC: np.ndarray) -> np.ndarray:
    """The flow from each frame to the next by DIS, as colours (T, H', W', 3) in [0, 1]; white for the last frame.

    `frames_THWC` is uint8 RGB. All fields of a clip share one scale: its largest motion has the full colour, no motion is white.
    """
    count, height, width = frames_THWC.shape[:3]
    zoom = max(1.0, FLOW_SIDE / min(height, width))
    estimate = Dis(FlowConfig(method="dis", size=(round(height * zoom), round(width * zoom))))
    fields = estimate(frames_THWC, [(t, t + 1) for t in range(count - 1)])
    fields.append(np.zeros((round(height * zoom), round(width * zoom), 2), np.float32))
    flow_T2HW = torch.from_numpy(np.stack(fields)).permute(0, 3, 1, 2)
    largest = torch.linalg.vector_norm(flow_T2HW, dim=1).amax()
    return colourwheel(flow_T2HW / (largest + 1e-5)).permute(0, 2, 3, 1).numpy()


def choose_pair(pairs: pd.DataFrame, tested: Sequence[str]) -> tuple[str, str, str] | None:
    """Two of the `tested` classes to show, and the reason; None with fewer than two.

    Preferred are classes whose names have the same words in another order ("from left to right", "from right to left"), since such classes
    differ only in the order of their motion; then those whose names differ in one word; then any. Each of these is looked for first among
    the confused pairs, in the order of `pairs`, which is that of Table 2.
    """
    known = pairs[(pairs["left_confused"] + pairs["right_confused"] > 0) & pairs["a"].isin(tested) & pairs["b"].isin(tested)]
    confused, every = list(zip(known["a"], known["b"], strict=True)), list(combinations(tested, 2))
    for alike, names in (
        (_same_words, "the names have the same words in another order"),
        (_one_word, "the names differ in one word"),
    ):
        for among, what in ((confused, "a confused pair"), (every, "not confused, but")):
            if found := next((pair for pair in among if alike(*map(_words, pair))), None):
                return *found, f"{what}, {names}" if among is confused else f"{what} {names}"
    if confused:
        return *confused[0], "the first of the confused pairs"
    return (*every[0], "no pair is confused; these are the first two classes") if every else None


def _words(name: str) -> list[str]:
    return re.findall(r"\w+", name.lower())


def _same_words(one: list[str], other: list[str]) -> bool:
    return one != other and sorted(one) == sorted(other)


def _one_word(one: list[str], other: list[str]) -> bool:
    return len(one) == len(other) > 1 and sum(a != b for a, b in zip(one, other, strict=True)) == 1


def draw_strip(clips: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    """Write a PNG: for each (class, frames (T, H, W, 3) uint8), a row of frames and a row of flow. The same input gives the same bytes."""
    rows = []
    for name, frames_THWC in clips:
        said = "\n".join(textwrap.wrap(textwrap.shorten(name, 78, placeholder=" …"), 26))
        rows += [
            (f"Class {len(rows) // 2 + 1}", said, frames_THWC / 255.0),
            (FLOW_NAME, "to the next frame", flow_pictures(frames_THWC)),
        ]
    draw_pictures(rows, "Two classes that must be told apart", path)
