"""What must hold between the sections of a configuration: that what one names another has, and that numbers divide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mscl.config.foreign import check_foreign
from mscl.config.limits import check_limits
from mscl.config.methods import METHODS
from mscl.config.recipes import Optim
from mscl.config.settings import Contrast
from mscl.config.validation import did_you_mean

if TYPE_CHECKING:
    from mscl.config.schema import Config


def check_config(config: Config) -> None:
    """Check a whole configuration. Raises ValueError with a sentence that begins with the setting."""
    for key in ("seeds", "methods"):
        if len(set(getattr(config, key))) < len(getattr(config, key)):
            raise ValueError(f"{key}: {list(getattr(config, key))} contains a duplicate")
    _check_methods(config)
    _check_targets(config)
    _check_models(config)
    _check_datasets(config)
    _check_splits(config)
    _check_strides(config)
    check_foreign(config, METHODS)
    for name in config.models:
        _check_batches(config, name)
    check_limits(config)


def _check_methods(config: Config) -> None:
    for name, own in config.method_settings.items():
        if name in METHODS and (own.switches or own.like):
            raise ValueError(f"method_settings: '{name}' is a built-in method; give yours another name")
        if name not in METHODS and not (own.switches or own.like or own.weights):
            raise ValueError(
                f"method_settings.{name}: not a built-in method; add switches, like with the name of a built-in method, or weights"
            )
    known = [*METHODS, *config.method_settings]
    for method in config.methods:
        if method not in known:
            raise ValueError(f"methods: unknown method '{method}'{did_you_mean(method, known)}")


def _check_targets(config: Config) -> None:
    names = [target.name for target in config.targets]
    common = {name for target in config.targets for name in (target.draws_of, target.folds_of)}
    for n, target in enumerate(config.targets):
        if target.name in names[:n] or target.name in common:
            raise ValueError(f"targets.{n}.name: '{target.name}' is the name of another target; give this one a name of its own")
        data = config.datasets.get(target.dataset)
        if target.fold and data and not data.row.folds:
            raise ValueError(f"targets.{n}.fold: the {data.format} format has no folds; remove this key")
        for model in target.models:
            if model not in config.models:
                raise ValueError(f"targets.{n}.models: no model '{model}'{did_you_mean(model, list(config.models))}")


def _check_models(config: Config) -> None:
    """Check the methods and targets that models choose: each exists, and each one of the configuration is used."""
    methods = [*METHODS, *config.method_settings]
    targets = list(dict.fromkeys(name for target in config.targets for name in target.names))
    for name, model in config.models.items():
        for key, chosen, known in (("methods", model.methods, methods), ("targets", model.targets, targets)):
            for one in chosen:
                if one not in known:
                    raise ValueError(f"models.{name}.{key}: no '{one}'{did_you_mean(one, known)}")
        if not config.methods_of(name):
            raise ValueError(f"models.{name}.methods: none of them is under methods; add one there, or remove this model")
    for method in config.methods:
        if not any(method in config.methods_of(name) for name in config.models):
            raise ValueError(f"methods: no model runs '{method}'; add it to models.*.methods, or remove it here")
    for n, target in enumerate(config.targets):
        if not any(target in config.targets_of(name) for name in config.models):
            raise ValueError(f"targets.{n}: no model is tested on '{target.name}'; add it to models.*.targets, or remove it here")


def _check_datasets(config: Config) -> None:
    watched = [config.pretrain.monitor.dataset] if config.pretrain.monitor else []
    for key, names in (
        ("pretrain.datasets", config.pretrain.datasets),
        ("pretrain.monitor.dataset", watched),
        *((f"targets.{n}.dataset", [target.dataset]) for n, target in enumerate(config.targets)),
    ):
        for name in names:
            if name not in config.datasets:
                raise ValueError(f"{key}: no data set '{name}' under datasets{did_you_mean(name, list(config.datasets))}")
    for name in config.pretraining_datasets:
        if config.datasets[name].frames.keep == "none":
            raise ValueError(
                f"datasets.{name}.frames.keep: none is for targets; pretraining on '{name}' computes flow and reads random clips"
                " in every epoch, which needs stored frames: remove this key, or take the data set out of pretrain.datasets"
            )


def _check_batches(config: Config, name: str) -> None:
    """Check that batches can be divided among processes, parts and batch-norm groups, and the queue into batches."""
    for method in config.pretrained_of(name):
        recipe, contrast = config.pretrain_of(name, method), config.contrast_of(name, method)
        if contrast.queue % recipe.batch:
            raise ValueError(f"contrast.queue: {contrast.queue} is not a multiple of models.{name}.pretrain.batch {recipe.batch}")
        _check_parts(f"models.{name}.pretrain", recipe, config.processes_of(name, method))
        if recipe.batch % contrast.bn_groups:
            raise ValueError(
                f"contrast.bn_groups: models.{name}.pretrain.batch {recipe.batch} is not a multiple of {contrast.bn_groups} groups"
            )
        _check_accumulate(config, name, method, recipe, contrast)
        if config.switches(method).family in ("corp-m", "corp-f"):
            _check_corp(name, recipe, contrast)
        if config.clip.frames != 8 and config.switches(method).lmcl:
            raise ValueError(
                "clip.frames: LMCL needs 8 frames, since it pairs 4 time steps of the neck with 4 of the flow network; set 8"
            )
    for target in (target for target in config.targets_of(name) if target.finetuned):
        _check_parts(f"models.{name}.finetune", config.finetune_of(target.name, name), config.compute.processes)
    for target in (target for target in config.targets_of(name) if target.linear_evaluated):
        _check_parts(f"models.{name}.linear", config.linear_of(target.name, name), config.compute.processes)


def _check_accumulate(config: Config, name: str, method: str, recipe: Optim, contrast: Contrast) -> None:
    """Check that each part of a batch contains at least 2 whole batch-norm groups, among which its keys are shuffled."""
    if recipe.accumulate == 1:
        return
    key, parts = f"models.{name}.pretrain.accumulate", config.processes_of(name, method) * recipe.accumulate
    if contrast.bn_groups % parts or contrast.bn_groups // recipe.accumulate < 2:
        raise ValueError(
            f"{key}: contrast.bn_groups {contrast.bn_groups} must be a multiple of {parts} (processes of this run x accumulate), at least"
            f" {2 * recipe.accumulate}, so that each part of a batch contains whole batch-norm groups to shuffle its keys among"
        )
    if config.switches(method).fra == "released":
        raise ValueError(f"{key}: fra: released puts keys into the queue within a step; set accumulate to 1")


def _check_parts(key: str, recipe: Optim, processes: int) -> None:
    if recipe.batch % (parts := processes * recipe.accumulate):
        raise ValueError(f"{key}.batch: {recipe.batch} is not a multiple of {parts} (processes of this run x accumulate)")


def _check_splits(config: Config) -> None:
    wanted = [(d, config.pretrain.split) for d in config.pretrain.datasets]
    wanted += [(target.dataset, split) for target in config.targets for split in (target.train, target.test)]
    if config.pretrain.monitor:
        watched = (config.pretrain.monitor.dataset, config.pretrain.monitor.split)
        wanted.append(watched)
        if watched in [(d, config.pretrain.split) for d in config.pretrain.datasets]:
            raise ValueError(
                f"pretrain.monitor: split '{watched[1]}' of '{watched[0]}' is used for pretraining; give another split"
            )
    if config.pretrain.monitor and watched in [(target.dataset, target.test) for target in config.targets]:
        raise ValueError(
            f"pretrain.monitor: split '{watched[1]}' of '{watched[0]}' is the test split of a target, and the monitor uses its labels"
            " during pretraining; give another split"
        )
    for name, split in wanted:
        if split not in config.datasets[name].splits:
            raise ValueError(
                f"datasets.{name}.annotations: no split '{split}'; it has {', '.join(config.datasets[name].splits) or 'none'}"
            )


def _check_strides(config: Config) -> None:
    if config.mds.stride % config.flow.step:
        raise ValueError(
            f"mds.stride: {config.mds.stride} is not a multiple of flow.step {config.flow.step}, so there are no fields that far apart"
        )
    for name in config.pretrain.datasets:
        step = config.datasets[name].frames.step
        for key, value in (("clip.stride", config.clip.stride), ("flow.gap", config.flow.gap)):
            if value % step:
                raise ValueError(
                    f"{key}: {value} is not a multiple of datasets.{name}.frames.step {step}, so these frames are not stored"
                )
        if config.clip.stride % (step * config.flow.step):
            raise ValueError(
                f"clip.stride: {config.clip.stride} is not a multiple of {step * config.flow.step} (flow.step {config.flow.step} x"
                f" datasets.{name}.frames.step {step}), so not every frame of a clip has a field"
            )


def _check_corp(name: str, recipe: Optim, contrast: Contrast) -> None:
    """Check what CORP needs. Raises ValueError."""
    if contrast.dim % 8:
        raise ValueError(f"contrast.dim: {contrast.dim} is not a multiple of CORP's 8 heads")
    if recipe.batch // recipe.accumulate < 2:
        raise ValueError(
            f"models.{name}.pretrain.accumulate: CORP compares different videos and needs at least 2 videos in each part of a batch"
        )
