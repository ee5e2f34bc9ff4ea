"""Self-supervised pretraining of any method of `mscl.config.METHODS` (method.md §2-§6, §8).

snakemake --cores all results/demo/pretrain/r18/mscl/seed0/weights.safetensors
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mscl.codehash import code_hash
from mscl.io import whole
from mscl.jobs import PretrainJob, dumps
from mscl.models.lmcl import sample_angles
from mscl.models.moco import key_momentum
from mscl.models.mscl import MSCL, View
from mscl.training.augment import augment_rgb, flip_flow, flow_from_planes
from mscl.training.checkpoint import fingerprint, save_weights
from mscl.training.data import PretrainClips, pretrain_rows
from mscl.training.engine import DEFAULT, Machine, Run, prepare_device


def make_view(batch: dict, name: str, job: PretrainJob, g: torch.Generator) -> View:
    """Augment one of the two clips of every video; a flip is shared by its frames and its flow."""
    rgb = batch[f"{name}_rgb"]
    flipped_B = torch.rand(len(rgb), generator=g) < job.augment.flip
    view = View(augment_rgb(rgb, flipped_B, job.augment, g).contiguous(memory_format=torch.channels_last_3d))
    angle_B = sample_angles(len(rgb), g, rgb.device)  # drawn for every method: it moves no other draw
    if job.switches.flow:
        flow = flow_from_planes(batch[f"{name}_flow"], batch[f"{name}_factor"])
        view.flow_B2THW, view.angle_B = flip_flow(flow, flipped_B.to(rgb.device)), angle_B
    return view


def make_step(model: MSCL, job: PretrainJob):
    """One step of the method: move the key encoders, look at two views, sum the terms."""

    def step(batch: dict, progress: float, g: torch.Generator) -> dict[str, Tensor]:
        model.momentum_update(key_momentum(progress, job.contrast.momentum))
        with torch.autocast(batch["query_rgb"].device.type, enabled=False):
            query, key = make_view(batch, "query", job, g), make_view(batch, "key", job, g)
        losses, accuracies = model(query, key)
        terms = {"loss": sum(losses.values())}
        terms |= {f"loss_{k}": v.detach() for k, v in losses.items()}
        return terms | {f"acc_{k}": v for k, v in accuracies.items()}

    return step


def pretrain(job: PretrainJob, out: Path, machine: Machine = DEFAULT) -> None:
    """Train and write `weights.safetensors` (the RGB query backbone, and its head under `head.`) and `history.csv` to `out`.

    A checkpoint in `out` is resumed from and removed at the end.
    """
    device = prepare_device(job.device, job.threads)
    torch.manual_seed(job.seed)
    model = MSCL(job.net, job.contrast, job.switches).to(device, memory_format=torch.channels_last_3d)
    rows = pretrain_rows(job.sources, job.split)
    if len(rows) < job.optim.batch:
        raise ValueError(
            f"{len(rows)} usable videos in split '{job.split}' are fewer than one batch of {job.optim.batch}; "
            "lower models.*.pretrain.batch or add videos"
        )
    print(f"{job.method}, seed {job.seed}: {len(rows)} videos, {job.optim.epochs} epochs, on {device}")
    dataset = PretrainClips(rows, job, job.net.size)
    settings = fingerprint(dumps(job), code_hash(__name__), repr([r[2] for r in rows]))
    run = Run(model, dataset, job.optim, job.seed, settings, out / "checkpoint.pt", machine)
    history = run.fit(make_step(model, job), f"pretrain {job.method}")
    write_pretrained(model, history, job, out)
    run.checkpoint.unlink(missing_ok=True)


def write_pretrained(model: MSCL, history: pd.DataFrame, job: PretrainJob, out: Path) -> None:
    encoder = model.rgb.query
    weights = dict(encoder.backbone.state_dict()) | {f"head.{k}": v for k, v in encoder.head.state_dict().items()}
    with whole(out / "history.csv") as path:
        history.to_csv(path, index=False)
    save_weights(
        out / "weights.safetensors", weights, {"method": job.method, "backbone": job.net.backbone, "width": str(job.net.width)}
    )
