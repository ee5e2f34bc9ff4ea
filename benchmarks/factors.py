"""Which factor of the generated data or of the recipe makes the evidence vanish? Simple clips, and one factor changed at a time.

    python -m benchmarks.factors --method baseline --factor base

The simple clips: one textured object on a smooth background, 8 frames of 32 x 32; a class is the order of two motions along the
axes, so that no single frame and no single motion tells it. Exact flow. Networks, losses and augmentation are the package's.
After pretraining, a ridge probe of the frozen RGB features on held-out clips. Prints one line of JSON, and with --csv also appends it
to that file.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mscl.config.methods import METHODS
from mscl.config.settings import Augment, Contrast, FlowConfig, Kernels
from mscl.datasets.generated import motion, render
from mscl.flow.dis import Dis
from mscl.flow.grid import to_grid
from mscl.flow.rotate import angles
from mscl.models.build import build_method
from mscl.models.method import Method
from mscl.models.view import View
from mscl.stages.jobs import Net
from mscl.training.augment import MEAN, STD, augment_rgb
from mscl.training.draws import Draws
from mscl.training.hardware import place

SIDE, FRAMES, BATCH = 32, 8, 32  # pixels of a frame; frames of a clip; clips of a step
TRAIN, PROBE = 1500, 800  # clips for pretraining; for each of the probe's two halves
RIGHT, LEFT, DOWN, UP = (1, 0), (-1, 0), (0, 1), (0, -1)
ORDERS = ((RIGHT, LEFT), (LEFT, RIGHT), (DOWN, UP), (UP, DOWN), (RIGHT, DOWN), (DOWN, RIGHT), (LEFT, UP), (UP, LEFT))


@dataclass(frozen=True)
class Setting:
    """Everything that a factor may change; the defaults are the simple case. Lengths are in half sides of the frame."""

    speed: float = 1.0  # factor on the motion per frame
    radius: tuple[float, float] = (0.25, 0.40)
    dis: bool = False  # flow by DIS on the frames instead of the exact flow
    camera: bool = False  # the background pans and shakes as in motion.py
    busy: bool = False  # textures and backgrounds of render.py
    programs: bool = False  # the 12 programs of motion.py instead of the 8 orders
    heading: bool = False  # pretraining motions in any direction; the probe's stay along the axes
    frames: int = FRAMES  # of a video
    stride: int = 1  # raw frames from one frame of a clip to the next
    max_shift: int = 0  # raw frames between the starts of query and key
    bn_groups: int = 1
    weight_decay: float = 1e-2
    lr: float = 2e-3
    momentum: float = 0.99  # of the key encoders
    temperature: float = 0.1
    warmup: int = 0  # steps over which lr rises
    area: tuple[float, float] = (0.35, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.0, 0.0)
    jitter_p: float = 1.0
    gray_p: float = 0.2
    steps: int = 736

    @property
    def classes(self) -> int:
        return len(motion.PROGRAMS) if self.programs else len(ORDERS)


SHIFTED = {"frames": 32, "stride": 3, "max_shift": 8}
FACTORS: dict[str, dict] = {
    "base": {},
    "small_motion": {"speed": 0.65},
    "dis": {"dis": True},
    "camera": {"camera": True},
    "busy": {"busy": True},
    "programs": {"programs": True},
    "shift": SHIFTED,
    "bn_groups": {"bn_groups": 4},
    "weight_decay": {"weight_decay": 1e-4},
    "area": {"area": (0.5, 1.0)},
    "short": {"steps": 300},
    "heading": {"heading": True},
    "lr_5e-4": {"lr": 5e-4},
    "lr_2e-4": {"lr": 2e-4},
    "warmup": {"warmup": 100},
    "cold": {"temperature": 0.05},
    "large": {"radius": (0.45, 0.60)},
    "calm": {"camera": True, "weight_decay": 1e-4, "area": (0.5, 1.0), "speed": 0.65},
    "weak_colour": {"jitter": (0.2, 0.2, 0.2, 0.05), "jitter_p": 0.8, "gray_p": 0.0},
}
RECIPE = (
    "lr_5e-4",
    "lr_2e-4",
    "warmup",
    "short",
    "cold",
    "large",
    "calm",
)  # what the project does not do, or what is counted by its parts
FACTORS["all"] = {k: v for name, change in FACTORS.items() if name not in RECIPE for k, v in change.items()}


@dataclass
class Videos:
    """`frames` (N, T, 3, S, S) uint8; `flow` (N, T, 2, S, S) float16, in half sides a frame; `label` (N,)."""

    frames: Tensor
    flow: Tensor
    label: Tensor


def smooth(n: int, cells: int, draw: torch.Generator) -> Tensor:
    """Smooth random textures, (n, 3, S, S) in [0, 1], with `cells` random values along a side."""
    return F.interpolate(torch.rand(n, 3, cells, cells, generator=draw), size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)


def busy(n: int, cells: tuple[float, float], contrast: float, seed: int) -> Tensor:
    """Textures as render.py paints them, (n, 3, S, S) in [0, 1]."""
    rng = np.random.default_rng(seed)
    painted = np.stack([render._paint(rng, (SIDE, SIDE), cells, contrast) for _ in range(n)])
    return torch.from_numpy(painted / 255).permute(0, 3, 1, 2).float()


def velocities(label: Tensor, setting: Setting, heading: Tensor, draw: torch.Generator) -> Tensor:
    """What happens per raw frame in each of the two phases: (N, 2, 4) of x, y, log-scale, angle."""
    n, pace = len(label), setting.speed / setting.stride
    speed = 1.3 * (0.08 + 0.05 * torch.rand(n, generator=draw))
    if setting.programs:
        units = [motion.PHASES[phase] for program in motion.PROGRAMS for phase in (program * 2)[:2]]
        found = torch.tensor(units, dtype=torch.float32).view(-1, 2, 4)
        single = torch.tensor([len(program) == 1 for program in motion.PROGRAMS])
        found[single] /= 2  # one phase takes twice the time
    else:
        found = torch.zeros(len(ORDERS), 2, 4)
        found[..., :2] = torch.tensor(ORDERS)
    zoom, turn = torch.full((n,), math.log(1.6) / 4), torch.full((n,), math.radians(75) / 4)
    found = found[label] * torch.stack([speed, speed, zoom, turn], -1)[:, None] * pace
    cos, sin = heading.cos()[:, None], heading.sin()[:, None]
    turned = found.clone()
    turned[..., 0], turned[..., 1] = cos * found[..., 0] - sin * found[..., 1], sin * found[..., 0] + cos * found[..., 1]
    turned[..., 2], turned[..., 3] = cos * found[..., 2] - sin * found[..., 3], sin * found[..., 2] + cos * found[..., 3]
    return turned


def make_videos(n: int, setting: Setting, seed: int, training: bool) -> Videos:
    """Random videos of balanced classes. Looks, place and speed do not depend on the class."""
    draw = torch.Generator().manual_seed(seed)
    uniform = lambda low, high, *shape: low + (high - low) * torch.rand(n, *shape, generator=draw)  # noqa: E731
    label, T = torch.randint(0, setting.classes, (n,), generator=draw), setting.frames
    background = busy(n, (3, 8), 50, seed) if setting.busy else smooth(n, 6, draw)
    texture = busy(n, (2, 4), 90, seed + 1) if setting.busy else smooth(n, 10, draw)
    radius, disc = uniform(*setting.radius), torch.rand(n, generator=draw) < 0.5
    heading = uniform(0, 2 * math.pi) * (setting.heading and training)
    phases = velocities(label, setting, heading, draw)
    switch = (uniform(0.40, 0.60) * T).floor() if T > FRAMES else torch.randint(3, 6, (n,), generator=draw).float()
    path = phases[:, 0, :2] * switch[:, None] + phases[:, 1, :2] * (T - switch)[:, None]
    place = uniform(-0.4, 0.4, 2) - path / 2
    zoom, angle = torch.zeros(n), torch.zeros(n)
    pan, shake = uniform(-2 * motion.PAN, 2 * motion.PAN, 2), uniform(0, 2 * math.pi, 2)
    frames, flows = torch.empty(n, T, 3, SIDE, SIDE, dtype=torch.uint8), torch.empty(n, T, 2, SIDE, SIDE, dtype=torch.float16)

    def camera(t: int) -> Tensor:
        time = t / (T - 1)
        wobble = torch.sin(shake + 2 * math.pi * time) - torch.sin(shake)
        return (pan * time + 2 * motion.WOBBLE * wobble) * setting.camera

    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    for t in range(T):
        v = torch.where((t < switch)[:, None], phases[:, 0], phases[:, 1])
        dx, dy = x - place[:, 0, None, None], y - place[:, 1, None, None]
        cos, sin, r = angle.cos()[:, None, None], angle.sin()[:, None, None], (radius * zoom.exp())[:, None, None]
        a, b = (cos * dx + sin * dy) / r, (cos * dy - sin * dx) / r
        inside = torch.where(disc[:, None, None], a**2 + b**2 < 1, (a.abs() < 0.9) & (b.abs() < 0.6)).float()[:, None]
        drawn = F.grid_sample(texture, torch.stack([a, b], -1), align_corners=False, padding_mode="reflection")
        at, after = camera(t), camera(t + 1)
        behind = background
        if setting.camera:
            grid = torch.stack([x - at[:, 0, None, None], y - at[:, 1, None, None]], -1)
            behind = F.grid_sample(background, grid, align_corners=False, padding_mode="reflection")
        frames[:, t] = ((behind * (1 - inside) + drawn * inside).clamp(0, 1) * 255).round().byte()
        g, w = v[:, 2, None, None], v[:, 3, None, None]
        moved = torch.stack([v[:, 0, None, None] + g * dx - w * dy, v[:, 1, None, None] + g * dy + w * dx], 1)
        flows[:, t] = (moved * inside + (after - at)[:, :, None, None] * (1 - inside)).half()
        place, zoom, angle = place + v[:, :2], zoom + v[:, 2], angle + v[:, 3]
    if setting.dis and training:
        flows = estimated(frames, setting.stride)
    return Videos(frames, flows, label)


def estimated(frames: Tensor, gap: int) -> Tensor:
    """DIS from each frame to the one `gap` later, on frames enlarged four times, as the pipeline does."""
    dis, T = Dis(FlowConfig(size=(4 * SIDE, 4 * SIDE))), frames.shape[1]
    found = torch.zeros(len(frames), T, 2, SIDE, SIDE, dtype=torch.float16)
    for n, video in enumerate(frames.permute(0, 1, 3, 4, 2).contiguous().numpy()):
        starts = range(T - gap) if T > FRAMES else range(0, T - gap, 2)  # a clip of 8 frames looks at every second field
        for t, field in zip(starts, dis(video, [(t, t + gap) for t in starts])):
            found[n, t] = torch.from_numpy(to_grid(field, (SIDE, SIDE))).permute(2, 0, 1).half()
    return found


def starts_of(n: int, setting: Setting, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Raw frames at which query and key clips start."""
    last = setting.frames - (FRAMES - 1) * setting.stride - 1 - (setting.stride if setting.frames > FRAMES else 0)
    query = torch.randint(0, last + 1, (n,), generator=draw)
    shift = torch.randint(-setting.max_shift, setting.max_shift + 1, (n,), generator=draw)
    return query, (query + shift).clamp(0, last)


