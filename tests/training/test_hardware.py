"""What a run tells while it goes, and the ways of running the same arithmetic."""

import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mscl.config.settings import Kernels
from mscl.models.networks.blocks import GroupedBatchNorm3d
from mscl.models.networks.r3d_18 import R3D18
from mscl.stages import build
from mscl.training import engine
from mscl.training.engine import Machine
from mscl.training.hardware import place
from mscl.training.pretrain import pretrain
from mscl.watch import curves as watching
from mscl.watch.flops import mfu


def job_of(prepared, method="mscl", **kernels):
    return build.pretrain_job(prepared, "r18", method, 0).model_copy(update={"kernels": Kernels(**kernels)})


def drawn(folder) -> dict[str, list[tuple[int, float]]]:
    """Curve -> (step, value) of every point."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_stopped_and_resumed_run_draws_each_step_once(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "POINT_SECONDS", 0.0)
    machine, step = Machine(curves=tmp_path / "curves"), engine.Run._step

    def stops(run, *arguments):
        if run.at.step == 2:
            run.save()
        if run.at.step == 4:
            raise KeyboardInterrupt
        return step(run, *arguments)

    monkeypatch.setattr(engine.Run, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        pretrain(job_of(prepared), tmp_path / "run", machine)
    monkeypatch.setattr(engine.Run, "_step", step)
    pretrain(job_of(prepared), tmp_path / "run", machine)
    curves, history = drawn(tmp_path / "curves"), pd.read_csv(tmp_path / "run/history.csv")
    assert [at for at, _ in curves["step/loss"]] == list(range(1, 7))
    assert [value for _, value in curves["epoch/loss"]] == pytest.approx(list(history.loss), rel=1e-6)
    assert sum(v for _, v in curves["step/acc_rgb"][:3]) / 3 == pytest.approx(history.acc_rgb[0], abs=1e-6)
    assert all(value > 0 for _, value in curves["speed/clips_per_second"]) and "speed/mfu" not in curves
    assert not {"clips_per_second", "data_wait", "memory_gb"} & set(history)  # which would differ from run to run


@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_compiled_backbones_and_another_memory_format_compute_the_same(prepared, tmp_path):
    """Up to rounding, which six steps of training enlarge; names of weights are those of any other run."""
    ways = {"usual": {}, "contiguous": {"channels_last": False}, "compiled": {"compile": True}}
    for name, kernels in ways.items():
        pretrain(job_of(prepared, "moco", **kernels), tmp_path / name)
    usual, *others = (pd.read_csv(tmp_path / name / "history.csv") for name in ways)
    for other in others:
        assert other.loss.to_numpy() == pytest.approx(usual.loss.to_numpy(), rel=1e-2)
    names = [set(load_file(tmp_path / name / "weights.safetensors")) for name in ways]
    assert names[0] == names[1] == names[2]


@pytest.mark.parametrize("device, asked, together", [
    ("cpu", "auto", True), ("cpu", "one_by_one", False), ("meta", "auto", False), ("meta", "together", True),
])  # fmt: skip
def test_batch_norm_groups_go_together_where_that_is_measured(device, asked, together):
    """On a CPU; on any other device (`meta` stands for a GPU) only where somebody asks for it."""
    model = place(R3D18(4), torch.device(device), Kernels(groups=asked))
    assert {norm.together for norm in model.modules() if isinstance(norm, GroupedBatchNorm3d)} == {together}


def test_mfu_is_the_share_of_the_published_rate(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    share = mfu(86e9, torch.device("cuda", 0))
    assert share(2300) == pytest.approx(2300 * 86e9 / 989e12)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 PCIe")
    assert mfu(86e9, torch.device("cuda", 0))(2300) == pytest.approx(2300 * 86e9 / 756e12)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GeForce 256")
    assert mfu(86e9, torch.device("cuda", 0)) is None and mfu(86e9, torch.device("cpu")) is None
