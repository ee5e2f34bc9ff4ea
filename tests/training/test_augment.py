"""Augmentation: hand-made pixels, one parameter at a time."""

import numpy as np
import pytest
import torch

from mscl.config.settings import Augment
from mscl.training.augment import augment_rgb, blur_matrices, colour_matrices, flip_flow, flow_from_planes, normalise
from mscl.training.draws import Draws

OFF = {"flip": 0, "jitter_p": 0, "gray_p": 0, "blur_p": 0}


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_with_everything_off_only_the_normalisation_is_left():
    clip = torch.randint(0, 256, (2, 4, 8, 8, 3), dtype=torch.uint8, generator=gen())
    out = augment_rgb(clip, torch.zeros(2, dtype=torch.bool), Augment(**OFF), Draws(0, 0, 2))
    assert torch.allclose(out, normalise(clip), atol=1e-4)


def test_flip_mirrors_only_its_clip():
    clip = torch.randint(0, 256, (2, 4, 8, 8, 3), dtype=torch.uint8, generator=gen())
    out = augment_rgb(clip, torch.tensor([True, False]), Augment(**OFF), Draws(0, 0, 2))
    assert torch.allclose(out[0], normalise(clip)[0].flip(-1), atol=1e-4)
    assert torch.allclose(out[1], normalise(clip)[1], atol=1e-4)


def test_a_flipped_field_is_mirrored_and_moves_the_other_way():
    flow = torch.zeros(2, 2, 1, 1, 2)
    flow[:, 0, 0, 0, 0], flow[:, 1, 0, 0, 0] = 1.0, 0.5  # the left pixel moves right and down
    out = flip_flow(flow, torch.tensor([True, False]))
    assert out[0, :, 0, 0].tolist() == [[0.0, -1.0], [0.0, 0.5]]
    assert torch.equal(out[1], flow[1])


def test_grey_is_the_luma_of_every_pixel():
    matrix, offset = colour_matrices(torch.full((1, 1, 3), 0.5), Augment(jitter_p=0, gray_p=1), Draws(0, 0, 1))
    red = matrix[0, 0] @ torch.tensor([1.0, 0.0, 0.0]) + offset[0, 0]
    assert red.tolist() == pytest.approx([0.299] * 3)


@pytest.mark.parametrize(("jitter", "pixel", "bounds"), [
    ((0.4, 0, 0, 0), [0.5, 0.5, 0.5], (0.3, 0.7)),  # brightness scales
    ((0, 0.4, 0, 0), [1.0, 1.0, 1.0], (0.8, 1.2)),  # contrast pivots on the clip's mean grey .5
    ((0, 0, 0.4, 0), [0.5, 0.5, 0.5], (0.5, 0.5)),  # saturation and hue leave grey alone
    ((0, 0, 0, 0.5), [0.5, 0.5, 0.5], (0.5, 0.5)),
])  # fmt: skip
def test_each_jitter_stays_within_its_range(jitter, pixel, bounds):
    matrix, offset = colour_matrices(torch.full((500, 1, 3), 0.5), Augment(jitter=jitter, jitter_p=1, gray_p=0), Draws(0, 0, 500))
    out = matrix @ torch.tensor(pixel) + offset
    assert out.min() >= bounds[0] - 1e-5 and out.max() <= bounds[1] + 1e-5
    assert (out.max() - out.min()) > 0.9 * (bounds[1] - bounds[0]) - 1e-5


def test_hue_by_a_third_of_the_circle_turns_red_into_green_or_blue():
    cfg = Augment(jitter=(0, 0, 0, 1 / 3), jitter_p=1, gray_p=0)
    matrix, _ = colour_matrices(torch.full((400, 1, 3), 0.5), cfg, Draws(0, 0, 400))
    red = matrix @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(red.sum(-1), torch.ones(400, 1), atol=1e-5)  # the grey part stays
    assert red[..., 1].max() > 0.98 and red[..., 2].max() > 0.98


