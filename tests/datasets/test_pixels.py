"""Real pixels with a known motion (benchmarks/evidence/pixels.py): the motion is that of the scene, the footage of a split its own."""

import cv2
import numpy as np

from benchmarks.evidence.pixels import pan, read
from mscl.datasets.generated.encode import encode
from mscl.datasets.generated.motion import SCENES, draw_scene


def test_what_is_in_the_window_moves_as_the_scene_says():
    still = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8), (0, 0), 6)
    video = np.repeat(still[None], 40, axis=0)
    for program, sign in ((("right", "left"), 1), (("left", "right"), -1)):
        scene = draw_scene(np.random.default_rng(1), program, 32, (64, 64), kind=SCENES["order"])
        frames = pan(video, scene, np.random.default_rng(2))
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in frames]
        for first, direction in ((1, sign), (25, -sign)):  # in the first and in the second phase
            (x, y), _ = cv2.phaseCorrelate(grey[first], grey[first + 4])
            moved = scene.pose(first + 4).x - scene.pose(first).x
            assert abs(x - moved) < 0.7 and abs(y) < 0.7 and np.sign(x) == direction


def test_footage_is_read_at_a_short_side_of_at_most_240(tmp_path):
    encode(np.zeros((3, 360, 480, 3), np.uint8), tmp_path / "a.mp4")
    assert read(tmp_path / "a.mp4").shape == (3, 240, 320, 3)
