import pandas as pd
import pytest

from mscl.measures.confusion import NO_PAIRS, compare_pairs, confused_pairs, join_pairs

NAMES = ["push", "pull", "lift"]


def test_counts_both_directions_over_the_videos_of_both_classes():
    #        push push push push pull pull lift lift
    labels = [0, 0, 0, 0, 1, 1, 2, 2]
    guess = [0, 1, 1, 2, 1, 0, 2, 0]
    table = confused_pairs(labels, guess, NAMES)
    assert table.values.tolist() == [["push", "pull", 3, 6, 3 / 6], ["push", "lift", 2, 6, 2 / 6]]


def test_seeds_add_up_when_concatenated():
    one = confused_pairs([0, 1], [1, 1], NAMES)
    two = confused_pairs([0, 1, 0, 1], [1, 1, 1, 1], NAMES)
    assert (two["confused"] == 2 * one["confused"]).all() and (two["proportion"] == one["proportion"]).all()


def test_ranked_by_proportion_not_by_count():
    labels = [0] * 20 + [1] * 20 + [2] * 2
    guess = [0] * 16 + [1] * 4 + [1] * 20 + [0] * 2
    labels += [3, 3, 4, 4]
    guess += [4, 4, 4, 3]
    table = confused_pairs(labels, guess, [*NAMES, "drop", "throw"])
    assert [(r.a, r.b) for r in table.itertuples()] == [("drop", "throw"), ("push", "pull"), ("push", "lift")]
    assert table["confused"].tolist() == [3, 4, 2]


def test_wrong_input_is_reported():
    with pytest.raises(ValueError, match="2 labels but 1 predictions"):
        confused_pairs([0, 1], [0], NAMES)
    with pytest.raises(ValueError, match="outside 0..2"):
        confused_pairs([0], [3], NAMES)


def pairs(rows):
    table = pd.DataFrame(rows, columns=["a", "b", "confused", "videos"])
    return table.assign(proportion=table["confused"] / table["videos"])


def test_table2_blocks():
    left = pairs([("a", "b", 9, 10), ("a", "c", 8, 10), ("b", "c", 2, 10), ("c", "d", 1, 10)])
    right = pairs([("a", "b", 9, 10), ("a", "c", 3, 10), ("b", "c", 4, 10), ("b", "d", 1, 10)])
    table = compare_pairs(left, right, top=2)
    # The left method confuses a|b most, but the right one is not better on it: it belongs to the right block.
    assert table[["block", "rank", "a", "b", "left_confused", "right_confused"]].values.tolist() == [
        ["left", 1, "a", "c", 8, 3],
        ["left", 2, "c", "d", 1, 0],
        ["right", 1, "a", "b", 9, 9],
        ["right", 2, "b", "c", 2, 4],
    ]


def test_a_pair_one_side_never_confuses_counts_zero_over_the_same_videos():
    row = join_pairs(pairs([("a", "b", 3, 12)]), pairs([])).iloc[0]
    assert (row["right_confused"], row["right_videos"], row["right_proportion"]) == (0, 12, 0)


def test_without_pairs_the_table_is_empty_and_has_a_note():
    none = confused_pairs([0, 1], [0, 1], NAMES)
    table = compare_pairs(none, none)
    assert table.empty and table.attrs["note"] == NO_PAIRS
    assert confused_pairs([], [], NAMES).empty
