"""Weights for others and from others: the same features under every name, and never half of a network."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import mscl
from mscl.machine.torchvision import torchvision
from mscl.models.export import export_weights
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.networks.slow_r50 import SlowR50
from mscl.training.checkpoint import save_checkpoint, save_weights
from tests.conftest import ROOT

# Real names and shapes: the state dicts of MMAction2 1.2's ResNet3dSlowOnly(depth=50), in a recognizer, and of PySlowFast's
# ResNet with MODEL.ARCH slow and RESNET.DEPTH 50. Each has 53 convolutions and 53 batch norms of 5 tensors: 318 keys.
PUBLISHED = {
    "mmaction2": {
        "backbone.conv1.bn.running_mean": (64,),
        "backbone.layer1.0.conv1.conv.weight": (64, 64, 1, 1, 1),
        "backbone.layer1.0.downsample.conv.weight": (256, 64, 1, 1, 1),
        "backbone.layer2.0.downsample.bn.running_var": (512,),
        "backbone.layer3.5.conv1.conv.weight": (256, 1024, 3, 1, 1),
        "backbone.layer4.2.conv3.bn.weight": (2048,),
    },
    "pyslowfast": {
        "s1.pathway0_stem.bn.running_mean": (64,),
        "s2.pathway0_res0.branch2.a.weight": (64, 64, 1, 1, 1),
        "s2.pathway0_res0.branch1.weight": (256, 64, 1, 1, 1),
        "s3.pathway0_res0.branch1_bn.running_var": (512,),
        "s4.pathway0_res5.branch2.a.weight": (256, 1024, 3, 1, 1),
        "s5.pathway0_res2.branch2.c_bn.weight": (2048,),
    },
}
STEM = {"mmaction2": "backbone.conv1.conv.weight", "pyslowfast": "s1.pathway0_stem.conv.weight"}
NESTED = {"mmaction2": "state_dict", "pyslowfast": "model_state"}
CLIP = torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(3))


def trained(net: torch.nn.Module) -> torch.nn.Module:
    """As after a training: every batch norm has statistics and a scale of its own."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    return net.eval()


def features(net: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return net(CLIP)


def pretrained(path, net, backbone: str, width: int):
    head = {"head.0.weight": torch.zeros(2, 2), "head.0.bias": torch.zeros(2)}
    save_weights(path, net.state_dict() | head, {"method": "mscl", "backbone": backbone, "width": str(width)})
    return path


def test_own_files_load_ready_to_use_without_being_told_width_or_backbone(tmp_path):
    thin, r50 = trained(R3D18(8)), trained(SlowR50(4))
    pretrained(tmp_path / "pretrained.safetensors", thin, "r3d_18", 8)
    fc = {"fc.weight": torch.zeros(5, 128), "fc.bias": torch.zeros(5)}
    save_weights(tmp_path / "finetuned.safetensors", r50.state_dict() | fc, {"method": "mscl", "classes": "5"})
    before = torch.random.get_rng_state()
    for name, net in (("pretrained", thin), ("finetuned", r50)):
        loaded = mscl.load_backbone(tmp_path / f"{name}.safetensors")
        assert not loaded.training and torch.equal(features(loaded), features(net)) and loaded.feature_dim == net.feature_dim
        assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)  # loading draws nothing


def test_a_finetuned_r3d_18_runs_in_plain_torchvision_classifier_included(tmp_path):
    net, fc = trained(R3D18()), torch.nn.Linear(512, 5)
    weights = net.state_dict() | {"fc.weight": fc.weight, "fc.bias": fc.bias}
    save_weights(tmp_path / "weights.safetensors", weights, {"classes": "5"})
    said = export_weights(tmp_path / "weights.safetensors", "torchvision", tmp_path / "tv.pth")
    assert "classifier of 5 classes" in said and "r3d_18(weights=None, num_classes=5)" in said
    theirs = torchvision.models.video.r3d_18(weights=None, num_classes=5).eval()
    theirs.load_state_dict(torch.load(tmp_path / "tv.pth", weights_only=True))  # strict
    with torch.inference_mode():
        assert torch.allclose(theirs(CLIP), fc(net(CLIP)), atol=1e-5)


