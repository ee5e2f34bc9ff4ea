"""Evaluates the features of one frozen backbone (docs/method.md §8)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mscl.config.measures import measure
from mscl.config.module_path import load
from mscl.evaluation.embed import Embedding, extract, read_embedding, splits
from mscl.machine.files import write_json
from mscl.measures.topk import majority_share
from mscl.stages.jobs import FrozenJob
from mscl.stages.layout import METRICS
from mscl.training.clips import group_numbers
from mscl.training.few import draw_few
from mscl.training.partial import Partial


def evaluate_frozen(job: FrozenJob, out: Path, workers: int = 0) -> None:
    """Compute every measure of the job from the features of both splits, and write `out`/metrics.json.

    The features are read from `job.features`, or extracted here; interrupted, the extraction resumes. Where nothing can be measured
    (fewer than 2 classes to learn, or no test video), the measures are NaN and `notes` says why.

    `workers` is the number of loader processes. Raises ValueError for weights of another backbone, when a measure cannot be loaded,
    and with too few videos for `job.few`.
    """
    functions = {name: load(measure(name).function) for name in job.measures}
    found, partials = (read_embedding(job.features), []) if job.features else _extracted(job, out, workers)
    why = nothing_to_measure(found.train.label, found.test.label)
    found = found if why else _drawn(job, found)
    train_y, test_y = found.train.label.to_numpy(), found.test.label.to_numpy()
    measured = {name: dict.fromkeys(measure(name).columns, float("nan")) for name in job.measures}
    if not why:
        videos, groups = (found.train_x, train_y, found.test_x, test_y), group_numbers(found.train)
        measured = {name: _columns(name, function(*videos, **_groups(function, groups))) for name, function in functions.items()}
    metrics = {
        "measures": measured,
        "videos": len(test_y),
        "skipped": found.skipped,
        "classes": found.classes,
        "chance": 1 / found.train.label.nunique() if len(train_y) else float("nan"),
        "majority": majority_share(test_y),
        "notes": [why] if why else _constant(measured),
    }
    write_json(out / METRICS, metrics)
    for partial in partials:
        partial.done()
    for name, columns in measured.items():
        values = ", ".join(f"{column} {value:.3f}" for column, value in columns.items())
        print(f"{name}: {values}; chance {metrics['chance']:.3f}, most frequent class {metrics['majority']:.3f}")
    for note in metrics["notes"]:
        print(f"note: {note}")


def _drawn(job: FrozenJob, found: Embedding) -> Embedding:
    """The features with only those of the training videos that are drawn; all of them without `job.few`."""
    few = draw_few(found.train, job.few, job.seed, f"{job.source.manifest}, split '{job.train}'")
    return replace(found, train=few, train_x=found.train_x[few.index])


def _extracted(job: FrozenJob, out: Path, workers: int) -> tuple[Embedding, list[Partial]]:
    """The features of both splits, extracted only if they can be measured, and where they are kept until the end."""
    train, test, classes = splits(job)
    found = Embedding(train.rows, test.rows, *(np.zeros((0, 0)),) * 2, skipped=len(test.skipped), classes=classes)
    if nothing_to_measure(train.rows.label, test.rows.label):
        return found, []
    (train_x, test_x), partials = extract(job, train, test, out, workers)
    return replace(found, train_x=train_x, test_x=test_x), partials


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
