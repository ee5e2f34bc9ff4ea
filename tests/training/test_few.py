"""The few training videos of a low-shot target: the same ones wherever they stand, balanced over the classes, nested, or refused."""

import pandas as pd
import pytest

from mscl.config.targets import Few
from mscl.training.few import draw_few

# Hashes for seed 0, draw 1: b .12, c .16, a .53, d .70 of class x; f .17, e .23 of class y.
ROWS = pd.DataFrame({"clip_id": list("abcdef"), "label": [0, 0, 0, 0, 1, 1], "class_name": list("xxxxyy")})


def drawn(rows=ROWS, seed=0, **few) -> str:
    return "".join(draw_few(rows, Few(**few), seed, "here").clip_id)


def test_the_first_videos_of_every_class_by_their_hash():
    assert [drawn(per_class=n) for n in (1, 2)] == ["bf", "bcef"]
    # the first of both classes, the second of both, and then what x has left
    assert [drawn(examples=n) for n in (2, 3, 4, 5, 6)] == ["bf", "bcf", "bcef", "abcef", "abcdef"]
    assert draw_few(ROWS, None, 0, "here") is ROWS


def test_every_seed_and_every_draw_is_one_of_its_own():
    assert (drawn(per_class=1), drawn(per_class=1, draw=2), drawn(per_class=1, seed=1)) == ("bf", "ce", "be")


def test_a_draw_depends_neither_on_the_order_nor_on_other_videos():
    mixed = ROWS.sample(frac=1, random_state=3)
    assert sorted(drawn(mixed, per_class=2)) == list("bcef") and sorted(drawn(mixed, examples=3)) == list("bcf")
    more = pd.concat([ROWS, pd.DataFrame({"clip_id": ["g", "h"], "label": 2, "class_name": "z"})], ignore_index=True)
    assert drawn(more, per_class=2) == "bcefgh"


def test_too_few_videos_are_a_sentence():
    with pytest.raises(
        ValueError, match="^here: per_class: 3, but class 'y' has 2 usable training videos; give a smaller number"
    ):
        drawn(per_class=3)
    with pytest.raises(ValueError, match="class 'y' has 2 usable training videos, and 1 more classes have too few"):
        drawn(per_class=5)
    with pytest.raises(ValueError, match="^here: examples: 7, but there are 6 usable training videos; give a smaller number"):
        drawn(examples=7)
