"""Draw the frames of a scene, and compute their exact optical flow.

Frames are drawn at twice their size and averaged down, so that subpixel motion is smooth. OpenCV images index pixels by their
centres; scenes use continuous coordinates from the top left corner. `_TO_INDEX` converts between the two.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from mscl.datasets.generated.motion import PAN, WOBBLE, Pose, Scene

OVER = 2  # oversampling factor per axis
MARGIN = PAN + 2 * WOBBLE + 0.02  # background beyond the frame, in short sides
LUMA = np.array([0.299, 0.587, 0.114])
_TO_INDEX = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
_FROM_INDEX = np.linalg.inv(_TO_INDEX)


def _scale(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> np.ndarray:
    """Smooth noise (H, W) in [0, 1], with `cells` random values along the short side."""
    grid = [max(2, round(cells * side / min(shape))) + 3 for side in shape]
    scale_y, scale_x = (math.ceil(side / (count - 3)) for side, count in zip(shape, grid))
    field = cv2.resize(rng.random(grid, dtype=np.float32), None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_CUBIC)
    field = field[: shape[0], : shape[1]]
    return (field - field.min()) / (np.ptp(field) + 1e-6)


def _pattern(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float]) -> np.ndarray:
    """A random pattern (H, W) in [0, 1]: noise, stripes, checkers or a gradient; `cells`: range of cells along the short side."""
    kind = rng.choice(["noise", "stripes", "checkers", "gradient"])
    count, angle, phase = rng.uniform(*cells), rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi, 2)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / min(shape)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    if kind == "noise":
        return _noise(rng, shape, count)
    if kind == "gradient":
        return (u - u.min()) / np.ptp(u)
    wave = np.sin(math.pi * count * u + phase[0])
    if kind == "checkers":
        wave = wave * np.sin(math.pi * count * v + phase[1])
    return np.clip(0.5 + 1.5 * wave, 0, 1)


def _colours(rng: np.random.Generator, contrast: float) -> np.ndarray:
    """Two random RGB colours (2, 3), 0-255, whose brightness differs by at least `contrast`: flow estimation needs contrast."""
    while True:
        pair = rng.uniform(0, 255, (2, 3))
        if abs((pair[0] - pair[1]) @ LUMA) >= contrast:
            return pair.astype(np.float32)


def _paint(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float], contrast: float) -> np.ndarray:
    """A textured surface (H, W, 3) float32, 0-255: a pattern of two colours plus weaker, finer noise."""
    low, high = _colours(rng, contrast)
    surface = low + _pattern(rng, shape, cells)[..., None] * (high - low)
    grain = _noise(rng, shape, 2 * cells[1]) - 0.5
    return np.clip(surface + 70 * grain[..., None], 0, 255).astype(np.float32)


def _soft(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> np.ndarray:
    """A surface of smooth noise in every colour, (H, W, 3) float32, 0-255; `cells` as in `_noise`."""
    return np.stack([255 * _noise(rng, shape, cells) for _ in range(3)], -1)


def _outline(rng: np.random.Generator) -> np.ndarray:
    """A random shape as a polygon (N, 2) inside the unit circle: disc, polygon, star, cross or arrow."""
    kind = rng.choice(["disc", "polygon", "star", "cross", "arrow"])
    corners, depth = int(rng.integers(3, 7)), rng.uniform(0.55, 0.75)
    if kind == "cross":
        a, b = 0.9, 0.43
        return np.array(
            [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]
        )
    if kind == "arrow":
        return np.array([(1, 0), (0, 0.95), (0, 0.45), (-0.9, 0.4), (-0.9, -0.4), (0, -0.45), (0, -0.95)])
    points = {"disc": 64, "polygon": corners, "star": 2 * max(corners, 4)}[kind]
    turns = 2 * math.pi * np.arange(points) / points
    radii = np.where(np.arange(points) % 2, depth, 1.0) if kind == "star" else np.ones(points)
    return np.stack([radii * np.cos(turns), radii * np.sin(turns)], 1)


def _object(rng: np.random.Generator, radius: int, soft: bool) -> np.ndarray:
    """The object, centred on a canvas (C, C, 4) float32: premultiplied RGB, and alpha in [0, 1].

    A spot away from the centre makes the rotation of every shape visible.
    """
    side = 2 * (radius + 4)
    paint = _soft(rng, (side, side), 10) if soft else _paint(rng, (side, side), (2, 4), 90)
    spot = rng.uniform(0.35, 0.5) * np.array([1, 0])
    centre = np.rint(side / 2 + radius * spot).astype(int).tolist()
    cv2.circle(paint, centre, round(0.28 * radius), _colours(rng, 0)[0].tolist(), -1, cv2.LINE_AA)
    polygon = np.rint((side / 2 + radius * _outline(rng) - 0.5) * 256).astype(np.int32)  # fixed point with 8 fractional bits
    alpha = cv2.fillPoly(np.zeros((side, side), np.uint8), [polygon], 255, cv2.LINE_AA, 8).astype(np.float32) / 255
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.8)[..., None]
    return np.concatenate([cv2.GaussianBlur(paint, (0, 0), 0.8) * alpha, alpha], 2)


class Drawing:
    """The background and object of a scene, drawn once for all frames."""

    def __init__(self, scene: Scene) -> None:
        rng = np.random.default_rng(scene.looks)
        self.scene = scene
        self.margin = math.ceil(MARGIN * scene.short)
        width, height = (OVER * (side + 2 * self.margin) for side in scene.size)
        painted = _soft(rng, (height, width), 6) if scene.soft else _paint(rng, (height, width), (3, 8), 50)
        self.background = cv2.GaussianBlur(painted, (0, 0), 0.8)
        self.radius = math.ceil(1.3 * OVER * scene.radius * scene.short)
        self.object = _object(rng, self.radius, scene.soft)

    def _to_picture(self, pose: Pose, x: float, y: float) -> np.ndarray:
        """Affine transform (2, 3) from pixels of the object's canvas to pixels of an image scaled by x and y."""
        middle = len(self.object) / 2
        unit = _scale(1 / self.radius, 1 / self.radius) @ np.array([[1, 0, -middle], [0, 1, -middle], [0, 0, 1]]) @ _FROM_INDEX
        return (_TO_INDEX @ _scale(x, y) @ pose.matrix @ unit)[:2]

    def frame(self, index: int) -> np.ndarray:
        """Frame `index`, (H, W, 3) uint8 RGB. Raises ValueError for a frame outside the clip."""
        pose, (width, height) = self.scene.pose(index), self.scene.size
        big = (OVER * width, OVER * height)
        shift = np.float64([[1, 0, OVER * (pose.camera[0] - self.margin)], [0, 1, OVER * (pose.camera[1] - self.margin)]])
        picture = cv2.warpAffine(self.background, shift, big, flags=cv2.INTER_LINEAR)
        drawn = cv2.warpAffine(self.object, self._to_picture(pose, OVER, OVER), big, flags=cv2.INTER_LINEAR)
        picture = picture * (1 - drawn[..., 3:]) + drawn[..., :3]
        return cv2.convertScaleAbs(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))

    def cover(self, pose: Pose, size_hw: tuple[int, int]) -> np.ndarray:
        """Fraction of each pixel that the object covers, (h, w) float32, on a grid of `size_hw` = (h, w)."""
        (height, width), (full_w, full_h) = size_hw, self.scene.size
        matrix = self._to_picture(pose, width / full_w, height / full_h)
        return cv2.warpAffine(np.ascontiguousarray(self.object[..., 3]), matrix, (width, height), flags=cv2.INTER_LINEAR)