def test_torchvisions_own_state_dict_gives_torchvisions_features(tmp_path):
    theirs = trained(torchvision.models.video.r3d_18(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "r3d_18.pth")
    ours = mscl.load_backbone(tmp_path / "r3d_18.pth")
    theirs.fc = torch.nn.Identity()
    assert torch.allclose(features(ours), features(theirs), atol=1e-5)


@pytest.mark.parametrize("form", ["mmaction2", "pyslowfast"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_thin_r50_comes_back_from_other_names_bit_for_bit(tmp_path, form, suffix):
    net = trained(SlowR50(8))
    own = pretrained(tmp_path / "weights.safetensors", net, "slow_r50", 8)
    for out in (tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"):
        assert "left out: head.0.bias, head.0.weight" in export_weights(own, form, out)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert torch.equal(features(mscl.load_backbone(tmp_path / f"a{suffix}")), features(net))


@pytest.mark.parametrize("form", ["mmaction2", "pyslowfast"])
def test_exported_names_are_the_published_ones(tmp_path, form):
    own = pretrained(tmp_path / "weights.safetensors", SlowR50(), "slow_r50", 64)
    export_weights(own, form, tmp_path / "out.pth")
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(written) == [NESTED[form]]
    shapes = {k: tuple(v.shape) for k, v in written[NESTED[form]].items()}
    assert len(shapes) == 318 and PUBLISHED[form].items() <= shapes.items() and STEM[form] in shapes


@pytest.fixture
def written(tmp_path):
    """An R50 under others' names, as their trainings save it: (form, change) -> the path of a changed file."""

    def write(form: str, change):
        own = pretrained(tmp_path / "weights.safetensors", SlowR50(4), "slow_r50", 4)
        export_weights(own, form, tmp_path / "flat.safetensors")
        weights = load_file(tmp_path / "flat.safetensors")
        change(weights)
        torch.save({"epoch": 7, NESTED[form]: {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "theirs.pth")
        return tmp_path / "theirs.pth"

    return write


@pytest.mark.parametrize("form", ["mmaction2", "pyslowfast"])
def test_another_stem_is_refused_by_key_and_shape(written, form):
    path = written(form, lambda w: w.update({STEM[form]: torch.zeros(4, 3, 3, 7, 7)}))
    with pytest.raises(ValueError) as error:
        mscl.load_backbone(path)
    assert str(error.value) == (
        f"{path}: another network's weights: module.{STEM[form]} is (4, 3, 3, 7, 7) where slow_r50 of width 4 has (4, 3, 5, 7, 7); "
        "nothing is loaded"
    )


@pytest.mark.parametrize(("form", "change", "says"), [
    ("pyslowfast", lambda w: w.update({"s1.pathway1_stem.bn.bias": torch.zeros(1)}), "s1.pathway1_stem.bn.bias has no place"),
    ("pyslowfast", lambda w: w.pop("s5.pathway0_res2.branch2.c.weight"), "s5.pathway0_res2.branch2.c.weight is missing"),
    ("mmaction2", lambda w: w.update({"backbone.layer3.6.conv1.bn.bias": torch.zeros(1)}), "layer3.6.conv1.bn.bias has no place"),
])  # fmt: skip
def test_half_of_a_network_is_never_loaded(written, form, change, says):
    with pytest.raises(ValueError, match=says):
        mscl.load_backbone(written(form, change))


def test_others_heads_are_ignored_and_counters_that_old_files_lack_are_not_missed(written):
    def change(weights):
        weights.update({"cls_head.fc_cls.weight": torch.zeros(400, 128), "cls_head.fc_cls.bias": torch.zeros(400)})
        for key in [k for k in weights if k.endswith("num_batches_tracked")]:
            del weights[key]

    assert features(mscl.load_backbone(written("mmaction2", change))).shape == (1, 128)


class Runs:
    """Unpickled, it would write the file `ran`."""

    def __init__(self, ran):
        self.ran = ran

    def __reduce__(self):
        return open, (str(self.ran), "w")


def test_foreign_and_torn_files_are_one_sentence(tmp_path):
    def refused(name: str, says: str):
        with pytest.raises(ValueError) as error:
            mscl.load_backbone(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ") and says in str(error.value)
        assert "\n" not in str(error.value)

    own = pretrained(tmp_path / "own.safetensors", R3D18(4), "r3d_18", 4)
    (tmp_path / "torn.safetensors").write_bytes(own.read_bytes()[:-1000])
    torch.save(R3D18(4).state_dict(), tmp_path / "own.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "own.pth").read_bytes()[:-1000])
    (tmp_path / "page.pth").write_text("<html>404</html>")
    torch.save({"state_dict": {}, "meta": Runs(tmp_path / "ran")}, tmp_path / "objects.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.safetensors")
    torch.save(
        {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv3.weight": torch.zeros(256, 64, 1, 1)}, tmp_path / "resnet50.pth"
    )
    save_checkpoint(tmp_path / "checkpoint.pt", {"model": {}, "optimizer": {}, "at": {}}, {})
    save_weights(tmp_path / "liar.safetensors", R3D18(4).state_dict(), {"backbone": "r3d_18", "width": "8"})
    save_weights(tmp_path / "later.safetensors", R3D18(4).state_dict(), {"backbone": "r4d", "width": "4"})
    refused("nowhere.pth", "no such file")
    refused("torn.safetensors", "not a whole safetensors file")
    refused("torn.pth", "not a whole file of torch.save")
    refused("page.pth", "not a whole file of torch.save")
    refused("objects.pth", "holds Python objects beside weights")
    assert not (tmp_path / "ran").exists()
    refused("epoch.pth", "no state dict in it")
    refused("resnet.safetensors", "(its first key is conv1.weight)")
    refused("resnet50.pth", "no backbone under the names of mscl")
    refused("checkpoint.pt", "a checkpoint to resume from")
    refused("liar.safetensors", "stem.0.weight is (4, 3, 3, 7, 7) where r3d_18 of width 8 has (8, 3, 3, 7, 7)")
    refused("later.safetensors", "weights of backbone 'r4d'; mscl has r3d_18 and slow_r50")


def command(*arguments) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "mscl", "export", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_the_command_writes_or_says_in_a_sentence_why_not(tmp_path):
    r50 = pretrained(tmp_path / "r50.safetensors", SlowR50(4), "slow_r50", 4)
    done = command(r50, "--to", "mmaction2", "--out", tmp_path / "new" / "r50.pth")
    assert done.returncode == 0 and "ResNet3dSlowOnly(depth=50, pretrained=None, base_channels=4" in done.stdout
    assert mscl.load_backbone(tmp_path / "new" / "r50.pth").feature_dim == 128
    wrong = command(r50, "--to", "torchvision", "--out", tmp_path / "tv.pth")
    sentence = "torchvision has no network that computes this slow_r50; take --to mmaction2, --to pyslowfast"
    assert wrong.returncode == 1 and wrong.stderr == f"error: {r50}: {sentence}\n" and not (tmp_path / "tv.pth").exists()


@pytest.mark.parametrize(("to", "out", "says"), [
    ("torchvision", "out.pth", "width 4, and torchvision's r3d_18 has 64"),
    ("mmaction2", "out.pth", "MMAction2 has no network that computes this r3d_18; take --to torchvision"),
    ("torchvision", "out.onnx", "the suffix must be .safetensors, .pth, .pt or .pyth"),
    ("torchvision", "r18.safetensors", "would replace the weights themselves"),
    ("onnx", "out.pth", "--to onnx: not known; take one of torchvision, mmaction2, pyslowfast"),
])  # fmt: skip
def test_what_a_library_cannot_build_is_not_exported(tmp_path, to, out, says):
    own = pretrained(tmp_path / "r18.safetensors", R3D18(4), "r3d_18", 4)
    with pytest.raises(ValueError, match=says):
        export_weights(own, to, tmp_path / out)
    assert [p.name for p in tmp_path.iterdir()] == ["r18.safetensors"]


def test_importing_mscl_does_not_wait_for_torch():
    subprocess.run([sys.executable, "-c", "import sys, mscl; assert 'torch' not in sys.modules"], check=True, cwd=ROOT)


def test_r2plus1d_18_comes_from_torchvision_and_goes_back(tmp_path):
    theirs = trained(torchvision.models.video.r2plus1d_18(weights=None, num_classes=5))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    net = mscl.load_backbone(tmp_path / "theirs.pth")
    with torch.inference_mode():
        torch.testing.assert_close(theirs.fc(net(CLIP)), theirs(CLIP))
    assert "r2plus1d_18 of width 64, with its classifier of 5 classes" in export_weights(
        tmp_path / "theirs.pth", "torchvision", tmp_path / "again.pth"
    )
    again = torchvision.models.video.r2plus1d_18(weights=None, num_classes=5).eval()
    again.load_state_dict(torch.load(tmp_path / "again.pth"))
    assert torch.equal(features(again), features(theirs))
