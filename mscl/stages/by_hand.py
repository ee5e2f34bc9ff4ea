"""A training run that is started by hand, outside the workflow: `mscl job`."""

from __future__ import annotations

from pathlib import Path

from mscl.config.schema import Config
from mscl.stages.jobs import dumps
from mscl.stages.layout import Layout
from mscl.stages.table import STAGES


def by_hand(config: Config, stage: str, model: str, method: str, seed: int, target: str = "") -> tuple[str, str, str]:
    """For a training run started by hand: the folder of its results, the folder of its run card, and its job as JSON.

    `target` is that of a finetuning or a linear evaluation; without it the first of the model.

    Raises ValueError when `stage` is not a training stage or the configuration has no such run.
    """
    if stage not in ("pretrain", "finetune", "linear"):
        raise ValueError(f"unknown training stage '{stage}'; use pretrain, finetune or linear")
    asked_for = config.linear_targets if stage == "linear" else config.finetuned_targets
    targets = [found.name for found in asked_for]
    own = [found.name for found in config.targets_of(model) if found in asked_for] if model in config.models else []
    target = target or next(iter(own or targets), "")
    asked = {"models": (model, config.models), "methods": (method, config.methods), "seeds": (seed, config.seeds)}
    asked |= {"targets": (target, targets)} if stage != "pretrain" else {}
    for key, (value, known) in asked.items():
        if value not in known:
            raise ValueError(f"{key}: the configuration has no '{value}'; it has {', '.join(map(str, known)) or 'none'}")
    if method not in config.methods_of(model):
        raise ValueError(f"models.{model}.methods: '{method}' does not run with this model; add it there")
    if stage != "pretrain" and target not in own:
        raise ValueError(f"models.{model}.targets: the model is not tested on '{target}'; add it there")
    if stage == "pretrain" and not config.switches(method).pretrain:
        raise ValueError(f"methods: '{method}' has no pretraining")
    run, at = {"model": model, "method": method, "seed": seed}, Layout(config)
    run = {"target": target} | run if stage != "pretrain" else run
    made = STAGES[stage].makes(at, **run)
    return str(Path(made["weights"]).parent), str(Path(made["card"]).parent), dumps(STAGES[stage].settings(config, run))
