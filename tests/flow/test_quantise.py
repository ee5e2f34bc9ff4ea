import numpy as np
import pytest
import simplejpeg

from mscl.flow.quantise import decode_field, decode_planes, encode_field


def smooth(h=64, w=80, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / (h, w)[0]
    a = rng.normal(size=(2, 3)) * 10
    return np.stack([a[k, 0] + a[k, 1] * np.sin(3 * x) + a[k, 2] * np.cos(2 * y) for k in range(2)], -1).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_round_trip_stays_within_the_bound(seed):
    flow = smooth(seed=seed)
    jpeg, scale, radius = encode_field(flow, 95)
    assert scale == pytest.approx(np.abs(flow).max())
    assert radius == pytest.approx(np.linalg.norm(flow, axis=-1).max())
    back = decode_field(jpeg, scale)
    assert back.shape == flow.shape and back.dtype == np.float32
    step = scale / 127
    assert np.abs(back - flow).mean() < step
    assert np.abs(back - flow).max() < 6 * step  # half a step of rounding, the rest is the JPEG


def test_planes_are_u_above_v_around_128():
    flow = np.zeros((8, 16, 2), np.float32)
    flow[..., 0], flow[..., 1] = 2.0, -4.0
    jpeg, scale, radius = encode_field(flow, 100)
    assert (scale, radius) == (4.0, pytest.approx(20**0.5))
    assert simplejpeg.decode_jpeg_header(jpeg)[:3] == (16, 16, "Gray")
    planes = decode_planes(jpeg)
    assert planes.shape == (2, 8, 16) and planes.dtype == np.uint8
    assert np.abs(planes[0].astype(int) - 192).max() <= 1  # round(63.5) + 128 = 192
    assert np.abs(planes[1].astype(int) - 1).max() <= 1


def test_no_motion_is_exact():
    jpeg, scale, radius = encode_field(np.zeros((9, 7, 2), np.float32), 95)
    assert (scale, radius) == (1.0, 0.0)
    assert not decode_field(jpeg, scale).any()


def test_unusable_fields_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        encode_field(np.full((4, 4, 2), np.nan), 95)
    odd = simplejpeg.encode_jpeg(np.zeros((7, 8, 1), np.uint8), colorspace="GRAY")
    with pytest.raises(ValueError, match="7 rows"):
        decode_planes(odd)
