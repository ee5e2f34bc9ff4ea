"""The features of a frozen backbone: one vector per video of the training and the test split of a target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mscl.machine.files import atomic_write
from mscl.models.networks.build import build_backbone, load_backbone_weights
from mscl.stages.codehash import code_hash
from mscl.stages.jobs import GROUP, EmbedJob
from mscl.stages.layout import FEATURES
from mscl.store.shards import Shards
from mscl.training.clips import UniformClips, manifest_rows
from mscl.training.features import extract_features
from mscl.training.hardware import prepare_device
from mscl.training.identity import identity_of
from mscl.training.partial import Partial, fingerprint

COLUMNS = ("clip_id", "label", "class_name", GROUP)


@dataclass(frozen=True)
class Embedding:
    """Features (N, D) and (M, D), float32, with the rows of their videos (`COLUMNS`), in the same order.

    `skipped` counts the unusable test videos; `classes` is the highest label of the data set + 1.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    train_x: np.ndarray
    test_x: np.ndarray
    skipped: int
    classes: int


def splits(job: EmbedJob) -> tuple[UniformClips, UniformClips, int]:
    """The usable labelled videos of the training and the test split, and the highest label of the data set + 1."""
    rows, store = manifest_rows(job.source), Shards(job.source.frame_indexes())
    train, test = (
        UniformClips(store, rows[(rows.split == s) & (rows.label >= 0)], job.frames, job.test_size, job.clips, stride=job.stride)
        for s in (job.train, job.test)
    )
    return train, test, int(rows.label.max()) + 1


def extract(job: EmbedJob, train: UniformClips, test: UniformClips, out: Path, workers: int) -> tuple[list, list[Partial]]:
    """Features (N, D) and (M, D) of both splits, and where these are kept in `out` for the case of an interruption.

    Without `job.weights` the backbone is randomly initialised from the seed. Raises ValueError for weights of another backbone.
    """
    device = prepare_device(job.device, job.threads, job.kernels)
    torch.manual_seed(job.seed)
    backbone = build_backbone(job.net)
    if job.weights is not None:
        load_backbone_weights(backbone, job.weights)
    backbone = backbone.to(device, memory_format=torch.channels_last_3d)
    partials = [_partial(job, out / f".features.{name}.part", c, backbone) for name, c in (("train", train), ("test", test))]
    none = np.zeros((0, backbone.feature_dim), np.float32)
    found = [
        extract_features(backbone, clips, device, workers, partial, job.kernels) if len(clips) else none
        for clips, partial in zip((train, test), partials)
    ]
    return found, partials


def _partial(job: EmbedJob, path: Path, clips: UniformClips, backbone: torch.nn.Module) -> Partial:
    """Where the features of a split are kept until the results are written."""
    code, weights = code_hash(__name__, *job.modules()), fingerprint(backbone.state_dict())
    return Partial(path, identity_of(job, code, [job.source], clips.rows, weights=weights))


def embed(job: EmbedJob, out: Path, workers: int = 0) -> None:
    """Extract the features of both splits and write them to `out`. Interrupted, it resumes. Raises ValueError as `extract` does."""
    train, test, classes = splits(job)
    features, partials = extract(job, train, test, out, workers)
    found: dict[str, np.ndarray] = {"skipped": np.array(len(test.skipped)), "classes": np.array(classes)}
    for name, clips, x in zip(("train", "test"), (train, test), features):
        found |= {f"{name}_x": x, f"{name}_label": clips.rows["label"].to_numpy(np.int64)}
        found |= {f"{name}_{column}": clips.rows[column].to_numpy(np.str_) for column in ("clip_id", "class_name")}
        recording = clips.rows[GROUP if GROUP in clips.rows else "clip_id"]
        found[f"{name}_{GROUP}"] = recording.to_numpy(np.str_)
    with atomic_write(out / FEATURES) as path, open(path, "wb") as file:
        np.savez(file, **found)
    for partial in partials:
        partial.done()
    print(f"features of {len(train)} training and {len(test)} test videos ({len(test.skipped)} skipped)")


def read_embedding(path: Path) -> Embedding:
    """Read what `embed` wrote. Raises ValueError that names the file if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        train, test = (pd.DataFrame({c: found[f"{split}_{c}"] for c in COLUMNS}) for split in ("train", "test"))
        return Embedding(train, test, found["train_x"], found["test_x"], int(found["skipped"]), int(found["classes"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: not readable features ({' '.join(str(error).split())}); run the embed stage again") from None
