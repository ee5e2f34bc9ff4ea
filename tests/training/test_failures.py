"""What goes wrong within a training ends it in one sentence, and never reaches a file."""

import pytest
import torch
from safetensors.torch import save_file

from mscl.models.networks.build import build_backbone, load_backbone_weights
from mscl.stages import build, jobs
from mscl.training import engine, step
from mscl.training.checkpoint import CheckpointError, load_checkpoint, previous, save_checkpoint
from mscl.training.pretrain import PretrainStep, pretrain


class Spoiled(PretrainStep):
    """From step 2 on the gradient of one weight is not finite, and the loss is."""

    def __call__(self, batch, draws):
        terms = super().__call__(batch, draws)
        weight = next(p for p in self.model.parameters() if p.requires_grad)
        self.calls = getattr(self, "calls", 0) + 1
        spoil = (weight * 0).sum().sqrt() if self.calls > 2 else 0.0  # 0, with the gradient 0 * infinity
        return terms | {"loss": terms["loss"] + spoil}


@pytest.mark.parametrize("minutes", [10, 1e-9])
def test_a_gradient_that_is_not_finite_moves_and_saves_nothing(minutes, prepared, tmp_path, monkeypatch):
    job = build.pretrain_job(prepared, "r18", "moco", 0)
    monkeypatch.setattr("mscl.training.pretrain.PretrainStep", Spoiled)
    good = "the last good checkpoint is .*checkpoint.pt" if minutes < 1 else "there is no checkpoint yet"
    with pytest.raises(
        engine.TrainingError, match=rf"the gradient of step 2 is not finite .loss=\d.*gradient norm=nan.; {good}; lower"
    ):
        pretrain(job, tmp_path, engine.Machine(checkpoint_minutes=minutes))
    assert not (tmp_path / "weights.safetensors").exists()
    if minutes < 1:
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["at"]["step"] == 2
        monkeypatch.undo()
        pretrain(job, tmp_path)
        assert (tmp_path / "weights.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_with_step_and_terms(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(step.math, "isfinite", lambda _: False)
    with pytest.raises(
        engine.TrainingError, match=r"loss and the gradient of step 0 are not finite \(loss=.*loss_rgb=.*\); there is no"
    ):
        pretrain(build.pretrain_job(prepared, "r18", "moco", 0), tmp_path)


def test_weights_that_are_not_finite_are_never_saved(prepared, tmp_path, monkeypatch):
    """A running mean of batch norm may overflow while loss and gradient are finite."""

    def spoil(self):
        next(b for name, b in self.model.named_buffers() if "running_mean" in name)[0] = torch.inf

    monkeypatch.setattr(PretrainStep, "end", spoil)
    with pytest.raises(engine.TrainingError, match="model.*running_mean is not finite after step 6; there is no checkpoint yet"):
        pretrain(build.pretrain_job(prepared, "r18", "moco", 0), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {"fc.weight": torch.ones(2)}}, {})
    save_checkpoint(path, {"model": {"fc.weight": torch.tensor([1.0, torch.nan])}}, {})
    with pytest.raises(
        CheckpointError, match="checkpoint.pt: model.fc.weight holds values that are not finite; .* rename checkpoint.prev"
    ):
        load_checkpoint(path, {})
    assert load_checkpoint(previous(path), {})["model"]["fc.weight"].sum() == 2


def test_weights_that_are_damaged_or_not_finite_are_refused_by_name(tmp_path):
    net, path = jobs.RGBNet(backbone="r3d_18", width=4, size=32), tmp_path / "weights.safetensors"
    weights = build_backbone(net).state_dict()
    save_file(weights, path)
    whole = path.read_bytes()
    damaged = (whole[:-10], whole[:100], b"", b"\xff" * 8 + whole[8:], whole[:20] + b"\xff" + whole[21:])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="weights.safetensors: not a whole safetensors file .*; make it again") as error:
            load_backbone_weights(build_backbone(net), path)
        assert "\n" not in str(error.value)
    name = next(k for k in weights if "running_var" in k)
    save_file(weights | {name: weights[name] / 0}, path)
    with pytest.raises(ValueError, match=f"weights.safetensors: {name} holds values that are not finite"):
        load_backbone_weights(build_backbone(net), path)


def test_every_flipped_bit_of_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"model": {"w": torch.zeros(8)}}, {})
    save_checkpoint(path, {"model": {"w": torch.randn(64)}}, {})
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(
            CheckpointError, match="its content does not fit its checksum.*rename checkpoint.previous.pt to checkpoint.pt"
        ):
            load_checkpoint(path, {})
    path.write_bytes(whole)
    assert load_checkpoint(path, {})


@pytest.mark.parametrize("change", ["method", "width", "optimiser"])
def test_resume_anyway_from_another_network_is_one_sentence(change, prepared, tmp_path):
    other = build.pretrain_job(prepared, "r18", "mscl" if change == "method" else "moco", 0)
    if change == "width":
        other = other.model_copy(update={"net": other.net.model_copy(update={"width": 8})})
    if change == "optimiser":
        other = other.model_copy(update={"optim": other.optim.model_copy(update={"optimizer": "sgd"})})

    def save_and_stop(run, *_):
        run.save()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine.Run, "fit", save_and_stop)
        pretrain(other, tmp_path)
    with pytest.raises(
        CheckpointError, match="checkpoint.pt: holds another network or optimiser .*; restore method, backbone"
    ) as error:
        pretrain(build.pretrain_job(prepared, "r18", "moco", 0), tmp_path, engine.Machine(resume_anyway=True))
    assert "\n" not in str(error.value)


def test_what_killed_runs_left_is_removed_when_a_run_starts(prepared, tmp_path):
    for name in (".checkpoint.pt.4711.tmp", ".checkpoint.pt.link"):
        (tmp_path / name).write_bytes(b"half")
    pretrain(build.pretrain_job(prepared, "r18", "moco", 0), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.csv", "weights.safetensors"]
