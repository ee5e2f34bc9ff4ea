"""Shapes of method.md §3, and names that torchvision understands."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mscl.machine.torchvision import torchvision
from mscl.models.networks.blocks import Bottleneck, SpatialMaxPool
from mscl.models.networks.build import build_backbone, load_backbone_weights
from mscl.models.networks.flow_resnet import FlowResNet
from mscl.models.networks.neck import Neck, copied, weighted
from mscl.models.networks.r2plus1d_18 import R2Plus1D18
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.networks.slow_r50 import SlowR50


def test_r3d_18_weights_load_straight_into_torchvision_and_give_the_same_features():
    ours = R3D18().eval()
    theirs = torchvision.models.video.r3d_18(weights=None).eval()
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"] and not missing.unexpected_keys
    theirs.fc = torch.nn.Identity()
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "times", "dims", "size"), [(R3D18, (4, 2, 1), (16, 32, 64), 32), (SlowR50, (4, 4, 4), (64, 128, 256), 64)]
)
def test_stage_lengths_and_widths_for_eight_frames(backbone, times, dims, size):
    maps = backbone(width=8).eval().maps(torch.randn(1, 3, 8, size, size))
    assert tuple(m.shape[2] for m in maps) == times
    assert tuple(m.shape[1] for m in maps) == dims


@pytest.mark.parametrize(("blocks", "width", "out"), [("basic", 16, 128), ("bottleneck", 8, 256)])
def test_flow_network_never_mixes_times(blocks, width, out):
    net = FlowResNet(blocks, width).eval()
    flow = torch.rand(1, 3, 4, 64, 64)
    with torch.no_grad():
        before = net.maps(flow)[-1]
        flow[:, :, 2] = 0
        after = net.maps(flow)[-1]
    assert before.shape[1:3] == (out, 4) and net.feature_dim == out
    changed = (before - after).abs().amax((0, 1, 3, 4)) > 0
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize(("backbone", "stride"), [(R3D18, (2, 2, 2)), (SlowR50, (1, 2, 2))])
def test_neck_gives_layer2s_resolution(backbone, stride):
    net = backbone(width=8)
    maps = net.maps(torch.randn(2, 3, 8, 64, 64))
    level = Neck(net.map_dims, 32, 2, stride)(maps)
    assert level.shape == (2, 32, *maps[0].shape[2:]) and level.shape[2] == 4


def test_foreign_weights_are_refused_by_name(tmp_path):
    from safetensors.torch import save_file

    save_file(R3D18(width=4).state_dict(), tmp_path / "thin.safetensors")
    with pytest.raises(ValueError, match="thin.safetensors: not the weights of this backbone"):
        load_backbone_weights(build_backbone(SimpleNamespace(backbone="r3d_18", width=8)), tmp_path / "thin.safetensors")


def test_initialisation_of_r50_and_neck():
    """Every bottleneck starts as the identity; R18 has torchvision's gammas; the neck is Xavier-uniform with zero biases."""
    net, flow, r18 = SlowR50(width=8), FlowResNet("bottleneck", 8), R3D18(width=8)
    last = [m.bn3.weight for part in (net, flow) for m in part.modules() if isinstance(m, Bottleneck)]
    assert len(last) == 2 * (3 + 4 + 6 + 3) and not any(gamma.any() for gamma in last)
    others = [m.weight for name, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm3d) and not name.endswith("bn3")]
    assert all((gamma == 1).all() for gamma in others)
    assert all((m.weight == 1).all() for m in r18.modules() if isinstance(m, torch.nn.BatchNorm3d))
    neck = Neck((16, 32, 64), 32, 2, (2, 2, 2))
    for conv in (m for m in neck.modules() if isinstance(m, torch.nn.Conv3d)):
        fan = conv.weight[0].numel() + conv.weight[:, 0].numel()  # inputs and outputs of a position
        bound = (6 / fan) ** 0.5
        assert conv.weight.abs().max() <= bound and conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not conv.bias.any()


def test_r2plus1d_18_is_torchvisions():
    """Width 64 loads straight into torchvision's network and computes the same."""
    torch.manual_seed(0)
    ours, theirs = R2Plus1D18().eval(), torchvision.models.video.r2plus1d_18(weights=None).eval()
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"] and not missing.unexpected_keys
    theirs.fc = torch.nn.Identity()
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert tuple(m.shape[2] for m in R2Plus1D18(width=8).maps(x)) == (4, 2, 1)


@pytest.mark.parametrize(
    "old, new", [((1, 4, 5), (2, 8, 10)), ((2, 3, 3), (4, 6, 6)), ((2, 3, 4), (2, 5, 7)), ((4, 7, 7), (4, 7, 7))]
)
def test_enlarging_a_map_as_on_a_gpu_gives_what_torch_gives(old: tuple, new: tuple):
    """Values and gradients, also for sizes that are no whole multiple, as odd crops have them."""
    x, weight = torch.randn(2, 3, *old), torch.randn(2, 3, *new)
    for ours, theirs in ((copied, {"mode": "nearest"}), (weighted, {"mode": "trilinear", "align_corners": False})):
        found = []
        for grow in (ours, lambda y, size, how=theirs: F.interpolate(y, size=size, **how)):
            leaf = x.clone().requires_grad_()
            y = grow(leaf, new)
            (y * weight).sum().backward()
            found.append((y.detach(), leaf.grad))
        (y, gradient), (expected, expected_gradient) = found
        assert torch.allclose(y, expected, atol=1e-6) and torch.allclose(gradient, expected_gradient, atol=1e-5)


def test_pooling_picture_by_picture_is_pooling_in_space():
    x = torch.randn(2, 3, 4, 9, 8)
    assert torch.equal(SpatialMaxPool()(x), F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)))
