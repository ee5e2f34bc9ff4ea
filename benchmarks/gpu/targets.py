"""How fast are finetuning steps, tests and features?"""

from __future__ import annotations

import torch

from benchmarks.gpu.bench import Bench
from mscl.config.settings import Kernels
from mscl.stages import build
from mscl.training.augment import normalise
from mscl.training.finetune import Classifier, FinetuneStep
from mscl.training.hardware import autocast, memory_format, place
from mscl.training.recipe import make_optimizer
from mscl.training.step import begin_step
from mscl.watch.flops import finetune_flops, mfu

CLASSES = 174  # of Something-Something v2


def targets(bench: Bench) -> None:
    """Finetuning and features of every model, at the recipe of the first target."""
    target = bench.config.finetuned_targets[0].name
    for model in bench.config.models:
        if bench.left() < 0:
            bench.note("targets", f"no time left for {model}")
            continue
        _measure(bench, target, model)


def _measure(bench: Bench, target: str, model: str) -> None:
    bench.fresh_memory()
    job = build.finetune_job(bench.config, target, model, bench.config.methods[0], 0)
    job = job.model_copy(update={"kernels": Kernels()})
    recipe, batch = job.finetune, job.finetune.batch
    classifier = place(Classifier(job.net, recipe, CLASSES), bench.device, job.kernels).train()
    clip = torch.randint(0, 256, (batch, recipe.frames, job.net.size, job.net.size, 3), dtype=torch.uint8)
    data = {"clip": clip.to(bench.device), "label": torch.arange(batch, device=bench.device) % CLASSES}
    step, optimizer = FinetuneStep(classifier, job), make_optimizer(classifier, recipe)
    took = bench.seconds(lambda: begin_step(step, data, optimizer, recipe, 0, 0, 10))
    share = mfu(finetune_flops(job, CLASSES), bench.device)
    bench.add(
        "targets",
        what=f"{model} finetuning",
        batch=batch,
        clip=f"{recipe.frames} x {job.net.size}²",
        **{"ms": 1000 * took, "clips/s": batch / took, "MFU": share(batch / took) if share else "–", "peak GB": bench.memory()},
    )
    bench.rates.setdefault("steps", {})[f"{model}/finetune/{target}"] = took / batch
    bench.fresh_memory()
    backbone, size = classifier.backbone.eval(), recipe.test_size
    views = torch.randint(0, 256, (batch, recipe.frames, size, size, 3), dtype=torch.uint8, device=bench.device)
    took = bench.seconds(lambda: _features(backbone, views, job.kernels))
    shape = {"batch": batch, "clip": f"{recipe.frames} x {size}²"}
    bench.add(
        "targets", what=f"{model} features", **shape, ms=1000 * took, **{"clips/s": batch / took, "peak GB": bench.memory()}
    )


@torch.inference_mode()
def _features(backbone: torch.nn.Module, views: torch.Tensor, kernels: Kernels) -> torch.Tensor:
    with autocast(views.device, kernels):
        return backbone(normalise(views).contiguous(memory_format=memory_format(kernels))).float()
