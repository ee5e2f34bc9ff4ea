"""Real pixels with a known motion (benchmarks/evidence/pixels.py): the motion is that of the scene, the footage of a split its own."""

import numpy as np

from benchmarks.evidence.pixels import compose, read
from mscl.datasets.generated.encode import encode
from mscl.datasets.generated.motion import SCENES, draw_scene


def test_the_piece_moves_as_the_scene_says_and_what_is_behind_it_stands():
    black = np.zeros((40, 240, 320, 3), np.uint8)
    for program in (("right", "left"), ("down", "right")):
        scene = draw_scene(np.random.default_rng(1), program, 32, (64, 64), kind=SCENES["order"])
        frames = compose(black, black + 200, scene, np.random.default_rng(2)).astype(float)[..., 0]
        y, x = np.mgrid[:64, :64] + 0.5
        for t in (0, 8, 16, 31):
            pose = scene.pose(t)
            away = np.hypot(x - pose.x, y - pose.y)
            assert frames[t][away < pose.radius - 1.5].min() > 190 and frames[t][away > pose.radius + 0.5].max() < 10


def test_both_footages_play():
    count = 40
    video = np.repeat(np.arange(count, dtype=np.uint8)[:, None, None, None] * 5, 240, 1).repeat(320, 2).repeat(3, 3)
    scene = draw_scene(np.random.default_rng(1), ("right", "left"), 32, (64, 64), kind=SCENES["order"])
    frames = compose(video, video, scene, np.random.default_rng(2)).astype(int)
    assert (np.diff(frames[:, 0, 0, 0]) == 5).all()  # behind
    middle = [frames[t, int(scene.pose(t).y), int(scene.pose(t).x), 0] for t in range(32)]
    assert (np.diff(middle) == 5).all()


def test_footage_is_read_at_a_short_side_of_at_most_240(tmp_path):
    encode(np.zeros((3, 360, 480, 3), np.uint8), tmp_path / "a.mp4")
    assert read(tmp_path / "a.mp4").shape == (3, 240, 320, 3)
