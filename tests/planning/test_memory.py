"""The planned peak memory of a training step, against what a CPU allocates and against what an H200 measured."""

import re
from itertools import accumulate

import pytest
import torch

from mscl.config.schema import load_config
from mscl.planning.memory import finetune_need, pretrain_need
from mscl.stages import build
from mscl.training.clips import random_batch
from mscl.training.finetune import Classifier, FinetuneStep
from mscl.training.hardware import place
from mscl.training.pretrain import PretrainStep, build_method
from mscl.training.recipe import make_optimizer
from mscl.training.step import train_step
from tests.conftest import ROOT, tiny_config

TOLERANCE = 0.2  # docs/planning.md states it


def allocated(model, step, recipe, batch) -> float:
    """Peak bytes of tensors in a step, from every allocation that torch's profiler sees in the second step."""
    model.train()
    optimizer = make_optimizer(model, recipe)
    train_step(step, batch, optimizer, recipe, 0, 0, 2)
    held = [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    held += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        train_step(step, batch, optimizer, recipe, 0, 1, 2)
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    changes = accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return sum(t.numel() * t.element_size() for t in held) + max(changes)


@pytest.fixture(scope="module", params=["r3d_18", "slow_r50"])
def config(request, tmp_path_factory):
    """The tiny configuration with networks and clips that are large enough for activations to count."""
    values = tiny_config(tmp_path_factory.mktemp("memory"))
    values["models"]["r18"] |= {"backbone": request.param, "width": 16, "size": 64}
    return load_config(values)


@pytest.mark.parametrize("method", ["moco", "mscl"])
def test_the_peak_of_a_pretraining_step_on_a_cpu(config, method):
    job = build.pretrain_job(config, "r18", method, 0)
    model = place(build_method(job.net, job.contrast, job.switches), torch.device("cpu"), job.kernels)
    batch = random_batch(job.switches, job.clip, job.net.size, job.optim.batch)
    real = allocated(model, PretrainStep(model, job), job.optim, batch)
    assert pretrain_need(job, job.optim.batch, "cpu").peak == pytest.approx(real, rel=TOLERANCE)


def test_the_peak_of_a_finetuning_step_on_a_cpu(config):
    job = build.finetune_job(config, "ss", "r18", "scratch", 0)
    model = place(Classifier(job.net, job.finetune, 12), torch.device("cpu"), job.kernels)
    pixels = (job.finetune.batch, job.finetune.frames, job.net.size, job.net.size, 3)
    batch = {"clip": torch.randint(0, 256, pixels, dtype=torch.uint8), "label": torch.zeros(pixels[0], dtype=torch.long)}
    real = allocated(model, FinetuneStep(model, job), job.finetune, batch)
    assert finetune_need(job, 12, job.finetune.batch, "cpu").peak == pytest.approx(real, rel=TOLERANCE)


def test_the_peaks_that_an_h200_measured():
    """benchmarks/2026-11-27-gpu.md: nine pretrainings and two finetunings of config/paper.yaml's networks, in bfloat16."""
    config = load_config(ROOT / "config/paper.yaml")
    text = (ROOT / "benchmarks/2026-11-27-gpu.md").read_text()
    rows = re.findall(r"^\| (r18|r50) \| (\w+) \| (\d+) \|.* \| ([\d.]+) \|$", text, re.M)
    assert len(rows) == 9
    for model, method, batch, gigabytes in rows:
        job = build.pretrain_job(config, model, method, 0)
        assert pretrain_need(job, int(batch), "gpu").peak / 1e9 == pytest.approx(float(gigabytes), rel=TOLERANCE), (model, method)
    rows = re.findall(r"^\| (r18|r50) finetuning \| (\d+) \|.* \| ([\d.]+) \|$", text, re.M)
    assert len(rows) == 2
    for model, batch, gigabytes in rows:
        job = build.finetune_job(config, "ssv2", model, "scratch", 0)
        assert finetune_need(job, 174, int(batch), "gpu").peak / 1e9 == pytest.approx(float(gigabytes), rel=TOLERANCE), model


def test_a_distinct_network_is_counted_once_and_gives_the_same_when_it_is_met_again(prepared):
    """MoCo's step alone, and behind MSCL's, which has the same backbone with the same clips."""
    from mscl.watch.dry import _Once

    jobs = {method: build.pretrain_job(prepared, "r18", method, 0) for method in ("moco", "mscl")}
    _Once.seen.clear()
    first = pretrain_need(jobs["moco"], 8, "cpu")
    _Once.seen.clear()
    pretrain_need(jobs["mscl"], 8, "cpu")
    known = len(_Once.seen)
    assert pretrain_need(jobs["moco"], 8, "cpu") == first and len(_Once.seen) == known