def view_of(videos: Videos, rows: Tensor, start: Tensor, setting: Setting, augment: Augment, draws: Draws, flow: bool) -> View:
    """An augmented clip of each of the videos `rows`, cropped."""
    n, when = len(rows), start[:, None] + setting.stride * torch.arange(FRAMES)
    low, high = setting.area
    scale = torch.sqrt(low + (high - low) * torch.rand(n))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = (torch.rand(n, 2) * 2 - 1) * (1 - scale)[:, None]
    grid = F.affine_grid(theta, [n, 1, SIDE, SIDE], align_corners=False)

    def cropped(x_BTCHW: Tensor) -> Tensor:
        return F.grid_sample(x_BTCHW.float().flatten(1, 2), grid, align_corners=False).view_as(x_BTCHW)

    rgb = cropped(videos.frames[rows[:, None], when]).round().byte().permute(0, 1, 3, 4, 2).contiguous()
    x = augment_rgb(rgb, torch.zeros(n, dtype=torch.bool), augment, draws)
    found = View(x.contiguous(memory_format=torch.channels_last_3d))
    if flow:
        f = cropped(videos.flow[rows[:, None], when[:, ::2]]).transpose(1, 2)
        found.flow_B2THW = f / (f.pow(2).sum(1, keepdim=True).sqrt().amax((3, 4), keepdim=True) + 1e-5)
    return found


