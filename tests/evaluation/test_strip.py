import numpy as np
import pandas as pd

from mscl.evaluation.strip import choose_pair, draw_strip, flow_pictures
from mscl.flow.colour import colour_field


def moving(step: int) -> np.ndarray:
    """Eight frames of 40 x 40: a textured square that moves by `step` pixels a frame to the right, and stands in the last two."""
    texture = np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    frames = np.full((8, 40, 40, 3), 120, np.uint8)
    for t in range(8):
        x = 12 + step * min(t, 6)
        frames[t, 14:26, x : x + 12] = texture
    return frames


def test_flow_has_the_colour_of_its_direction_and_one_scale():
    pictures = flow_pictures(moving(2))
    assert pictures.shape == (8, 128, 128, 3) and pictures.min() >= 0 and pictures.max() <= 1
    right = colour_field(np.stack([np.ones((2, 2)), np.zeros((2, 2))], -1))[0, 0] / 255
    inside = pictures[2][48:80, 56:80].reshape(-1, 3).mean(0)  # the square in frame 2
    assert np.abs(inside - right).max() < 0.35 and inside[0] > inside[1] + 0.4  # red: to the right
    assert (pictures[7] == 1).all() and pictures[6].min() > 0.9  # no next frame; no motion


def table(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["a", "b", "left_confused", "right_confused"])


def test_two_classes_that_differ_in_the_order_of_words_are_preferred():
    names = ["Lifting it", "Moving right then left", "Moving left then right", "Dropping it"]
    rows = [(names[0], names[3], 9, 2), (names[1], names[2], 3, 1)]
    assert choose_pair(table(rows), names)[:2] == (names[1], names[2])
    first = choose_pair(table(rows[:1]), names)
    assert first == (names[1], names[2], "not confused, but the names have the same words in another order")
    turns = ["Turning left now", "Turning right now", "Falling"]
    mixed = [(turns[0], turns[2], 5, 0), (turns[0], turns[1], 1, 0)]
    assert choose_pair(table(mixed), turns) == (*turns[:2], "a confused pair, the names differ in one word")
    assert choose_pair(table([("Falling", "Lifting", 1, 0)]), ["Falling", "Lifting"])[2] == "the first of the confused pairs"
    assert choose_pair(table([("Falling", "Going up", 0, 0)]), ["Falling", "Going up"])[2].startswith(
        "no pair is confused; these"
    )
    assert choose_pair(table([]), names[:1]) is None


def test_the_strip_is_drawn_and_repeatable(tmp_path):
    clips = [("A very long name of a class that has to be wrapped and cut " * 2, moving(2)), ("Other", moving(1)[::-1])]
    for name in ("a.png", "b.png"):
        draw_strip(clips, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size > 10_000
