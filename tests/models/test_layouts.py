"""Checkpoints as other people save them give the features of their network, or are refused with the first key that does not fit."""

import pytest
import torch
from torch import nn

import mscl
from mscl.models.export import export_weights, read_weights
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.networks.slowonly_r50 import SlowOnlyR50
from tests.models.test_export import features, trained

WIDTH = 4


class Conv(nn.Module):
    """MMAction2's ConvModule."""

    def __init__(self, cin, cout, kernel, stride=(1, 1, 1), relu=True):
        super().__init__()
        self.conv = nn.Conv3d(cin, cout, kernel, stride, tuple(k // 2 for k in kernel), bias=False)
        self.bn, self.relu = nn.BatchNorm3d(cout), relu

    def forward(self, x):
        x = self.bn(self.conv(x))
        return x.relu() if self.relu else x


class Block(nn.Module):
    """MMAction2's BasicBlock3d and Bottleneck3d, and their shortcut."""

    def __init__(self, cin, planes, stride, deep, temporal):
        super().__init__()
        out = planes * 4 if deep else planes
        if deep:
            self.conv1 = Conv(cin, planes, (temporal, 1, 1))
            self.conv2 = Conv(planes, planes, (1, 3, 3), stride)
            self.conv3 = Conv(planes, out, (1, 1, 1), relu=False)
        else:
            self.conv1 = Conv(cin, planes, (3, 3, 3), stride)
            self.conv2 = Conv(planes, planes, (3, 3, 3), relu=False)
        self.downsample = Conv(cin, out, (1, 1, 1), stride, relu=False) if cin != out or stride != (1, 1, 1) else None

    def forward(self, x):
        skip = x if self.downsample is None else self.downsample(x)
        x = self.conv2(self.conv1(x))
        return ((self.conv3(x) if hasattr(self, "conv3") else x) + skip).relu()


class ResNet3d(nn.Module):
    """MMAction2's network under its names: depth 18 with the strides of torchvision and no pooling, or SlowOnly of depth 50."""

    def __init__(self, deep: bool):
        super().__init__()
        self.deep, stem = deep, (1, 7, 7) if deep else (3, 7, 7)
        self.conv1 = Conv(3, WIDTH, stem, (1, 2, 2))
        cin = WIDTH
        for n, (blocks, temporal) in enumerate(zip((3, 4, 6, 3) if deep else (2, 2, 2, 2), (1, 1, 3, 3))):
            stride = (1, 1, 1) if n == 0 else (1, 2, 2) if deep else (2, 2, 2)
            made = []
            for b in range(blocks):
                made.append(Block(cin, WIDTH << n, stride if b == 0 else (1, 1, 1), deep, temporal))
                cin = (WIDTH << n) * (4 if deep else 1)
            setattr(self, f"layer{n + 1}", nn.Sequential(*made))

    def forward(self, x):
        x = self.conv1(x)
        x = nn.functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)) if self.deep else x
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3, 4))


def pyslowfast(weights: dict) -> dict:
    """The names that PySlowFast gives to the weights of MMAction2's SlowOnly: the same network."""
    found = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] == "conv1":
            found[f"s1.pathway0_stem.{parts[1]}.{parts[2]}"] = value
            continue
        stage, block, unit, kind, leaf = int(parts[0][-1]) + 1, *parts[1:]
        branch = "branch1" if unit == "downsample" else f"branch2.{ {'conv1': 'a', 'conv2': 'b', 'conv3': 'c'}[unit] }"
        found[f"s{stage}.pathway0_res{block}.{branch}{'_bn' if kind == 'bn' else ''}.{leaf}"] = value
    return found


def prefixed(weights: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in weights.items()}


ONE = torch.zeros(1)
HEAD = {"fc.weight": torch.zeros(3, 8 * WIDTH), "fc.bias": torch.zeros(3)}
# What stands in front of the backbone -> what lies beside it, from the weights under the names of the library.
WRAPPED = {
    "plain": ("", lambda w: HEAD),
    "distributed": ("module.", lambda w: prefixed(HEAD, "module.")),
    "compiled": ("_orig_mod.", lambda w: prefixed(HEAD, "_orig_mod.")),
    "both": ("module._orig_mod.", lambda w: {}),
    "Lightning": ("model.", lambda w: prefixed(HEAD, "model.") | {"classifier.weight": ONE}),
    "Lightning's encoder": ("encoder.", lambda w: {"projector.0.weight": ONE, "head.bias": ONE}),
    "MoCo": ("module.encoder_q.", lambda w: prefixed(w, "module.encoder_k.") | {
        "module.queue": ONE, "module.queue_ptr": ONE, "module.encoder_q.fc.0.weight": ONE, "module.encoder_k.fc.0.weight": ONE}),
    "CoCLR": ("encoder_q.0.", lambda w: prefixed(w, "encoder_k.0.") | {
        "encoder_q.2.weight": ONE, "encoder_q.4.bias": ONE, "encoder_k.2.weight": ONE, "queue": ONE}),
}  # fmt: skip