@torch.no_grad()
def features(model: Method, videos: Videos) -> Tensor:
    """Features of the frozen RGB backbone, of 8 frames spread evenly over each video, (N, D)."""
    backbone = model.encoder.backbone
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    T = videos.frames.shape[1]
    picked = ((torch.arange(FRAMES) + 0.5) * T / FRAMES).long()
    backbone.eval()
    return torch.cat([backbone((x[:, picked].transpose(1, 2).float() / 255 - mean) / std) for x in videos.frames.split(100)])


def probe(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, ridge: float = 10.0) -> float:
    """Accuracy of a ridge classifier on standardised features."""
    mean, std = train_x.mean(0), train_x.std(0) + 1e-6
    a, b = (torch.cat([(x - mean) / std, torch.ones(len(x), 1)], 1) for x in (train_x, test_x))
    weights = torch.linalg.solve(a.T @ a + ridge * torch.eye(a.shape[1]), a.T @ F.one_hot(train_y).float())
    return ((b @ weights).argmax(1) == test_y).float().mean().item()


def run(method: str, seed: int, setting: Setting) -> dict:
    """Pretrain and probe; what to print."""
    torch.set_num_threads(1)
    switches = METHODS[method].switches
    made = time.monotonic()
    videos = make_videos(TRAIN, setting, 3 * seed + 1000, training=True)
    learnt, tested = (make_videos(PROBE, setting, 3 * seed + 1000 + k, training=False) for k in (1, 2))
    torch.manual_seed(seed)
    net = Net(backbone="r3d_18", width=8, size=SIDE, flow_width=4, neck=32, neck_blocks=2)
    contrast = Contrast(
        dim=64, queue=512, temperature=setting.temperature, momentum=setting.momentum, bn_groups=setting.bn_groups
    )
    model = place(build_method(net, contrast, switches), torch.device("cpu"), Kernels())
    augment = Augment(jitter=setting.jitter, jitter_p=setting.jitter_p, gray_p=setting.gray_p, blur_p=0.0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=setting.lr, weight_decay=setting.weight_decay)
    cosine = lambda s: 0.5 * (1 + math.cos(math.pi * s / setting.steps))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine(s) * min(1.0, (s + 1) / (setting.warmup + 1)))
    draw, seen, began = torch.Generator().manual_seed(seed), [], time.monotonic()
    order = torch.empty(0, dtype=torch.long)
    for step in range(setting.steps):
        if len(order) < BATCH:
            order = torch.randperm(TRAIN, generator=draw)
        rows, order = order[:BATCH], order[BATCH:]
        model.begin(step / setting.steps, 1 / setting.steps)
        draws = Draws(seed, step, BATCH)
        angle_B = angles(draws.integers(8))
        views = [
            view_of(videos, rows, start, setting, augment, draws, switches.flow) for start in starts_of(BATCH, setting, draw)
        ]
        for view in views:
            view.angle_B = angle_B
        losses, accuracies = model(*views)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        schedule.step()
        model.enqueue()
        seen.append({k: v.item() for k, v in accuracies.items()})
        if step % 50 == 49:
            terms = " ".join(f"{k} {v.item():.2f} ({accuracies[k].item():.2f})" for k, v in losses.items())
            print(f"{method} {step + 1}: {terms}", file=sys.stderr, flush=True)
    took = time.monotonic() - began
    score = probe(features(model, learnt), learnt.label, features(model, tested), tested.label)
    last = seen[-50:]
    return {
        "method": method,
        "seed": seed,
        "probe": round(score, 3),
        "chance": round(1 / setting.classes, 3),
        "seconds": round(took),
        "making": round(began - made),
        "steps": setting.steps,
        "accuracies": {k: round(sum(row[k] for row in last) / len(last), 3) for k in last[0]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="baseline", choices=["moco", "baseline", "mscl"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--factor", default="base", help="one of " + ", ".join(FACTORS) + "; several joined by +")
    parser.add_argument("--steps", type=int, help="optimiser steps; default: the factor's")
    parser.add_argument("--csv", type=Path, help="append the result to this file, too")
    asked = parser.parse_args()
    setting = Setting()
    for name in asked.factor.split("+"):
        setting = replace(setting, **FACTORS[name])
    setting = replace(setting, steps=asked.steps or setting.steps)
    found = {"factor": asked.factor, **run(asked.method, asked.seed, setting)}
    print(json.dumps(found), flush=True)
    if asked.csv:
        new = not asked.csv.exists()
        with asked.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, found, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(found | {"accuracies": " ".join(f"{k}={v}" for k, v in found["accuracies"].items())})


if __name__ == "__main__":
    main()
