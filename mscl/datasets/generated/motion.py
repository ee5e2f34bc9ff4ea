"""The motion in a generated video: motion programs, and random scenes that perform them.

Everything except the program (appearance, size, start, speeds, camera) is drawn from the clip's own random generator, and the
draws do not depend on the program. So by construction only the motion determines the class. Lengths are fractions of the
frame's short side; `Scene.pose` converts them to pixels. y points down, so a positive angle is clockwise on the screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RADIUS = (0.20, 0.27)  # range of the object's radius, in short sides
SHIFT = (0.23, 0.30)  # range of the shift of one phase, in short sides; less for an object that would leave the frame
ZOOM = (1.5, 1.7)  # range of the zoom factor of one phase
TURN = (math.radians(55), math.radians(95))  # range of the rotation of one phase, in radians
PAN = 0.03  # largest camera displacement over a clip, per axis, in short sides
WOBBLE = 0.004  # amplitude of the camera shake, in short sides

# {phase: effect of one unit of progress}: x and y in units of SHIFT, log-scale in units of ZOOM, angle in units of TURN
PHASES: dict[str, tuple[int, int, int, int]] = {
    "still": (0, 0, 0, 0),
    "right": (1, 0, 0, 0),
    "left": (-1, 0, 0, 0),
    "down": (0, 1, 0, 0),
    "up": (0, -1, 0, 0),
    "grow": (0, 0, 1, 0),
    "shrink": (0, 0, -1, 0),
    "clockwise": (0, 0, 0, 1),
    "anticlockwise": (0, 0, 0, -1),
}

# Four pairs of classes differ only in the order of the same two motions, two pairs only in the direction of one motion.
PROGRAMS: tuple[tuple[str, ...], ...] = (
    ("up", "down"), ("down", "up"),
    ("right", "left"), ("left", "right"),
    ("grow", "shrink"), ("shrink", "grow"),
    ("clockwise", "anticlockwise"), ("anticlockwise", "clockwise"),
    ("right",), ("left",),
    ("grow",), ("shrink",),
)  # fmt: skip

# Eight classes that differ only in the order and direction of two motions along the axes.
ORDERS: tuple[tuple[str, ...], ...] = (
    ("right", "left"), ("left", "right"),
    ("down", "up"), ("up", "down"),
    ("right", "down"), ("down", "right"),
    ("left", "up"), ("up", "left"),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of scenes: its classes, and the ranges that they are drawn from, in short sides."""

    programs: tuple[tuple[str, ...], ...]
    radius: tuple[float, float] = RADIUS
    shift: tuple[float, float] = SHIFT
    start: float | None = None  # largest offset of the object's start from the centre; None: as far as it stays inside the frame
    pan: float = PAN
    wobble: float = WOBBLE
    soft: bool = False  # smooth textures of many colours instead of patterns of two


# `order` is what benchmarks/2026-11-25-factors.md found to be learnt in minutes: a large object, a camera at rest, soft textures.
SCENES = {
    "programs": Kind(PROGRAMS),
    "order": Kind(ORDERS, radius=(0.26, 0.36), shift=(0.24, 0.36), start=0.2, pan=0.0, wobble=0.0, soft=True),
}


@dataclass(frozen=True)
class Pose:
    """Positions in one frame, in pixels. Coordinates are continuous; (0, 0) is the top left corner of the frame."""

    x: float
    y: float
    radius: float
    angle: float  # radians, clockwise
    camera: tuple[float, float]  # displacement (x, y) of the background since frame 0

    @property
    def matrix(self) -> np.ndarray:
        """Similarity transform (3, 3) from object coordinates (radius 1) to frame coordinates (pixels)."""
        c, s = self.radius * math.cos(self.angle), self.radius * math.sin(self.angle)
        return np.array([[c, -s, self.x], [s, c, self.y], [0, 0, 1]])


