"""Supervised finetuning of a backbone and its test (method.md §8).

snakemake --cores all results/demo/finetune/motion_ssv2/r18/mscl/seed0/metrics.json
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mscl.config.recipes import Finetune
from mscl.config.settings import Kernels
from mscl.machine.files import atomic_write, sha256, write_json
from mscl.measures.topk import majority_share, metrics_from_predictions, with_prediction
from mscl.models import distributed
from mscl.models.networks.build import build_backbone, load_backbone_weights, read_own_weights
from mscl.stages.codehash import code_hash
from mscl.stages.jobs import FinetuneJob, RGBNet
from mscl.stages.layout import HISTORY, METRICS, PREDICTIONS, WEIGHTS
from mscl.store.shards import Shards
from mscl.training.augment import flip, normalise
from mscl.training.checkpoint import digest, save_weights
from mscl.training.clips import FinetuneClips, UniformClips, manifest_rows, readable
from mscl.training.draws import Draws
from mscl.training.engine import DEFAULT, Machine, Run
from mscl.training.few import draw_few
from mscl.training.hardware import DEFAULT as KERNELS
from mscl.training.hardware import memory_format, place, prepare_device
from mscl.training.identity import identity_of
from mscl.training.partial import Partial, fingerprint, over_videos
from mscl.training.step import Batch, Step
from mscl.watch.flops import finetune_flops, mfu

TEST_BATCH = 32  # views at a time


class Classifier(nn.Module):
    """Backbone, dropout, linear layer: x_BCTHW -> logits (B, classes). Keys are torchvision's."""

    def __init__(self, net: RGBNet, finetune: Finetune, classes: int):
        super().__init__()
        self.backbone = build_backbone(net)
        self.dropout = nn.Dropout(finetune.dropout)
        self.fc = nn.Linear(self.backbone.feature_dim, classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    flops = staticmethod(finetune_flops)  # of a training step, per video

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.fc(self.dropout(self.backbone(x_BCTHW).float()))

    def export(self) -> dict[str, Tensor]:
        """Weights under torchvision's names: the backbone's at top level, then `fc`."""
        return dict(self.backbone.state_dict()) | {f"fc.{k}": v for k, v in self.fc.state_dict().items()}


def load_classifier(path: Path, net: RGBNet, finetune: Finetune, classes: int) -> Classifier:
    """A finetuned classifier in eval mode; raises ValueError when the file is another model's."""
    model = Classifier(net, finetune, classes)
    load_backbone_weights(model.backbone, path)
    weights = read_own_weights(path)
    try:
        model.fc.load_state_dict({"weight": weights["fc.weight"], "bias": weights["fc.bias"]})
    except (KeyError, RuntimeError):
        raise ValueError(f"{path}: no classifier of {classes} classes in it; finetune again") from None
    return model.eval()


class FinetuneStep(Step):
    def __init__(self, model: Classifier, job: FinetuneJob):
        self.model, self.job, self.kernels = model, job, job.kernels

    def __call__(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        x = normalise(batch["clip"], self.model.backbone.colours)
        if self.job.finetune.flip:
            x = flip(x, draws.chance(0.5))
        if distributed.rank():  # or every process would drop the same features
            # far from the seeds of the parts of a batch, which count up by 1
            torch.manual_seed((torch.initial_seed() + (distributed.rank() << 32)) % 2**63)
        logits = self.model(x.contiguous(memory_format=memory_format(self.job.kernels)))
        loss = F.cross_entropy(logits, batch["label"])
        return {"loss": loss, "train_top1": (logits.argmax(1) == batch["label"]).float().mean()}


def predict(
    model: Classifier,
    clips: UniformClips,
    device: torch.device,
    workers: int,
    partial: Partial | None = None,
    kernels: Kernels = KERNELS,
) -> pd.DataFrame:
    """One row per test video: the five best classes and their probabilities; skipped videos are rows too."""
    model.eval()
    at_once, colours = max(1, TEST_BATCH // clips.views), model.backbone.colours
    p = over_videos(lambda x: model(x).float().softmax(1), clips, at_once, device, workers, partial, kernels, colours)
    best = p.topk(min(5, p.shape[1]), dim=1)
    rows = [
        {"clip_id": clip, "label": label, "top": top, "probability": probability, "status": "ok", "reason": ""}
        for clip, label, top, probability in zip(
            clips.rows.clip_id, clips.rows.label, best.indices.tolist(), best.values.tolist()
        )
    ]
    skipped = clips.skipped[["clip_id", "label", "status", "reason"]].assign(top=[[] for _ in range(len(clips.skipped))])
    skipped["probability"] = [[] for _ in range(len(skipped))]
    return pd.DataFrame(rows + skipped.to_dict("records"), columns=["clip_id", "label", "top", "probability", "status", "reason"])


def test_clips(store: Shards, rows: pd.DataFrame, recipe: Finetune) -> UniformClips:
    """The views of the test: `test_clips` x `test_crops` of each video."""
    return UniformClips(store, rows, recipe.frames, recipe.test_size, recipe.test_clips, recipe.test_crops, recipe.stride)


def finetune(job: FinetuneJob, out: Path, machine: Machine = DEFAULT, kind: type[Classifier] = Classifier) -> None:
    """Train on `job.train`, test on `job.test`; write weights, predictions, metrics and history to `out`.

    Without `job.weights` it trains from scratch: of a pretraining only the RGB query backbone is loaded. `kind` says what of the
    network is trained (`mscl.training.linear`). Raises ValueError without videos, or with too few of them for `job.few`.
    """
    device = prepare_device(job.device, job.threads, job.kernels)
    torch.manual_seed(job.seed)
    rows, store = manifest_rows(job.source), Shards(job.source.frame_indexes())
    classes = int(rows.label.max()) + 1
    labelled = rows[rows.label >= 0]
    usable = readable(labelled[labelled.split == job.train], store)[0]
    few = draw_few(usable, job.few, job.seed, f"{job.source.manifest}, split '{job.train}'")
    train = FinetuneClips(store, few, job.finetune, job.net.size, job.seed)
    test = test_clips(store, labelled[labelled.split == job.test], job.finetune)
    for split, clips in ((job.train, train), (job.test, test)):
        if not len(clips):
            raise ValueError(
                f"{job.source.manifest}: no usable video with a label in split '{split}'; "
                "see the labels and statuses in the manifest and the frames index"
            )
    if train.rows.label.nunique() < 2 and not distributed.rank():
        print(f"note: all {len(train)} usable training videos are of one class, so the accuracy will say nothing")
    model = kind(job.net, job.finetune, classes)
    if job.weights is not None:
        load_backbone_weights(model.backbone, job.weights)
    model = place(model, device, job.kernels)
    weights = sha256(job.weights) if job.weights else ""
    code, groups = code_hash(kind.__module__, *job.modules()), str(distributed.size())
    identity = identity_of(job, code, [job.source], train.rows, pretrained_weights=weights, batch_norm_groups=groups)
    run = Run(model, train, job.finetune, job.seed, identity, out / "checkpoint.pt", machine)
    share = mfu(kind.flops(job, classes), device) if device.type == "cuda" else None
    history = run.fit(FinetuneStep(model, job), gpu_share=share)
    if distributed.rank():
        return
    identity |= {"weights": fingerprint(model.state_dict()), "list of tested videos": digest(*test.rows.clip_id)}
    partial = Partial(out / ".predictions.part", identity, machine.checkpoint_minutes)
    predictions = predict(model, test, device, machine.workers, partial, job.kernels)
    write_finetuned(model, history, predictions, train.rows.label.nunique(), job, out)
    partial.done()
    run.done()


def write_finetuned(
    model: Classifier, history: pd.DataFrame, predictions: pd.DataFrame, seen: int, job: FinetuneJob, out: Path
) -> None:
    """`seen` classes occur in training: chance is one of them, however many labels.json lists."""
    classes = model.fc.out_features
    metrics = metrics_from_predictions(predictions, classes) | {"classes": classes, "chance": 1 / seen}
    metrics["majority"] = majority_share(with_prediction(predictions)["label"])
    if seen <= 5:
        metrics.pop("top5", None)  # nearly every answer would be right
    metrics["train_loss"] = float(history.loss.iloc[-1])
    with atomic_write(out / HISTORY) as path:
        history.to_csv(path, index=False)
    with atomic_write(out / PREDICTIONS) as path:
        predictions.to_parquet(path, index=False)
    write_json(out / METRICS, metrics)
    note = {"method": job.method, "classes": str(classes)} | model.backbone.colours.note()
    save_weights(out / WEIGHTS, model.export(), note)
    print(
        f"top-1 {metrics['top1']:.3f} on {metrics['videos']} videos ({metrics['skipped']} skipped), chance {metrics['chance']:.3f}"
    )
