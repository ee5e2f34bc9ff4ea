import numpy as np
import pytest
import torch

from mscl.flow.colour import colour_field, colourwheel, unit_radius, wheel


def one(u, v):
    return (colourwheel(torch.tensor([[u, v]], dtype=torch.float32))[0] * 255).tolist()


def test_wheel_has_middleburys_55_hues():
    hues = wheel()
    assert hues.shape == (55, 3)
    starts = {0: (255, 0, 0), 15: (255, 255, 0), 21: (0, 255, 0), 25: (0, 255, 255), 36: (0, 0, 255), 49: (255, 0, 255)}
    for k, colour in starts.items():
        assert tuple(hues[k]) == colour
    assert tuple(hues[1]) == (255, 17, 0)  # floor(255 * 1/15)
    assert tuple(hues[54]) == (255, 0, 43)  # 255 - floor(255 * 5/6)


# hue = (atan2(-v, -u)/pi + 1)/2 * 54: right 0, down 13.5, left 27, up 40.5 (y grows downwards)
@pytest.mark.parametrize(
    ("flow", "colour"),
    [
        ((1, 0.0), (255, 0, 0)),  # hue 0: red
        ((0.0, 1), (255, 229.5, 0)),  # halfway between (255, 221, 0) and (255, 238, 0)
        ((-1, 0.0), (0, 209, 255)),  # hue 27 = cyan-blue 2: 255 - floor(255 * 2/11)
        ((0.0, -1), (78 + 0.5 * 20, 0, 255)),  # hue 40.5: red floor(255*4/13)=78 to floor(255*5/13)=98
    ],
)
def test_known_directions(flow, colour):
    assert one(*flow) == pytest.approx(colour, abs=0.05)


def test_radius_is_saturation():
    assert one(0, 0) == pytest.approx((255, 255, 255))
    assert one(0.25, 0.0) == pytest.approx((255, 191.25, 191.25))  # 1 - 0.25 * (1 - col)
    assert one(3.0, 0.0) == pytest.approx(one(1.0, 0.0))


def test_every_direction_is_a_colour_and_shapes_follow():
    angle = torch.linspace(-4, 4, 400)
    field = torch.stack([angle.cos(), angle.sin()])[None].reshape(1, 2, 4, 10, 10)
    image = colourwheel(field)
    assert image.shape == (1, 3, 4, 10, 10) and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1
    assert torch.allclose(image[:, :, 2], colourwheel(field[:, :, 2]), atol=1e-5)  # vectorised code rounds otherwise
    assert colourwheel(field.half()).isfinite().all()
    special = torch.tensor([[0.0, -0.0, -1.0, 1.0], [-0.0, 0.0, -0.0, -0.0]])[None]
    assert colourwheel(special).isfinite().all()


def test_normalise_by_the_largest_radius_of_each_field():
    field = torch.zeros(2, 2, 3, 3)
    field[0, :, 1, 1] = torch.tensor([3.0, 4.0])
    out = unit_radius(field)
    assert out[0, :, 1, 1].tolist() == pytest.approx([0.6, 0.8], abs=1e-5)
    assert not out[1].any()


def test_picture_of_a_field():
    field = np.zeros((4, 6, 2), np.float32)
    field[1, 2] = (7, 0)
    image = colour_field(field)
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8
    assert tuple(image[1, 2]) == (255, 0, 0) and tuple(image[0, 0]) == (255, 255, 255)
