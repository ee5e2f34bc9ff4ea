"""GradCAM of a video classifier (Selvaraju et al. 2017) and its figure: one row per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mscl.machine.files import atomic_write

FRAMES_SHOWN = 8  # in a row
INCH = 1.35  # width of one drawn frame, inches
LABEL = 2.2  # width of the labels at the left, inches
STRENGTH = 0.55  # opacity at the largest heat


def gradcam(model: torch.nn.Module, clip_BCTHW: torch.Tensor, target: torch.Tensor | int) -> np.ndarray:
    """Heat (B, T, H, W), float32 in [0, 1]: where the last residual stage gives evidence for the class `target`.

    The layer is `model.backbone.gradcam_layer`; `target` is one label for all clips, or a tensor with one label per clip. The
    heat of each clip is divided by its maximum (all zeros without positive evidence for the class). It is upsampled trilinearly
    over time and space, so its real resolution is that of the layer.
    """
    was_training = model.training
    model.eval()
    try:
        # PyTorch refuses in-place operations on a leaf with hooks; a new leaf keeps the caller's tensor free of gradients.
        clip = clip_BCTHW.detach().clone()
        cam = LayerGradCam(model, model.backbone.gradcam_layer).attribute(clip, target=target, relu_attributions=True)
    finally:
        model.train(was_training)
    heat = F.interpolate(cam.detach().float(), size=clip_BCTHW.shape[2:], mode="trilinear", align_corners=False)[:, 0]
    peak = heat.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(peak > 0, heat / peak.clamp_min(torch.finfo(heat.dtype).tiny), torch.zeros_like(heat)).cpu().numpy()


@torch.no_grad()
def stage_grid(model: torch.nn.Module, clip_BCTHW: torch.Tensor) -> tuple[int, int, int]:
    """(T, H, W) of the last residual stage for a clip (B, 3, T, H, W): the real resolution of the heat."""
    shapes: list[torch.Size] = []
    hook = model.backbone.gradcam_layer.register_forward_hook(lambda _module, _input, output: shapes.append(output.shape))
    try:
        model(clip_BCTHW)
    finally:
        hook.remove()
    return tuple(shapes[0][2:])


def overlay(frame_HWC: np.ndarray, heat_HW: np.ndarray) -> np.ndarray:
    """A uint8 frame (H, W, 3) with its heat (H, W) on top: float RGB in [0, 1]. Pixels with zero heat keep their colour."""
    alpha = STRENGTH * np.clip(heat_HW, 0, 1)[..., None] ** 0.7
    return (1 - alpha) * frame_HWC / 255.0 + alpha * colormaps["turbo"](0.1 + 0.8 * heat_HW)[..., :3]


def draw_rows(
    frames_THWC: np.ndarray,
    heats: Mapping[str, np.ndarray],
    title: str,
    path: Path,
    captions: Mapping[str, str] | None = None,
    flow_THWC: np.ndarray | None = None,
) -> None:
    """Write a PNG: the frames of a clip in the first row, then one row per method with its heat on top of the frames.

    `frames_THWC` is uint8 RGB; each heat is (T, H, W) in [0, 1], in the order of `heats`. `captions` gives a text below the name of a
    method, such as its prediction. `flow_THWC`, colours in [0, 1] and of any height and width, is drawn beneath. The same input gives the
    same bytes. Raises ValueError when a heat does not have the T, H and W of the frames.
    """
    for method, heat in heats.items():
        if heat.shape != frames_THWC.shape[:3]:
            raise ValueError(
                f"draw_rows: heat of '{method}' has shape {heat.shape}, but the frames have {frames_THWC.shape[:3]}; "
                "compute both from the same clip"
            )
    rows = [("Clip", "", frames_THWC / 255.0)]
    for method, heat in heats.items():
        rows.append((method, (captions or {}).get(method, ""), [overlay(f, h) for f, h in zip(frames_THWC, heat, strict=True)]))
    if flow_THWC is not None:
        rows.append(("Flow", "to the next frame", flow_THWC))
    draw_pictures(rows, title, path)


def draw_pictures(rows: Sequence[tuple[str, str, Sequence[np.ndarray]]], title: str, path: Path) -> None:
    """Write a PNG of rows of pictures; each row is (name, caption, T pictures (H, W, 3), RGB in [0, 1]).

    At most 8 evenly spaced times are shown. The shape of the first row's pictures is that of all. The same input gives the same bytes.
    """
    count, (height, width) = len(rows[0][2]), rows[0][2][0].shape[:2]
    shown = np.unique(np.linspace(0, count - 1, min(FRAMES_SHOWN, count)).round().astype(int))
    size = (LABEL + INCH * len(shown) + 0.15, 0.62 + (INCH * height / width + 0.06) * len(rows) + 0.1)  # inches
    figure = Figure(figsize=size, dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        len(shown),
        left=LABEL / size[0],
        right=1 - 0.1 / size[0],
        top=1 - 0.62 / size[1],
        bottom=0.1 / size[1],
        wspace=0.04,
        hspace=0.04,
    )
    figure.text(0.1 / size[0], 1 - 0.2 / size[1], title, fontsize=13, weight="bold", va="center", parse_math=False)
    for row, (name, caption, pictures) in enumerate(rows):
        for column, time in enumerate(shown):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(np.clip(pictures[time], 0, 1), interpolation="bicubic", aspect="auto")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(f"frame {time + 1}", fontsize=9, color="#666666", pad=3)
        where = grid[row, 0].get_position(figure)
        _label(figure, size, (where.y0 + where.y1) / 2, name, caption)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _label(figure: Figure, size: tuple[float, float], middle: float, name: str, caption: str) -> None:
    """Write the name and the caption of a row at its left; `middle` is the centre of the row as a share of the figure's height."""
    left, raised = 0.1 / size[0], middle + (0.04 / size[1] if caption else 0)
    side = "bottom" if caption else "center"
    figure.text(left, raised, name, fontsize=11.5, weight="bold", va=side, parse_math=False)
    figure.text(left, middle, caption, fontsize=9, color="#444444", va="top", linespacing=1.3, parse_math=False)
