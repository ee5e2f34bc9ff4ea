"""What moves in a generated video: motion programs, and the random scene that performs one.

Everything but the program (look, size, start, speeds, camera) is drawn from the clip's own random stream
*before* the program is looked at, so that by construction only motion can tell the class. Lengths are
fractions of the frame's short side until `Scene.pose` turns them into pixels; y points down, so a positive
angle turns clockwise on the screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RADIUS = (0.20, 0.27)  # of the object, short sides
SHIFT = (0.23, 0.30)  # of one phase, short sides; less for an object that would leave the frame
ZOOM = (1.5, 1.7)  # factor of one phase
TURN = (math.radians(55), math.radians(95))  # of one phase
PAN = 0.03  # largest displacement of the camera over a clip, per axis, short sides
WOBBLE = 0.004  # amplitude of the camera's shake, short sides

# phase -> what one unit of progress does: x, y in shifts, log-scale in zooms, angle in turns
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

# Four pairs differ only in the order of the same two motions, two in the direction of one motion.
PROGRAMS: tuple[tuple[str, ...], ...] = (
    ("up", "down"), ("down", "up"),
    ("right", "left"), ("left", "right"),
    ("grow", "shrink"), ("shrink", "grow"),
    ("clockwise", "anticlockwise"), ("anticlockwise", "clockwise"),
    ("right",), ("left",),
    ("grow",), ("shrink",),
)  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """Where things are in one frame, in pixels; continuous coordinates, (0, 0) is the frame's corner."""

    x: float
    y: float
    radius: float
    angle: float  # radians, clockwise
    camera: tuple[float, float]  # how far the background stands from where it was in frame 0

    @property
    def matrix(self) -> np.ndarray:
        """Similarity (3, 3): the object's own coordinates (unit radius) -> frame coordinates in pixels."""
        c, s = self.radius * math.cos(self.angle), self.radius * math.sin(self.angle)
        return np.array([[c, -s, self.x], [s, c, self.y], [0, 0, 1]])


@dataclass(frozen=True)
class Scene:
    """One generated video before it is drawn. `steps` holds (shift, zoom, turn) of each of the two phases."""

    program: tuple[str, ...]
    frames: int
    size: tuple[int, int]  # width, height
    looks: int  # seed of everything that is drawn: background, shape, texture, colours
    radius: float
    start: tuple[float, float]  # offset from the frame's centre
    angle: float
    steps: tuple[tuple[float, float, float], tuple[float, float, float]]
    switch: float  # where the second phase begins, share of the clip
    pan: tuple[float, float]
    wobble: tuple[float, float]  # phase of the shake, per axis
    heading: float = 0.0  # radians: turns every motion's direction; a growth becomes a growth with a turn, and so on

    @property
    def short(self) -> int:
        return min(self.size)

    def pose(self, frame: int) -> Pose:
        """Pose in raw frame `frame`; raises ValueError outside the clip."""
        if not 0 <= frame < self.frames:
            raise ValueError(f"frame {frame}: the clip has frames 0 to {self.frames - 1}; ask for one of them")
        time = frame / (self.frames - 1)
        x, y, zoom, angle = *self.start, 0.0, self.angle
        c, s = math.cos(self.heading), math.sin(self.heading)
        for phase, progress, (shift, scale, turn) in zip(self.program, self._progress(time), self.steps):
            dx, dy, dz, da = (progress * unit for unit in PHASES[phase])
            x, y = x + shift * (c * dx - s * dy), y + shift * (s * dx + c * dy)
            zoom, angle = zoom + scale * (c * dz - s * da), angle + turn * (s * dz + c * da)
        (width, height), short = self.size, self.short
        return Pose(
            width / 2 + x * short, height / 2 + y * short, self.radius * math.exp(zoom) * short, angle,
            (self._camera(time, 0) * short, self._camera(time, 1) * short),
        )  # fmt: skip

    def _progress(self, time: float) -> tuple[float, ...]:
        if len(self.program) == 1:
            return (time,)
        return min(time / self.switch, 1.0), max(time - self.switch, 0.0) / (1 - self.switch)

    def _camera(self, time: float, axis: int) -> float:
        shake = math.sin(self.wobble[axis] + 2 * math.pi * time) - math.sin(self.wobble[axis])
        return self.pan[axis] * time + WOBBLE * shake


def draw_scene(
    rng: np.random.Generator, program: tuple[str, ...], frames: int, size: tuple[int, int], any_heading: bool = False
) -> Scene:
    """Draw a scene for `program`. The draws do not depend on the program, so neither does anything but the motion.

    The start lies in the central region from which every program stays within the frame. `any_heading` turns the
    program's directions by a random angle: as in the world at large, no direction is special, and rotated flow (FRA)
    cannot be told from flow by its directions alone.
    """
    if not 1 <= len(program) <= 2 or any(phase not in PHASES for phase in program):
        raise ValueError(f"program {program}: give one or two of {', '.join(PHASES)}")
    radius = rng.uniform(*RADIUS)
    longest = min(SHIFT[1], 0.5 - radius)
    steps = tuple((rng.uniform(SHIFT[0], longest), math.log(rng.uniform(*ZOOM)), rng.uniform(*TURN)) for _ in range(2))
    if any_heading:  # a turn by e^ib of flow that grows at rate z and turns at rate a is flow of rate (z + ia) e^ib
        steps = tuple((shift, scale, scale) for shift, scale, _ in steps)
    room = 0.5 - radius - max(shift for shift, _, _ in steps)
    start = tuple(rng.uniform(-1, 1) * (room + (side / min(size) - 1) / 2) for side in size)
    return Scene(
        program=tuple(program), frames=frames, size=tuple(size), looks=int(rng.integers(2**63)), radius=radius, start=start,
        angle=rng.uniform(0, 2 * math.pi), steps=steps, switch=rng.uniform(0.43, 0.57),
        pan=(rng.uniform(-PAN, PAN), rng.uniform(-PAN, PAN)),
        wobble=(rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)),
        heading=rng.uniform(0, 2 * math.pi) if any_heading else 0.0,
    )  # fmt: skip
