"""Linear evaluation by SGD: the backbone does not learn and costs no gradients, and an interrupted run ends with the same bits."""

import json
import os
import signal
import sys

import pytest
import torch

from mscl.config.schema import load_config
from mscl.models.networks.build import read_own_weights
from mscl.stages import build
from mscl.training.finetune import FinetuneStep
from mscl.training.linear import LinearClassifier, linear
from mscl.training.recipe import make_optimizer
from tests.conftest import tiny_config


@pytest.fixture(scope="module")
def job(prepared):
    values = tiny_config(prepared.paths.data.parent)
    values["targets"] = [{"dataset": "ss", "measures": ["linear"], "linear": {"epochs": 2, "warmup": 0, "lr": 0.1}}]
    return build.linear_job(load_config(values), "ss", "r18", "scratch", 0)


def test_the_recipe_is_the_published_one_on_the_clips_of_finetuning(prepared):
    values = tiny_config(prepared.paths.data.parent)
    values["targets"] = [{"dataset": "ss", "measures": ["linear"], "finetune": {"frames": 4, "test_clips": 3}}]
    recipe = load_config(values).linear_of("ss", "r18")
    assert (recipe.optimizer, recipe.lr, recipe.base_batch, recipe.epochs, recipe.warmup) == ("sgd", 0.5, 64, 60, 8)
    assert (recipe.weight_decay, recipe.dropout, recipe.steps) == (0, 0, ())
    assert (recipe.frames, recipe.test_clips, recipe.batch) == (4, 3, 8)


def test_no_gradient_and_no_activation_is_stored_for_the_backbone(job):
    model = LinearClassifier(job.net, job.finetune, classes=3).train()
    assert model.training and not any(part.training for part in model.backbone.modules())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        outputs = []
        model.backbone.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        batch = {"clip": torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8), "label": torch.tensor([0, 2])}
        from mscl.training.draws import Draws

        before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        loss = FinetuneStep(model, job)(batch, Draws(0, 0, 2))["loss"]
    assert outputs[0].grad_fn is None and not outputs[0].requires_grad
    assert max(len(shape) for shape in kept) <= 2  # no map of the backbone (B, C, T, H, W) is kept for backward
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["fc.weight", "fc.bias"]
    optimizer = make_optimizer(model, job.finetune)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    optimizer.step()
    after = model.backbone.state_dict()  # with the running statistics of its batch norms
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_it_learns_only_the_layer_and_goes_on_after_an_interruption(job, tmp_path, monkeypatch):
    linear(job, tmp_path / "whole")
    torch.manual_seed(job.seed)
    start = LinearClassifier(job.net, job.finetune, classes=12).export()
    end = read_own_weights(tmp_path / "whole" / "weights.safetensors")
    assert all(torch.equal(end[name], value) for name, value in start.items() if not name.startswith("fc."))
    assert not torch.equal(end["fc.weight"], start["fc.weight"][: len(end["fc.weight"])])

    module, calls = sys.modules["mscl.training.finetune"], []
    real = module.normalise
    monkeypatch.setattr(
        module, "normalise", lambda *x: (calls.append(1), len(calls) == 4 and os.kill(os.getpid(), signal.SIGTERM), real(*x))[2]
    )
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        linear(job, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    linear(job, tmp_path / "run")
    assert len(calls) == 6  # 3 steps an epoch, 2 epochs: none twice
    for name in ("weights.safetensors", "metrics.json", "history.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["videos"] == 12
