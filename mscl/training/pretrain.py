"""Self-supervised pretraining of any method of `mscl.config.methods.METHODS` (method.md §2-§6, §8).

snakemake --cores all results/demo/pretrain/r18/mscl/seed0/weights.safetensors
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mscl.flow.rotate import angles
from mscl.machine.files import atomic_write
from mscl.models import distributed
from mscl.models.build import build_method
from mscl.models.method import Method
from mscl.models.moco import key_momentum
from mscl.models.view import View
from mscl.stages.codehash import code_hash
from mscl.stages.jobs import PretrainJob
from mscl.stages.layout import HISTORY, WEIGHTS
from mscl.training.augment import augment_rgb, flip_flow, flow_from_planes
from mscl.training.checkpoint import save_weights
from mscl.training.clips import PretrainClips, clip_names, pretrain_rows
from mscl.training.draws import Draws
from mscl.training.engine import DEFAULT, Machine, Run
from mscl.training.hardware import memory_format, place, prepare_device
from mscl.training.identity import identity_of
from mscl.training.monitor import Monitor
from mscl.training.step import Batch, Step
from mscl.watch.flops import mfu, pretrain_flops


def make_views(batch: Batch, job: PretrainJob, draws: Draws) -> list[View]:
    """Augment every clip of every video; a flip is shared by a clip's frames and its flow, FRA's angle by a video's clips."""
    names = clip_names(job.switches.clips)
    angle_B = angles(draws.integers(8))  # drawn for every method: it moves no other draw
    flips = {name: draws.chance(job.augment.flip) for name in names}  # drawn, too, where nothing is flipped
    if not job.augment.flip:
        flips = dict.fromkeys(names)
    views = {}
    for name in names:
        rgb = augment_rgb(batch[f"{name}_rgb"], flips[name], job.augment, draws)
        views[name] = view = View(rgb.contiguous(memory_format=memory_format(job.kernels)))
        if job.switches.flow:
            view.flow_B2THW, view.angle_B = _flow(batch, name, name, flips[name]), angle_B
        if job.switches.ordered:
            view.start_B = batch[f"{name}_start"]
    if job.switches.fra == "released":
        for name, other in (("query", "key"), ("key", "query")):
            views[name].crossed_B2THW = _flow(batch, f"{name}_crossed", name, flips[other])
    return list(views.values())


def _flow(batch: Batch, planes: str, name: str, flipped_B: Tensor | None) -> Tensor:
    """The fields of clip `name`, cropped as in `planes`, flipped: (B, 2, T, H, W) of radius at most 1."""
    flow = flow_from_planes(batch[f"{planes}_flow"], batch[f"{name}_factor"])
    return flip_flow(flow, flipped_B)


class PretrainStep(Step):
    """One step of the method: move the key encoders, look at the views, sum the terms, let the keys into their queues."""

    def __init__(self, model: Method, job: PretrainJob):
        self.model, self.job, self.kernels = model, job, job.kernels

    def begin(self, progress: float, step: float) -> None:
        self.momentum = key_momentum(progress, self.job.contrast.momentum)
        self.model.begin(progress, step)

    def __call__(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        with torch.autocast(batch["query_rgb"].device.type, enabled=False):
            views = make_views(batch, self.job, draws)
        losses, accuracies = _terms(self.model(*views), self.job.switches.network)
        loss = sum(losses.values())
        terms = {"loss": loss, "momentum": torch.full_like(loss, self.momentum)}
        terms |= {f"loss_{k}": v.detach() for k, v in losses.items()}
        return terms | {f"acc_{k}": v for k, v in accuracies.items()}

    def end(self) -> None:
        self.model.enqueue()


def _terms(returned: object, network: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss terms and accuracies that a method returned. Raises ValueError unless they are scalars by name, at least one loss."""
    dicts = returned if isinstance(returned, tuple) and [type(d) for d in returned] == [dict, dict] else ({}, {})
    scalars = all(isinstance(v, Tensor) and v.ndim == 0 for d in dicts for v in d.values())
    if not (dicts[0] and scalars):
        raise ValueError(
            f"{network}: forward must return two dictionaries of scalar tensors: loss terms (at least one), accuracies"
        )
    return dicts


def pretrain(job: PretrainJob, out: Path, machine: Machine = DEFAULT) -> None:
    """Train and write `weights.safetensors` (the RGB query backbone, and its head under `head.`) and `history.csv` to `out`.

    A checkpoint in `out` is resumed from and removed at the end.
    """
    device = prepare_device(job.device, job.threads, job.kernels)
    torch.manual_seed(job.seed)
    model = place(build_method(job.net, job.contrast, job.switches), device, job.kernels)
    rows = pretrain_rows(job.sources, job.split)
    if len(rows) < job.optim.batch:
        raise ValueError(
            f"{len(rows)} usable videos in split '{job.split}' are fewer than one batch of {job.optim.batch}; "
            "lower models.*.pretrain.batch or add videos"
        )
    if distributed.rank() == 0:
        where = f"{device}" if distributed.size() == 1 else f"{distributed.size()} x {device.type}"
        print(f"{job.method}, seed {job.seed}: {len(rows)} videos, {job.optim.epochs} epochs, on {where}")
    dataset = PretrainClips(rows, job.clip, job.augment, job.switches, job.net.size, job.seed)
    groups = str(distributed.groups(job.contrast.bn_groups))
    sources = [*job.sources, *([job.monitor.source] if job.monitor else [])]
    identity = identity_of(job, code_hash(__name__, *job.modules()), sources, [r[2] for r in rows], batch_norm_groups=groups)
    run = Run(model, dataset, job.optim, job.seed, identity, out / "checkpoint.pt", machine)
    monitor = Monitor(job, model.encoder, device, machine.workers).measure if job.monitor else None
    share = mfu(pretrain_flops(job), device) if device.type == "cuda" else None
    history = run.fit(PretrainStep(model, job), monitor, share)
    if distributed.rank() == 0:
        write_pretrained(model, history, job, out)
        run.done()


def write_pretrained(model: Method, history: pd.DataFrame, job: PretrainJob, out: Path) -> None:
    encoder = model.encoder
    weights = dict(encoder.backbone.state_dict()) | {f"head.{k}": v for k, v in encoder.head.state_dict().items()}
    with atomic_write(out / HISTORY) as path:
        history.to_csv(path, index=False)
    save_weights(out / WEIGHTS, weights, {"method": job.method, "backbone": job.net.backbone, "width": str(job.net.width)})
