"""A clip shows a motion program performed by a random object; its flow depends only on two poses."""

import math

import cv2
import numpy as np
import pytest

from mscl.datasets.generated.motion import ORDERS, PHASES, PROGRAMS, SCENES, Scene, draw_scene
from mscl.datasets.generated.render import render, scene_flow

SIZE = (96, 72)
SHIFT, ZOOM, TURN = 0.25, math.log(1.6), math.pi / 2  # of a program with one phase, over the whole clip


def scene(*program: str, pan=(0.0, 0.0)) -> Scene:
    """A scene without camera shake: radius 14.4 px, centre (48, 36), 33 frames; one phase moves it by 18 px."""
    return Scene(program, 33, SIZE, 1, 0.2, (0.0, 0.0), 0.0, ((SHIFT, ZOOM, TURN),) * 2, 0.5, pan, (0.0, 0.0))


def at(program: str, dx: int, dy: int, i: int = 0, j: int = 32) -> np.ndarray:
    """Exact (u, v) at the pixel (48 + dx, 36 + dy); its centre is half a pixel right of and below that position."""
    flow, _ = scene_flow(scene(program), i, j, SIZE[::-1])
    return flow[36 + dy, 48 + dx]


@pytest.mark.parametrize(("program", "expected"), [("right", (18, 0)), ("left", (-18, 0)), ("up", (0, -18)), ("down", (0, 18))])
def test_a_translation_moves_every_pixel_of_the_object_equally(program, expected):
    assert np.allclose(at(program, 0, 0), expected, atol=1e-4)
    assert np.allclose(at(program, 4, -3), expected, atol=1e-4)


def test_a_scale_moves_pixels_away_from_the_centre():
    # x1.6 about (48, 36); the centre of the pixel is (52.5, 36.5)
    assert np.allclose(at("grow", 4, 0), (0.6 * 4.5, 0.6 * 0.5), atol=1e-4)
    assert np.allclose(at("shrink", 4, 0), ((1 / 1.6 - 1) * 4.5, (1 / 1.6 - 1) * 0.5), atol=1e-4)


def test_a_rotation_moves_pixels_clockwise_on_the_screen():
    assert np.allclose(at("clockwise", 4, 0), (-0.5 - 4.5, 4.5 - 0.5), atol=1e-4)  # (x, y) -> (-y, x), y down: right goes down
    assert np.allclose(at("anticlockwise", 4, 0), (0.5 - 4.5, -4.5 - 0.5), atol=1e-4)


def test_the_background_moves_with_the_camera_and_the_object_does_not():
    flow, valid = scene_flow(scene("still", pan=(0.05, -0.025)), 0, 32, SIZE[::-1])
    assert np.allclose(flow[36, 48], 0, atol=1e-5)
    assert np.allclose(flow[5, 5], (3.6, -1.8), atol=1e-5)
    assert not valid[:2].any() and not valid[:, -4:].any()  # these leave the frame


def test_flow_is_in_pixels_of_the_requested_grid():
    flow, _ = scene_flow(scene("right"), 0, 32, (36, 192))
    assert flow.shape == (36, 192, 2)
    assert np.allclose(flow[18, 96], (36, 0), atol=1e-4)


