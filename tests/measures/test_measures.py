import numpy as np
import pandas as pd
import pytest

from mscl.measures.knn import knn
from mscl.measures.logistic import STRENGTHS, held_out, logistic
from mscl.measures.probe import linear_probe
from mscl.measures.retrieval import retrieval
from mscl.measures.topk import metrics_from_predictions, top_k_accuracy


def test_retrieval_by_hand():
    # Relative to their mean (10, 10), the gallery points are east (class 0), west (1), north (0), south (1).
    gallery = np.array([[11, 10], [9, 10], [10, 11], [10, 9]], dtype=np.float32)
    # Relative to *their* mean (0, 0), the queries are east-north-east (class 1), west-south-west (0), north (0) and south (0).
    query = np.array([[2, 1], [-2, -1], [0, 1], [0, -1]], dtype=np.float32)
    # q0 (1): neighbours E0 N0 S1 W1 -> 3rd; q1 (0): W1 S1 N0 E0 -> 3rd; q2 (0): N0 -> 1st; q3 (0): S1, then E0 and W1 tie -> 3rd.
    found = retrieval(gallery, [0, 1, 0, 1], query, [1, 0, 0, 0], ks=(1, 2, 3, 10))
    assert found == {"1": 0.25, "2": 0.25, "3": 1.0, "10": 1.0}


def test_retrieval_subtracts_each_splits_own_mean():
    rng = np.random.default_rng(0)
    gallery, query = rng.normal(size=(40, 4)), rng.normal(size=(30, 4))
    labels = rng.integers(0, 4, 40), rng.integers(0, 4, 30)
    assert retrieval(gallery + 5, labels[0], query - 90, labels[1]) == pytest.approx(
        retrieval(gallery, labels[0], query, labels[1]), abs=0.04
    )


def test_a_collapsed_representation_scores_zero():
    same = np.full((6, 3), 0.1, dtype=np.float32)
    assert retrieval(same, [0, 0, 0, 1, 1, 1], same, [0, 0, 0, 1, 1, 1], ks=(1, 5))["1"] == 0.0


def test_a_class_missing_from_the_gallery_is_never_found():
    points = np.eye(3)
    assert retrieval(points, [0, 1, 2], points, [0, 1, 7], ks=(50,)) == {"50": pytest.approx(2 / 3)}


def test_retrieval_needs_labels():
    with pytest.raises(ValueError, match="3 query features but 2 labels"):
        retrieval(np.eye(3), [0, 1, 2], np.eye(3), [0, 1])


def test_probe_separates_clusters_and_is_deterministic():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    train = rng.normal(size=(60, 5)) + 4 * np.eye(5)[labels]
    test = rng.normal(size=(60, 5)) + 4 * np.eye(5)[labels]
    first = linear_probe(train, labels, test, labels)
    assert first["top1"] > 0.9 and first == linear_probe(train, labels, test, labels)


def test_probe_needs_two_classes_and_a_test_video():
    with pytest.raises(ValueError, match="fewer than 2 classes"):
        linear_probe(np.eye(2), [1, 1], np.eye(2), [1, 1])
    with pytest.raises(ValueError, match="no usable video"):
        linear_probe(np.eye(2), [0, 1], np.empty((0, 2)), [])


def predictions(rows):
    return pd.DataFrame(rows, columns=["clip_id", "label", "top"])


def test_metrics_are_recomputed_from_predictions():
    table = predictions([("a", 0, [0, 1, 2]), ("b", 1, [2, 1, 0]), ("c", 2, [0, 1, 3]), ("d", 3, []), ("e", -1, [0, 1])])
    assert metrics_from_predictions(table, 4) == {"top1": 1 / 3, "top5": 2 / 3, "videos": 3, "skipped": 2}
    assert top_k_accuracy([[3, 1], [0, 1]], [1, 1], 1) == 0


def test_metrics_without_videos_are_nan_and_a_foreign_class_is_an_error():
    empty = metrics_from_predictions(predictions([("a", 0, [])]), 4)
    assert np.isnan(empty["top1"]) and (empty["videos"], empty["skipped"]) == (0, 1)
    with pytest.raises(ValueError, match="class 7 is not one of 4"):
        metrics_from_predictions(predictions([("a", 0, [7])]), 4)


