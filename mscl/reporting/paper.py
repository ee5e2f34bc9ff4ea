"""What distinguishes a configuration from the paper's experiment. The one home of the paper's values is config/paper.yaml."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mscl.config.schema import Config, load_config
from mscl.config.targets import Target

SECTIONS = ("flow", "mds", "clip", "augment")
# Keys of a data set that decide which frames are seen.
DATA = ("format", "fold", "frames", "subset", "group", "holdout", "embedded")
# Keys of a model that are compared one by one, or are no setting of a run.
PARTS = ("contrast", "pretrain", "finetune", "linear", "methods", "targets")
IGNORED = {"weights", "sha256", "batch", "precision"}  # of `flow`: where its file is, and how fast it runs
SAME_BITS = ("keep",)  # of `frames`


@functools.cache
def _paper() -> Config:
    return load_config(Path(__file__).with_name("paper.yaml"))  # a link to config/paper.yaml


def differences(config: Config) -> list[str]:
    """Each setting that changes a result and differs from the paper's, as "key: value (paper: value)", in a fixed order."""
    paper, found = _paper(), []
    for section in SECTIONS:
        found += _differ(section, getattr(config, section), getattr(paper, section), IGNORED if section == "flow" else ())
    found += _data(config, paper)
    for name, model in config.models.items():
        same = next((n for n, m in paper.models.items() if m.backbone == model.backbone), None)
        if same is None:
            known = ", ".join(m.backbone for m in paper.models.values())
            found.append(f"models.{name}.backbone: {model.backbone} (paper: {known})")
            continue
        found += _differ(f"models.{name}", model, paper.models[same], PARTS)
        for target in config.targets_of(name):
            if (theirs := _same_target(config, paper, target)) is not None:
                ours = config.finetune_of(target.name, name)
                found += _differ(f"models.{name}.finetune on {target.name}", ours, paper.finetune_of(theirs.name, same))
        for method in config.pretrained_of(name):
            found += _differ(f"models.{name}.pretrain", config.pretrain_of(name, method), paper.pretrain_of(same, method))
            found += _differ(f"models.{name}.contrast", config.contrast_of(name, method), paper.contrast_of(same, method))
    return list(dict.fromkeys(found))


def _data(config: Config, paper: Config) -> Iterator[str]:
    """Differences of the data sets and splits, told apart by their formats and not by their names."""
    ours = [config.datasets[name] for name in config.pretrain.datasets]
    theirs = [paper.datasets[name] for name in paper.pretrain.datasets]
    if [d.format for d in ours] != [d.format for d in theirs]:
        yield f"pretrain.datasets: {_said([d.format for d in ours])} (paper: {_said([d.format for d in theirs])})"
    else:
        for name, one, other in zip(config.pretrain.datasets, ours, theirs, strict=True):
            yield from _differ(f"datasets.{name}", one, other, _except(DATA, one))
    yield from _differ("pretrain", config.pretrain, paper.pretrain, _except(("split",), paper.pretrain))
    for target in config.targets:
        one = config.datasets[target.dataset]
        if (same := _same_target(config, paper, target)) is None:
            known = ", ".join(paper.datasets[t.dataset].format for t in paper.targets)
            yield f"targets.{target.name}: {one.format} (paper: {known})"
            continue
        yield from _differ(f"datasets.{target.dataset}", one, paper.datasets[same.dataset], _except(DATA, one))
        yield from _differ(
            f"targets.{target.name}", target, same, _except(("train", "test", "clips", "examples", "per_class"), same)
        )


def _same_target(config: Config, paper: Config, target: Target) -> Target | None:
    """The paper's target with data of the same format; None if the paper has none."""
    format = config.datasets[target.dataset].format
    return next((t for t in paper.targets if paper.datasets[t.dataset].format == format), None)


def _except(kept: tuple[str, ...], section: Any) -> set[str]:
    return set(type(section).model_fields) - set(kept)


def _differ(key: str, ours: Any, theirs: Any, ignored: Any = ()) -> Iterator[str]:
    """One text per value that differs between two sections of the same type."""
    for name in type(ours).model_fields:
        one, other = getattr(ours, name), getattr(theirs, name)
        if name in ignored or one == other:
            continue
        if type(one) is type(other) and hasattr(type(one), "model_fields"):
            yield from _differ(f"{key}.{name}", one, other, SAME_BITS)
        else:
            yield f"{key}.{name}: {_said(one)} (paper: {_said(other)})"


def _said(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(str, value)) + "]"
    return "set" if hasattr(type(value), "model_fields") else str(value)
