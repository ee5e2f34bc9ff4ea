import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mscl.config.settings import MDSConfig
from mscl.flow.colour import colourwheel, unit_radius
from mscl.flow.mds import allowed_starts, attention, differences, guided, motion, of_fields, score_clip, start_scores


def test_motion_of_a_single_pixel_by_hand():
    """The 3x3 Sobel of an impulse: |dx| is 1 2 1 in the columns beside it, |dy| in the rows above and below."""
    flow = np.zeros((5, 5, 2), np.float32)
    flow[2, 2, 0] = 1
    r2, two = 2**0.5, 2.0
    assert motion(flow) == pytest.approx(
        np.array([[0, 0, 0, 0, 0], [0, r2, two, r2, 0], [0, two, 0, two, 0], [0, r2, two, r2, 0], [0, 0, 0, 0, 0]])
    )
    flow[2, 2, 1] = 1  # the same in v: the squares add
    assert motion(flow)[1, 2] == pytest.approx(two * r2)


def test_attention_by_hand():
    """A kernel of 192 px: 2 x 3 cells, which cover all rows and 9/10 of the columns; here 2 rows and 6 columns each."""
    m = np.zeros((4, 20), np.float32)
    m[:2, :6] = 8  # one cell
    m[:, 18:] = 99  # right of the last whole kernel: dropped
    a = attention(m, 192)
    # Bilinear: of two cells in 4 rows the first weighs 1, .75, .25, 0; of three in 20 columns it fades from column 3 to 9.
    columns = [1, 1, 1, 0.975, 0.825, 0.675, 0.525, 0.375, 0.225, 0.075, *[0] * 10]
    assert a == pytest.approx(np.outer([1, 0.75, 0.25, 0], columns), abs=1e-6)


def attended(m_THW: torch.Tensor) -> np.ndarray:
    return np.stack([attention(m, 28) for m in m_THW.numpy()])


def test_pooling_is_by_pixels_of_the_computed_field():
    """At 384 x 640 it is average pooling by 28 x 28 pixels with stride 28, so 13 x 22 cells and the rest dropped."""
    m = torch.from_numpy(np.random.default_rng(0).uniform(size=(2, 384, 640)).astype(np.float32))
    cells = F.avg_pool2d(m[:, None], 28, 28)
    assert cells.shape[-2:] == (13, 22)
    expected = F.interpolate(cells, size=(384, 640), mode="bilinear", align_corners=False)[:, 0]
    assert attended(m) == pytest.approx((expected / expected.amax((1, 2), keepdim=True)).numpy(), abs=1e-5)
    half = F.avg_pool2d(m[:, None], 2)[:, 0]  # the same field at half the size has the same cells
    expected = F.interpolate(cells, size=(192, 320), mode="bilinear", align_corners=False)[:, 0]
    assert attended(half) == pytest.approx((expected / expected.amax((1, 2), keepdim=True)).numpy(), abs=1e-5)


def test_attention_pools_no_finer_than_pixels_and_survives_zero():
    m = np.random.default_rng(0).uniform(size=(6, 5)).astype(np.float32)
    assert attention(m, 28) == pytest.approx(m / m.max(), abs=1e-6)  # 6 x 5 pixels hold no 13 x 22 cells
    assert not attention(0 * m, 28).any()


def test_guided_by_hand():
    """A 1 x 2 field, motion right at one pixel: m = 0 (mirrored borders) is no boundary, so use 3 x 3."""
    flow = np.zeros((3, 3, 2), np.float32)
    flow[1, 1, 0] = 5
    g = guided(flow, 28)
    a = attention(motion(flow), 28)
    white = np.ones((3, 3))
    white[1, 1] = 0  # green and blue of red; the radius is 5 / (5 + 1e-5)
    assert g[0] == pytest.approx(255 * a)
    assert g[1] == pytest.approx(255 * a * white, abs=1e-2)


def test_colours_are_those_of_the_networks_wheel_to_the_bit():
    """Of whole fields of smooth and of noisy motion, one without motion in v, one without any."""
    rng = np.random.default_rng(5)
    smooth = cv2.resize(rng.normal(0, 5, (6, 8, 2)).astype(np.float32), (128, 96), interpolation=cv2.INTER_CUBIC)
    for flow in (smooth, rng.normal(size=(96, 128, 2)).astype(np.float32), smooth * np.float32([1, 0]), 0 * smooth):
        colours = colourwheel(unit_radius(torch.from_numpy(flow)[None].permute(0, 3, 1, 2)))[0].numpy()
        assert np.array_equal(guided(flow, 28), 255 * colours * attention(motion(flow), 28))


def test_a_stride_in_kept_frames_is_fewer_fields_where_fields_are_fewer():
    """Eight terms, four kept frames apart: with a field at every second kept frame, they are two fields apart."""
    assert of_fields(MDSConfig(), 1) == MDSConfig()
    d = np.arange(32, dtype=np.float32)
    every, second = start_scores(d, MDSConfig()), start_scores(d[::2], of_fields(MDSConfig(), 2))
    assert np.array_equal(second, every[::2])


def test_differences_are_mean_distances_whatever_the_chunks():
    rng = np.random.default_rng(1)
    flow = rng.normal(size=(7, 6, 8, 2)).astype(np.float32)
    g = np.stack([guided(field, 4) for field in flow])
    expected = [np.sqrt(((g[t] - g[t + 1]) ** 2).sum(0)).mean() for t in range(6)] + [0]
    assert differences([flow], 4) == pytest.approx(expected, rel=1e-5)
    assert differences([flow[:1], flow[1:4], flow[4:]], 4) == pytest.approx(expected, rel=1e-5)
    assert len(differences([], 4)) == 0


def test_scores_by_hand():
    """Terms past the end are dropped and the sum is still divided by `fields`."""
    d = np.array([1, 2, 4, 8, 16, 0], np.float32)
    scores = start_scores(d, MDSConfig(stride=2, fields=2))
    assert scores.tolist() == [(1 + 4) / 2, (2 + 8) / 2, (4 + 16) / 2, (8 + 0) / 2, 16 / 2, 0]
    allowed, note = allowed_starts(scores)  # sorted 0 2.5 4 5 8 10: median 4.5
    assert allowed.tolist() == [False, True, True, False, True, False] and note == ""


def test_default_is_eight_terms_four_fields_apart():
    d = np.zeros(40, np.float32)
    d[[0, 4, 28, 32]] = 8
    assert start_scores(d, MDSConfig())[[0, 4, 1]].tolist() == [3.0, 3.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "word"), [(np.zeros((5, 8, 8, 2)), "does not change"), (np.ones((1, 8, 8, 2)), "only one flow field")]
)
def test_video_without_allowed_start_falls_back_to_zero(fields, word):
    scores, allowed, note = score_clip([fields.astype(np.float32)], MDSConfig())
    assert len(scores) == len(allowed) == len(fields) and not allowed.any()
    assert word in note and "start 0 is used" in note


def test_scores_peak_where_motion_changes():
    flow = np.zeros((40, 32, 32, 2), np.float32)
    flow[:, 8:16, 8:16, 0] = 4
    flow[20:, 8:16, 8:16] = (0, -4)  # turns once
    d = differences([flow], 28)
    assert d.argmax() == 19 and np.count_nonzero(d) == 1
    _, allowed, note = score_clip([flow], MDSConfig(stride=1))
    assert np.flatnonzero(allowed).tolist() == list(range(12, 20)) and note == ""