def test_knn_by_hand():
    """Three neighbours: two of class 1 at similarity .6 weigh less than one of class 0 at similarity 1, by exp(.4 / .07) to 2."""
    train = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8], [-1.0, 0.0]])
    assert knn(train, [0, 1, 1, 2], np.array([[5.0, 0.0], [-3.0, 0.0]]), [0, 2], k=3) == {"top1": 1.0}
    assert knn(train, [0, 1, 1, 2], np.array([[5.0, 0.0]]), [1], k=3) == {"top1": 0.0}
    assert knn(train[:2], [0, 1], np.array([[0.6, 0.8]]), [1]) == {"top1": 1.0}  # fewer than 20 in train


def test_logistic_regression_finds_directions_and_says_its_strength():
    """Two classes that differ along one of 20 noisy directions; the features of the second half of the test are their opposite."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = rng.normal(size=(200, 20))
    x[:, 3] += 4 * y - 2
    found = logistic(x[:120], y[:120], x[120:], y[120:])
    assert found["top1"] > 0.8 and found["predicted_classes"] == 2 and found["C"] in STRENGTHS
    assert logistic(x[:120], y[:120], -x[120:], y[120:])["top1"] < 0.2
    assert logistic(x[:120], y[:120], x[120:], y[120:]) == found  # the same videos are held out each time
    noise = logistic(rng.normal(size=(120, 20)), y[:120], rng.normal(size=(80, 20)), y[120:])
    assert noise["top1"] < 0.7


def test_logistic_regression_chooses_on_the_training_videos_only():
    labels = np.repeat([0, 1, 2], 8)
    fitted, held = held_out(labels)
    assert len(held) == 6 and set(fitted) | set(held) == set(range(24)) and not set(fitted) & set(held)
    assert np.bincount(labels[held]).tolist() == [2, 2, 2]
    rare = np.array([0] * 9 + [1])  # a class of one video cannot be shared out
    assert sum(map(len, held_out(rare))) in (10, 20)
    assert logistic(np.arange(10.0)[:, None], rare, np.array([[9.0]]), [1])["predicted_classes"] == 1


def test_the_strength_is_chosen_on_recordings_that_are_not_fitted():
    """Eight recordings of three clips for each of two classes: a quarter of the recordings of each class is held out, whole."""
    labels, groups = np.repeat([0, 1], 24), np.repeat(np.arange(16), 3)
    fitted, held = held_out(labels, groups)
    assert sorted([*fitted, *held]) == list(range(48)) and not set(groups[fitted]) & set(groups[held])
    assert np.bincount(labels[held]).tolist() == [6, 6]
    few = np.array([0] * 6 + [1] * 6)  # two recordings of a class: too few for a quarter of each class
    fitted, held = held_out(few, np.repeat([0, 1, 2, 3], 3))
    assert set(fitted) | set(held) == set(range(12)) and (len(held) == 3 or len(held) == 12)
    assert [len(part) for part in held_out(few, np.zeros(12))] == [12, 12]  # one recording cannot be divided
    alone = held_out(labels, np.arange(48))
    assert all(np.array_equal(a, b) for a, b in zip(alone, held_out(labels)))  # no recording has two clips: as without groups


def recordings(copies: int = 4):
    """40 recordings of two classes, each of `copies` nearly equal clips: of 60 features one tells the class, poorly."""
    rng = np.random.default_rng(1)
    y = np.arange(40) % 2
    x = rng.normal(size=(40, 60))
    x[:, 0] += y - 0.5
    x, y, groups = np.repeat(x, copies, 0), np.repeat(y, copies), np.repeat(np.arange(40), copies)
    return x + 0.01 * rng.normal(size=x.shape), y, groups


def test_copies_of_a_clip_do_not_deceive_the_choice_of_strength():
    """A left-out clip whose copies are fitted is recognised without any penalty; left out with its copies it needs a strong one."""
    x, y, groups = recordings()
    alone, whole = linear_probe(x, y, x[:8], y[:8]), linear_probe(x, y, x[:8], y[:8], groups)
    assert alone["alpha"] < 1 and whole["alpha"] > 30
    alone, whole = logistic(x, y, x[:8], y[:8]), logistic(x, y, x[:8], y[:8], groups)
    assert whole["C"] < alone["C"]


def test_without_recordings_of_several_clips_measures_are_as_without_groups():
    x, y, _ = recordings(copies=1)
    for function in (linear_probe, logistic):
        assert function(x, y, x[:8], y[:8], np.arange(40)) == function(x, y, x[:8], y[:8])
    one = np.zeros(40)  # one recording only: nothing else to choose by
    assert linear_probe(x, y, x[:8], y[:8], one) == linear_probe(x, y, x[:8], y[:8])
