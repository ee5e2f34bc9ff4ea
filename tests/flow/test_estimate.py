import hashlib

import cv2
import numpy as np
import pytest
import torch

from mscl.config.settings import FlowConfig
from mscl.flow.estimate import make_estimator
from mscl.flow.grid import stored_size, to_grid
from mscl.machine.torchvision import torchvision


def shifted(dx, dy, h=96, w=128, seed=0):
    """Two THWC frames of one texture, the second moved by (dx, dy) pixels."""
    rng = np.random.default_rng(seed)
    big = cv2.GaussianBlur(rng.integers(0, 256, (h + 40, w + 40, 3), np.uint8), (0, 0), 2)
    big = cv2.normalize(big, None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([big[20 : 20 + h, 20 : 20 + w], big[20 - dy : 20 - dy + h, 20 - dx : 20 - dx + w]])


@pytest.mark.parametrize(("dx", "dy"), [(4, 0), (-3, 5), (0, -6)])
def test_dis_finds_a_known_shift(dx, dy):
    flow = FlowConfig(method="dis", size=(192, 256))  # computed at twice, stored at half the frame
    field = make_estimator(flow, "cpu")(shifted(dx, dy), [(0, 1)])[0]
    assert field.shape == (192, 256, 2) and field.dtype == np.float32
    stored = to_grid(field, (48, 64))
    assert np.median(stored[8:-8, 8:-8].reshape(-1, 2), axis=0) == pytest.approx((dx / 2, dy / 2), abs=0.1)


def test_dis_directions_and_order_of_pairs():
    frames = shifted(4, 0)
    forth, back = make_estimator(FlowConfig(method="dis", size=(96, 128)), "auto")(frames, [(0, 1), (1, 0)])
    assert np.median(forth[..., 0]) == pytest.approx(4, abs=0.2) and np.median(back[..., 0]) == pytest.approx(-4, abs=0.2)


def test_stored_size_never_enlarges():
    assert stored_size((256, 340), 128) == (128, 170)
    assert stored_size((340, 256), 128) == (170, 128)
    assert stored_size((72, 96), 128) == (72, 96)
    assert stored_size((1, 1), 128) == (1, 1)


def test_vectors_are_rescaled_to_the_new_grid():
    field = np.ones((20, 40, 2), np.float32) * (8, 6)
    assert to_grid(field, (10, 10))[3, 3].tolist() == [2, 3]


@pytest.fixture(scope="module")
def raft_state():
    torch.manual_seed(0)
    return torchvision.models.optical_flow.raft_large(weights=None).state_dict()


def test_raft_loads_and_runs(tmp_path, raft_state):
    from safetensors.torch import save_file

    save_file(raft_state, tmp_path / "raft.safetensors")
    torch.save(raft_state, tmp_path / "raft.pth")
    sha = hashlib.sha256((tmp_path / "raft.pth").read_bytes()).hexdigest()
    frames = shifted(3, 1)
    base = FlowConfig(method="raft", weights="raft.pth", size=(128, 128), short_side=48, iterations=2, batch=2)
    one = make_estimator(base.model_copy(update={"weights": tmp_path / "raft.pth", "sha256": sha.upper()}), "cpu")
    fields = one(frames, [(0, 1), (1, 0), (0, 0)])  # one batch of two, one of one
    assert [f.shape for f in fields] == [(128, 128, 2)] * 3 and all(np.isfinite(f).all() for f in fields)
    two = make_estimator(base.model_copy(update={"weights": tmp_path / "raft.safetensors"}), "cpu")
    assert np.allclose(two(frames, [(0, 1)])[0], fields[0], atol=1e-4)


def test_raft_small_loads_its_own_weights_and_runs(tmp_path, raft_state):
    torch.manual_seed(0)
    torch.save(torchvision.models.optical_flow.raft_small(weights=None).state_dict(), tmp_path / "small.pth")
    torch.save(raft_state, tmp_path / "large.pth")
    flow = FlowConfig(method="raft-small", weights=tmp_path / "small.pth", size=(128, 128), iterations=2, precision="bfloat16")
    fields = make_estimator(flow, "cpu")(shifted(3, 1), [(0, 1), (1, 0)])
    assert [f.shape for f in fields] == [(128, 128, 2)] * 2 and all(np.isfinite(f).all() for f in fields)
    with pytest.raises(ValueError, match="large.pth: not a state dict of torchvision's raft_small"):
        make_estimator(flow.model_copy(update={"weights": tmp_path / "large.pth"}), "cpu")
    with pytest.raises(ValueError, match=r"Raft_Small_Weights.C_T_V2\) at https://.*raft_small_C_T_V2-01064c6d.pth"):
        make_estimator(flow.model_copy(update={"weights": tmp_path / "none.pth"}), "cpu")
    with pytest.raises(ValueError, match="torchvision's raft_small weights"):
        FlowConfig(method="raft-small")


def test_bfloat16_is_taken_only_where_it_agrees_with_float32(tmp_path, raft_state, monkeypatch, capsys):
    torch.save(raft_state, tmp_path / "raft.pth")
    flow = FlowConfig(method="raft", weights=tmp_path / "raft.pth", size=(128, 128), short_side=48, iterations=2)
    frames, pairs = shifted(3, 1), [(0, 1), (1, 0)]
    full = np.stack(make_estimator(flow, "cpu")(frames, pairs))
    half = flow.model_copy(update={"precision": "bfloat16"})
    monkeypatch.setattr("mscl.flow.raft.AGREE", 100.0)
    taken = np.stack(make_estimator(half, "cpu")(frames, pairs))
    assert taken.dtype == np.float32 and 0 < np.abs(taken - full).mean() < 0.05 * np.abs(full).mean()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("mscl.flow.raft.AGREE", 0.0)
    refused = np.stack(make_estimator(half, "cpu")(frames, pairs))
    assert np.array_equal(refused, full) and "px off float32 here; float32 is used" in capsys.readouterr().err


def test_raft_weights_are_checked(tmp_path):
    def sentence(**change):
        with pytest.raises(ValueError) as error:
            make_estimator(FlowConfig(**({"method": "raft", "weights": tmp_path / "none.pth"} | change)), "cpu")
        return str(error.value)

    missing = sentence()
    assert "C_T_V1" in missing and "flow.sha256" in missing and "https://" in missing
    assert "RAFT needs a local file" in sentence(weights=None)
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"not weights")
    assert "has sha256 " in sentence(weights=junk, sha256="0" * 64)
    assert "not a state dict" in sentence(weights=junk)
    assert "multiples of 8" in sentence(weights=junk, size=(100, 128))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_gpu_is_named():
    with pytest.raises(ValueError, match="no GPU"):
        make_estimator(FlowConfig(method="raft", weights="x"), "cuda")