@lru_cache(maxsize=8)
def _drawing(scene: Scene) -> Drawing:
    return Drawing(scene)


def render(scene: Scene, first: int = 0, last: int | None = None) -> np.ndarray:
    """Frames `first` to `last` (exclusive; by default the end) of `scene`, (T, H, W, 3) uint8 RGB."""
    drawing = Drawing(scene)
    return np.stack([drawing.frame(t) for t in range(first, scene.frames if last is None else last)])


def scene_flow(scene: Scene, i: int, j: int, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Exact flow from frame i to frame j on a grid of `size_hw` = (h, w).

    Returns flow (h, w, 2) float32, (u, v) in pixels of that grid, and valid (h, w) bool. `valid` is false where the target is
    outside the frame or hidden by the object in frame j, and within one pixel of the object's edge. Raises ValueError for a frame
    outside the clip.
    """
    drawing, at_i, at_j = _drawing(scene), scene.pose(i), scene.pose(j)
    (height, width), (full_w, full_h) = size_hw, scene.size
    grid = _scale(width / full_w, height / full_h)
    y, x = np.mgrid[:height, :width] + 0.5
    points = np.stack([x, y, np.ones_like(x)], -1)  # (h, w, 3), continuous homogeneous coordinates of the grid
    move = grid @ at_j.matrix @ np.linalg.inv(at_i.matrix) @ np.linalg.inv(grid)
    camera = np.subtract(at_j.camera, at_i.camera) * (width / full_w, height / full_h)
    cover = drawing.cover(at_i, size_hw)
    flow = np.where(cover[..., None] >= 0.5, (points @ move.T - points)[..., :2], camera)
    target = points[..., :2] + flow
    within = ((target >= 0.5) & (target <= (width - 0.5, height - 0.5))).all(-1)
    kernel = np.ones((3, 3), np.uint8)  # 3 x 3: one pixel in each direction
    inside, outside = cv2.erode(cover, kernel) > 0.99, cv2.dilate(cover, kernel) < 0.01
    hider = cv2.dilate(drawing.cover(at_j, size_hw), kernel)
    hidden = cv2.remap(hider, np.float32(target[..., 0] - 0.5), np.float32(target[..., 1] - 0.5), cv2.INTER_LINEAR) > 0.01
    return flow.astype(np.float32), within & (inside | (outside & ~hidden))
