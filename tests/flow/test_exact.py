"""The exact flow as a program (benchmarks/evidence/exact.py) recognises the clip and the frames that it is asked about by their pictures."""

import csv
from collections import defaultdict

import cv2
import numpy as np
import pytest

from benchmarks.evidence.exact import answer, content, place

A, B, C = (np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30))


@pytest.fixture
def known():
    """Clip "one" stands still in its first two frames; clip "two" begins where "one" ends."""
    found = defaultdict(set)
    for clip, pictures in {"one": [A, A, B], "two": [B, C]}.items():
        for frame, picture in enumerate(pictures):
            found[content(picture)].add((clip, frame))
    return found


def test_frames_that_look_alike_are_told_apart_by_the_others(known):
    assert place(known, {0: A, 1: B}) == ("one", 1)
    assert place(known, {0: A, 1: A}) == ("one", 0)
    assert place(known, {0: B, 1: C}) == ("two", 0)
    for pictures in ({0: A}, {0: C, 1: A}):  # two frames fit, and none
        with pytest.raises(ValueError, match="clips and frames show"):
            place(known, pictures)


def test_a_line_is_answered_with_the_flow_of_that_clip_and_those_frames(known, tmp_path):
    for k, picture in enumerate([A, B]):
        cv2.imwrite(str(tmp_path / f"{k:04d}.png"), picture)
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerow([tmp_path / "0000.png", tmp_path / "0001.png", tmp_path / "field"])
    asked = []
    answer(tmp_path / "pairs.csv", known, lambda *of: asked.append(of) or np.zeros((4, 6, 2), np.float32))
    assert asked == [("one", 1, 2)] and np.load(tmp_path / "field.npz")["flow"].shape == (4, 6, 2)
