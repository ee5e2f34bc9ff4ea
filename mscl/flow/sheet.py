"""A contact sheet of one clip: its frames, its flow, and which starts its motion allows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mscl.flow.colour import colour_field
from mscl.flow.quantise import decode_field
from mscl.machine.files import atomic_write
from mscl.store.jpeg import decode_rgb
from mscl.store.shards import Shards

COLUMNS = 8


def contact_sheet(frames: Shards, flow: Shards | None, clip_id: str, out: Path, count: int = 16) -> None:
    """Write a PNG of up to `count` frames of a clip, evenly spread, each above the flow field that starts there.

    A frame without a field shows none. Where there is flow, the lowest panel draws the motion score of every start and marks
    those that MDS allows. Raises ValueError when the clip is not in the store or has no frames.
    """
    row = frames.row(clip_id)
    clip, kept = frames.clips.iloc[row], frames.frames(row)
    if not len(kept):
        raise ValueError(f"clip '{clip_id}' has no frames: {clip['status']}, {clip['reason']}")
    flow_row = flow.row(clip_id) if flow and clip_id in flow and flow.clips["count"].iat[flow.row(clip_id)] else None
    shown = np.unique(np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int))
    bands = -(-len(shown) // COLUMNS)
    high = 2 if flow_row is not None else 1
    ratio = clip["height"] / clip["width"]
    size = (1.6 * COLUMNS, bands * high * (1.6 * ratio + 0.25) + (1.8 if high == 2 else 0) + 0.5)
    figure = plt.figure(figsize=size, layout="constrained", dpi=110)
    heights = [ratio] * (bands * high) + ([1.0] if high == 2 else [])
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for n, k in enumerate(shown):
        band, column = divmod(n, COLUMNS)
        title = f"{kept[k]}  ({frames.column('pts', row)[k]:.2f} s)"
        _picture(figure.add_subplot(grid[band * high, column]), frames.image(row, int(k), decode_rgb), title)
        if flow_row is not None:
            _field(figure.add_subplot(grid[band * high + 1, column]), flow, flow_row, int(kept[k]))
    if flow_row is not None:
        _scores(figure.add_subplot(grid[-1, :]), flow, flow_row)
    rate = "" if np.isnan(clip["fps"]) else f", {clip['fps']:.4g} fps"
    size_text = f"{clip['width']} x {clip['height']} px"
    parts = [f"{clip_id}: {len(kept)} kept frames{rate}, {size_text}", clip["reason"]]
    figure.suptitle(". ".join(p for p in parts if p), fontsize=9)
    with atomic_write(out) as draft:
        figure.savefig(draft, format="png")
    plt.close(figure)


def _picture(axes: plt.Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=7, pad=2)
    axes.axis("off")


def _field(axes: plt.Axes, flow: Shards, row: int, frame: int) -> None:
    at = np.flatnonzero(flow.frames(row) == frame)
    axes.axis("off")
    if len(at):
        scale = float(flow.column("scale", row)[at[0]])
        axes.imshow(colour_field(flow.image(row, int(at[0]), partial(decode_field, scale=scale))))
        axes.set_title(f"up to {flow.column('radius', row)[at[0]]:.1f} px", fontsize=6, pad=1)


def _scores(axes: plt.Axes, flow: Shards, row: int) -> None:
    starts, score, allowed = flow.frames(row), flow.column("score", row), flow.column("allowed", row)
    axes.plot(starts, score, color="0.6", linewidth=1)
    axes.plot(starts[allowed], score[allowed], "o", color="tab:red", markersize=3, label="allowed start")
    axes.plot(starts[~allowed], score[~allowed], "o", color="0.6", markersize=3, label="not allowed")
    axes.set_xlabel("start (raw frame)", fontsize=7)
    axes.set_ylabel("motion score", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=6, loc="upper right")
    axes.set_title(flow.clips["note"].iat[row], fontsize=7)