def test_blur_keeps_constants_and_is_the_identity_where_off():
    kernels = blur_matrices(16, torch.tensor([2.0, 2.0]), torch.tensor([True, False]))
    assert torch.allclose(kernels.sum(2), torch.ones(2, 16))
    assert torch.equal(kernels[1], torch.eye(16))
    assert kernels[0, 8, 7].item() == pytest.approx(kernels[0, 8, 8].item() * np.exp(-1 / 8), rel=1e-4)


def test_a_clip_is_augmented_alike_however_its_batch_is_shared():
    """The whole batch in one process; its second half in another; its last clip as the last part of a step."""
    clip = torch.randint(0, 256, (4, 4, 8, 8, 3), dtype=torch.uint8, generator=gen())
    still = torch.zeros(4, dtype=torch.bool)
    whole = augment_rgb(clip, still, Augment(), Draws(7, 3, 4))
    assert not torch.allclose(whole, augment_rgb(clip, still, Augment(), Draws(7, 4, 4)), atol=0.1)
    for rows, part in ((slice(0, 4), 0), (slice(2, 4), 0), (slice(3, 4), 3)):
        mine = augment_rgb(clip[rows], still[rows], Augment(), Draws(7, 3, 4, rows, part))
        assert torch.allclose(mine, whole[rows], atol=1e-6)


def test_stored_planes_become_flow_of_radius_at_most_one():
    planes = torch.full((1, 1, 1, 2, 2), 128, dtype=torch.uint8)
    planes[0, 0, 0, 0] = torch.tensor([255, 1])  # u = +scale, v = -scale: the field's largest vector
    factor = torch.tensor([[1 / np.sqrt(2)]], dtype=torch.float32)  # scale / radius
    flow = flow_from_planes(planes, factor)
    assert flow.shape == (1, 2, 1, 1, 2)
    assert flow[0, :, 0, 0, 0].tolist() == pytest.approx([2**-0.5, -(2**-0.5)])
    assert flow[0, :, 0, 0, 1].tolist() == [0.0, 0.0]


def test_colours_per_frame_or_per_clip():
    """As released, the decision to jitter is the clip's and the factors are each frame's; by default the frames share them."""
    clip = torch.randint(0, 256, (8, 1, 6, 6, 3), dtype=torch.uint8, generator=gen()).expand(
        -1, 4, -1, -1, -1
    )  # four like frames
    settings = OFF | {"jitter": (0.4, 0.4, 0.4, 0.1), "jitter_p": 0.5}
    no = torch.zeros(8, dtype=torch.bool)
    by_clip, by_frame = (augment_rgb(clip, no, Augment(**settings, colours=c), Draws(0, 0, 8)) for c in ("clip", "frame"))
    spread = {name: x.std(2).amax((1, 2, 3)) for name, x in (("clip", by_clip), ("frame", by_frame))}  # over the frames of a clip
    assert spread["clip"].max() < 1e-5
    untouched = [torch.allclose(x, y, atol=1e-4) for x, y in zip(by_frame, normalise(clip))]
    assert 0 < sum(untouched) < 8  # some clips are left alone, all their frames
    assert [bool(s < 1e-5) for s in spread["frame"]] == untouched


def test_brightness_of_each_frame_by_hand():
    """Brightness alone: every pixel of a frame is multiplied by the frame's own factor."""
    draws = Draws(3, 0, 1)
    factors = draws.uniform(0.6, 1.4, 2)[0]
    clip = torch.full((1, 2, 2, 2, 3), 100, dtype=torch.uint8)
    settings = Augment(flip=0, jitter=(0.4, 0, 0, 0), jitter_p=1, gray_p=0, blur_p=0, colours="frame")
    out = augment_rgb(clip, torch.tensor([False]), settings, Draws(3, 0, 1))
    expected = normalise(torch.zeros(1, 2, 2, 2, 3, dtype=torch.uint8))  # of black, to which the light of each frame is added
    light = out[0, 0, :, 0, 0] - expected[0, 0, :, 0, 0]
    assert (light * 0.229).tolist() == pytest.approx((factors * 100 / 255).tolist(), abs=1e-5)