@pytest.mark.parametrize("nested", ["", "state_dict", "model", "model_state"])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_torchvisions_names_in_every_wrapper_give_the_same_features(wrapped, nested, tmp_path):
    net, (prefix, beside) = trained(R3D18(WIDTH)), WRAPPED[wrapped]
    weights = prefixed(net.state_dict(), prefix) | beside(net.state_dict())
    torch.save({nested: weights, "epoch": 3} if nested else weights, tmp_path / "theirs.pth")
    assert torch.equal(features(mscl.load_backbone(tmp_path / "theirs.pth")), features(net))
    assert set(read_weights(tmp_path / "theirs.pth").left_out) >= {
        k for k in beside(net.state_dict()) if "fc." not in k or "0" in k
    }


# PySlowFast's ContrastiveModel: the momentum encoder, its queue, the heads within the encoders, and the memory of its k-NN test.
CONTRASTIVE = {
    "ptr": ONE, "queue_x": ONE, "iter": ONE, "knn_mem.memory": ONE,
    "backbone.head.projection.projection.0.weight": ONE, "backbone.head.predictors.0.projection.0.weight": ONE,
}  # fmt: skip
LAYOUTS = {
    "MMAction2, R3D-18": (False, lambda w: prefixed(w, "backbone.") | {"cls_head.fc_cls.weight": ONE}, "r3d_18"),
    "MMAction2, SlowOnly": (True, lambda w: prefixed(w, "backbone.") | {"cls_head.fc_cls.bias": ONE}, "slowonly_r50"),
    "MMAction2, distributed": (True, lambda w: prefixed(w, "module.backbone.") | {"module.cls_head.fc_cls.bias": ONE}, "slowonly_r50"),
    "MMAction2, its backbone alone": (True, lambda w: w, "slowonly_r50"),
    "PySlowFast": (True, lambda w: pyslowfast(w) | {"head.projection.weight": ONE}, "slowonly_r50"),
    "PySlowFast, MoCo and BYOL": (
        True,
        lambda w: prefixed(pyslowfast(w), "backbone.") | prefixed(pyslowfast(w), "backbone_hist.") | CONTRASTIVE,
        "slowonly_r50",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_libraries_names_give_the_features_of_their_networks(layout, tmp_path):
    deep, named, backbone = LAYOUTS[layout]
    theirs = trained(ResNet3d(deep))
    torch.save({"model_state": named(theirs.state_dict())}, tmp_path / "theirs.pyth")
    ours = mscl.load_backbone(tmp_path / "theirs.pyth")
    assert torch.allclose(features(ours), features(theirs), atol=1e-5)
    assert read_weights(tmp_path / "theirs.pyth").backbone == backbone


def test_a_published_slow_r50_goes_back_to_its_library(tmp_path):
    net = trained(SlowOnlyR50(WIDTH))
    torch.save(net.state_dict(), tmp_path / "ours.pth")
    for form in ("mmaction2", "pyslowfast"):
        export_weights(tmp_path / "ours.pth", form, tmp_path / f"{form}.pth")
        assert torch.equal(features(mscl.load_backbone(tmp_path / f"{form}.pth")), features(net))


S3D = {"encoder_q.0.Conv_1a.conv1.weight": torch.zeros(64, 3, 1, 7, 7), "encoder_q.2.weight": ONE}


@pytest.mark.parametrize(("change", "says"), [
    (lambda w: w.pop("module.layer2.0.conv1.0.weight"), "module.layer2.0.conv1.0.weight is missing, which r3d_18 of width 4 needs"),
    (lambda w: w.update({"module.layer5.0.weight": ONE}), "module.layer5.0.weight has no place in r3d_18"),
    (lambda w: w.update({"optimiser.step": ONE}), "optimiser.step has no place"),
    (lambda w: w.update({"module.layer4.1.conv2.0.weight": ONE}), r"module.layer4.1.conv2.0.weight is \(1,\) where"),
    (lambda w: w.update(prefixed(R3D18(WIDTH).state_dict(), "model.")), "several networks in it, under 'model.' and 'module.'"),
    (lambda w: (w.clear(), w.update(S3D)), r"its first key is encoder_q.0.Conv_1a.conv1.weight\)"),
])  # fmt: skip
def test_what_does_not_fit_whole_is_refused_with_its_key_and_file(change, says, tmp_path):
    weights = prefixed(R3D18(WIDTH).state_dict(), "module.")
    change(weights)
    torch.save(weights, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=f"^{tmp_path}/theirs.pth: .*{says}"):
        read_weights(tmp_path / "theirs.pth")


def test_a_network_that_was_asked_for_is_not_replaced_by_one_that_fits(tmp_path):
    torch.save(R3D18(WIDTH).state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="no slow_r50 under the names"):
        read_weights(tmp_path / "theirs.pth", "slow_r50", WIDTH)
    with pytest.raises(ValueError, match=r"stem.0.weight is \(4, 3, 3, 7, 7\) where r3d_18 of width 8"):
        read_weights(tmp_path / "theirs.pth", "r3d_18", 8)


def test_a_backbone_of_ones_own_is_read_under_its_own_names(tmp_path):
    net = trained(R3D18(WIDTH))
    torch.save(prefixed(net.state_dict(), "module."), tmp_path / "own.pth")
    found = read_weights(tmp_path / "own.pth", "mscl.models.networks.r3d_18:R3D18", WIDTH)
    assert all(torch.equal(value, found.state[key]) for key, value in net.state_dict().items())
    with pytest.raises(ValueError, match=r"another network's weights: module.stem.0.weight is"):
        read_weights(tmp_path / "own.pth", "mscl.models.networks.slow_r50:SlowR50", WIDTH)