@dataclass(frozen=True)
class Scene:
    """One generated video before it is drawn. `steps`: (shift, zoom, turn) of each of the two phases."""

    program: tuple[str, ...]
    frames: int
    size: tuple[int, int]  # width, height
    looks: int  # random seed of the appearance: background, shape, texture, colours
    radius: float  # short sides
    start: tuple[float, float]  # offset from the frame's centre, short sides
    angle: float  # at the start, radians
    steps: tuple[tuple[float, float, float], tuple[float, float, float]]
    switch: float  # time at which the second phase begins, as a fraction of the clip
    pan: tuple[float, float]  # camera displacement over the clip, per axis, short sides
    wobble: tuple[float, float]  # phase of the camera shake, per axis, radians
    shake: float = WOBBLE  # amplitude of the camera shake, short sides
    soft: bool = False  # as in `Kind`
    heading: float = 0.0  # radians: rotates the direction of every motion; growing becomes growing with a rotation, and so on

    @property
    def short(self) -> int:
        return min(self.size)

    def pose(self, frame: int) -> Pose:
        """The pose in raw frame `frame`. Raises ValueError for a frame outside the clip."""
        if not 0 <= frame < self.frames:
            raise ValueError(f"frame {frame}: the clip has frames 0 to {self.frames - 1}; choose one of them")
        time = frame / (self.frames - 1)
        x, y, zoom, angle = *self.start, 0.0, self.angle
        c, s = math.cos(self.heading), math.sin(self.heading)
        for phase, progress, (shift, scale, turn) in zip(self.program, self._progress(time), self.steps):
            dx, dy, dz, da = (progress * unit for unit in PHASES[phase])
            x, y = x + shift * (c * dx - s * dy), y + shift * (s * dx + c * dy)
            zoom, angle = zoom + scale * (c * dz - s * da), angle + turn * (s * dz + c * da)
        (width, height), short = self.size, self.short
        camera = (self._camera(time, 0) * short, self._camera(time, 1) * short)
        return Pose(width / 2 + x * short, height / 2 + y * short, self.radius * math.exp(zoom) * short, angle, camera)

    def _progress(self, time: float) -> tuple[float, ...]:
        if len(self.program) == 1:
            return (time,)
        return min(time / self.switch, 1.0), max(time - self.switch, 0.0) / (1 - self.switch)

    def _camera(self, time: float, axis: int) -> float:
        shake = math.sin(self.wobble[axis] + 2 * math.pi * time) - math.sin(self.wobble[axis])
        return self.pan[axis] * time + self.shake * shake


def draw_scene(
    rng: np.random.Generator,
    program: tuple[str, ...],
    frames: int,
    size: tuple[int, int],
    any_heading: bool = False,
    kind: Kind = SCENES["programs"],
) -> Scene:
    """Draw a random scene for `program`. The random draws do not depend on the program, so only the motion does.

    The object starts in the central region, by default where every program stays inside the frame. `any_heading` rotates the
    directions of the program by a random angle. Then, as in real videos, no direction is special, and rotated flow (FRA) cannot
    be distinguished from flow by its directions alone. Raises ValueError for a program that is not one or two of PHASES.
    """
    if not 1 <= len(program) <= 2 or any(phase not in PHASES for phase in program):
        raise ValueError(f"program {program}: give one or two of {', '.join(PHASES)}")
    radius = rng.uniform(*kind.radius)
    longest = kind.shift[1] if kind.start is not None else min(kind.shift[1], 0.5 - radius)
    steps = tuple((rng.uniform(kind.shift[0], longest), math.log(rng.uniform(*ZOOM)), rng.uniform(*TURN)) for _ in range(2))
    if any_heading:  # flow that grows at rate z and rotates at rate a, rotated by e^ib, is flow of rate (z + ia) e^ib
        steps = tuple((shift, scale, scale) for shift, scale, _ in steps)
    room = 0.5 - radius - max(shift for shift, _, _ in steps) if kind.start is None else kind.start
    start = tuple(rng.uniform(-1, 1) * (room + (side / min(size) - 1) / 2) for side in size)
    return Scene(
        program=tuple(program),
        frames=frames,
        size=tuple(size),
        looks=int(rng.integers(2**63)),
        radius=radius,
        start=start,
        angle=rng.uniform(0, 2 * math.pi),
        steps=steps,
        switch=rng.uniform(0.43, 0.57),
        pan=(rng.uniform(-kind.pan, kind.pan), rng.uniform(-kind.pan, kind.pan)),
        wobble=(rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)),
        heading=rng.uniform(0, 2 * math.pi) if any_heading else 0.0,
        shake=kind.wobble,
        soft=kind.soft,
    )