def test_hidden_pixels_and_edge_pixels_are_not_valid():
    _, valid = scene_flow(scene("right"), 0, 32, SIZE[::-1])
    flow, _ = scene_flow(scene("right"), 0, 32, SIZE[::-1])
    moves = flow[..., 0] > 1
    assert not valid[36, 48 + 18 + 5] and not moves[36, 48 + 18 + 5]  # background that the object covers later
    edge = moves & ~cv2.erode(moves.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert edge.any() and not valid[edge].any()
    assert valid[5, 5] and valid[36, 48]


@pytest.mark.parametrize("kind", SCENES)
def test_warping_a_later_frame_by_the_exact_flow_gives_the_earlier_frame(kind):
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(96, dtype=np.float32), np.arange(72, dtype=np.float32))
    for program in SCENES[kind].programs:
        drawn = draw_scene(rng, program, 32, SIZE, kind=SCENES[kind])
        i, j = 10, 18  # before and after the change of phase
        frames = {t: render(drawn, t, t + 1)[0].astype(np.float32) for t in (i, j)}
        flow, valid = scene_flow(drawn, i, j, SIZE[::-1])
        back = cv2.remap(frames[j], x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
        error, still = np.abs(back - frames[i]).mean(-1), np.abs(frames[j] - frames[i]).mean(-1)
        assert valid.mean() > (0.7 if kind == "programs" else 0.4)  # a large object hides more
        assert error[valid].mean() < (1.5 if kind == "programs" else 2.5), program  # grey levels of 255
        assert error[valid].mean() < 0.5 * still[valid].mean(), program


def test_no_object_leaves_the_frame():
    rng = np.random.default_rng(1)
    for k in range(600):
        drawn = draw_scene(rng, PROGRAMS[k % 12], 32, SIZE)
        for frame in (0, 13, 16, 19, 31):
            pose = drawn.pose(frame)
            assert pose.radius - 0.5 < pose.x < 96 - pose.radius + 0.5
            assert pose.radius - 0.5 < pose.y < 72 - pose.radius + 0.5


def test_only_the_motion_depends_on_the_program():
    one, two = (draw_scene(np.random.default_rng(5), program, 32, SIZE) for program in (("up", "down"), ("shrink",)))
    assert one.pose(0) == two.pose(0)
    assert (render(one, 0, 1) == render(two, 0, 1)).all()
    assert (render(one, 12, 13) != render(two, 12, 13)).any()


def test_a_pair_of_programs_differs_in_order_only():
    up_down, down_up = scene("up", "down"), scene("down", "up")
    assert up_down.pose(0) == down_up.pose(0) and up_down.pose(16).y == 18 and down_up.pose(16).y == 54
    assert up_down.pose(32).y == pytest.approx(36) and down_up.pose(32).y == pytest.approx(36)


def test_scenes_of_order_have_every_class_in_another_order_and_a_camera_at_rest():
    assert {tuple(reversed(order)) for order in ORDERS} == set(ORDERS)
    drawn = draw_scene(np.random.default_rng(3), ("right", "down"), 32, (64, 64), kind=SCENES["order"])
    first, middle, last = (drawn.pose(frame) for frame in (0, 12, 31))
    assert middle.x > first.x + 8 and middle.y == first.y and last.y > middle.y + 8
    assert {drawn.pose(frame).camera for frame in range(32)} == {(0, 0)}


@pytest.mark.parametrize("kind, chance", [("programs", 1 / 12), ("order", 1 / 8)])
def test_first_frames_do_not_reveal_the_class(kind, chance):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    programs = SCENES[kind].programs
    labels = rng.permutation(np.arange(240) % len(programs))
    scenes = [draw_scene(rng, programs[label], 32, SIZE, kind=SCENES[kind]) for label in labels]
    first = np.stack([cv2.resize(render(s, 0, 1)[0], (24, 18), interpolation=cv2.INTER_AREA).ravel() / 255 for s in scenes])
    known = LogisticRegression(C=0.1, max_iter=500).fit(first[:160], labels[:160])
    assert known.score(first[:160], labels[:160]) > 0.9  # it memorizes the training set
    assert known.score(first[160:], labels[160:]) < chance + 0.12


def test_invalid_arguments_give_one_sentence():
    with pytest.raises(ValueError, match="frame 33: the clip has frames 0 to 32"):
        scene_flow(scene("up"), 0, 33, (72, 96))
    with pytest.raises(ValueError, match="one or two of still, right"):
        draw_scene(np.random.default_rng(0), ("sideways",), 32, SIZE)
    assert set(PHASES) >= {phase for program in PROGRAMS for phase in program}
