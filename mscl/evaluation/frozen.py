"""Evaluates the features of one frozen backbone (docs/method.md §8)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mscl.config.measures import measure
from mscl.config.module_path import load
from mscl.machine.files import write_json
from mscl.measures.topk import majority_share
from mscl.models.networks.build import build_backbone, load_backbone_weights
from mscl.stages.codehash import code_hash
from mscl.stages.jobs import FrozenJob
from mscl.stages.layout import METRICS
from mscl.store.shards import Shards
from mscl.training.clips import UniformClips, group_numbers, manifest_rows
from mscl.training.features import extract_features
from mscl.training.hardware import prepare_device
from mscl.training.identity import identity_of
from mscl.training.partial import Partial, fingerprint


def evaluate_frozen(job: FrozenJob, out: Path, workers: int = 0) -> None:
    """Extract the features of both splits, compute every measure of the job, and write `out`/metrics.json. Interrupted, it resumes.

    Where nothing can be measured (fewer than 2 classes to learn, or no test video), the measures are NaN and `notes` says why.

    Without `job.weights` the backbone is randomly initialised from the seed. `workers` is the number of loader processes. Raises
    ValueError for weights of another backbone, and when a measure cannot be loaded.
    """
    functions = {name: load(measure(name).function) for name in job.measures}
    rows, store = manifest_rows(job.source), Shards(job.source.frame_indexes())
    train, test = (
        UniformClips(store, rows[(rows.split == s) & (rows.label >= 0)], job.frames, job.test_size, job.clips, stride=job.stride)
        for s in (job.train, job.test)
    )
    train_y, test_y = train.rows.label.to_numpy(), test.rows.label.to_numpy()
    why = nothing_to_measure(train_y, test_y)
    unmeasured = {name: dict.fromkeys(measure(name).columns, float("nan")) for name in job.measures}
    found, partials = (unmeasured, []) if why else _measure(job, functions, train, test, out, workers)
    metrics = {
        "measures": found,
        "videos": len(test_y),
        "skipped": len(test.skipped),
        "classes": int(rows.label.max()) + 1,
        "chance": 1 / train.rows.label.nunique() if len(train_y) else float("nan"),
        "majority": majority_share(test_y),
        "notes": [why] if why else _constant(found),
    }
    write_json(out / METRICS, metrics)
    for partial in partials:
        partial.done()
    for name, columns in found.items():
        values = ", ".join(f"{column} {value:.3f}" for column, value in columns.items())
        print(f"{name}: {values}; chance {metrics['chance']:.3f}, most frequent class {metrics['majority']:.3f}")
    for note in metrics["notes"]:
        print(f"note: {note}")


def nothing_to_measure(train_y: Sequence[int], test_y: Sequence[int]) -> str:
    """Why no measure of the features can mean anything: a sentence; "" if one can. Labels of the usable videos, (N,) and (M,)."""
    reasons = "the table of unusable videos in the report gives the reasons"
    if (classes := len(np.unique(train_y))) < 2:
        return f"not measured: the usable training videos are of {classes} class{'' if classes == 1 else 'es'}, and a measure needs 2; {reasons}"
    return "" if len(test_y) else f"not measured: the test split has no usable video with a label; {reasons}"


def _constant(found: dict[str, dict[str, float]]) -> list[str]:
    """A sentence per measure that predicts one class for every test video."""
    return [
        f"{name}: one class is predicted for every test video{_alpha(columns)}, so its "
        "accuracy is the share of that class and says nothing about the features"
        for name, columns in found.items()
        if columns.get("predicted_classes") == 1
    ]


def _alpha(columns: dict[str, float]) -> str:
    return f" (alpha {columns['alpha']:g})" if "alpha" in columns else ""


def _measure(
    job: FrozenJob, functions: dict[str, Callable], train: UniformClips, test: UniformClips, out: Path, workers: int
) -> tuple[dict[str, dict[str, float]], list[Partial]]:
    """{measure: {column: value}} of the features of both splits, and where these are kept for the case of an interruption."""
    device = prepare_device(job.device, job.threads, job.kernels)
    torch.manual_seed(job.seed)
    backbone = build_backbone(job.net)
    if job.weights is not None:
        load_backbone_weights(backbone, job.weights)
    backbone = backbone.to(device, memory_format=torch.channels_last_3d)
    partials = [_partial(job, out / f".features.{name}.part", c, backbone) for name, c in (("train", train), ("test", test))]
    train_x, test_x = (extract_features(backbone, c, device, workers, p, job.kernels) for c, p in zip((train, test), partials))
    train_y, test_y = train.rows.label.to_numpy(), test.rows.label.to_numpy()
    videos, groups = (train_x, train_y, test_x, test_y), group_numbers(train.rows)
    found = {name: _columns(name, function(*videos, **_groups(function, groups))) for name, function in functions.items()}
    return found, partials


def _groups(function: Callable, groups_N: np.ndarray) -> dict[str, np.ndarray]:
    """The groups of the training videos, for a measure that asks for them."""
    return {"groups": groups_N} if "groups" in inspect.signature(function).parameters else {}


def _columns(name: str, returned: object) -> dict[str, float]:
    """What a measure returned, as plain numbers. Raises ValueError unless it is a number per named column."""
    numbers = isinstance(returned, dict) and all(
        isinstance(c, str) and isinstance(v, int | float | np.number) for c, v in returned.items()
    )
    if not numbers:
        raise ValueError(f"measure '{name}' returned {returned!r:.100}; it must return a dictionary with a number per column")
    return {column: value.item() if isinstance(value, np.number) else value for column, value in returned.items()}


def _partial(job: FrozenJob, path: Path, clips: UniformClips, backbone: torch.nn.Module) -> Partial:
    """Where the features of a split are kept until the measures are written."""
    code, weights = code_hash(__name__, *job.modules()), fingerprint(backbone.state_dict())
    return Partial(path, identity_of(job, code, [job.source], clips.rows, weights=weights))
