"""The typed, validated configuration.

One YAML file describes one whole experiment (`config.yaml`: the demo; `config/paper.yaml`: the paper). `load_config` returns a
`Config`, or raises `ConfigError` with one sentence per mistake. Lengths in time are in frames of the original video unless a
comment says otherwise. This module imports only pydantic and PyYAML, so that the Snakefile can validate without loading torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mscl.config.checks import check_config
from mscl.config.datasets import Dataset, Name
from mscl.config.foreign import ForeignWeights
from mscl.config.methods import METHODS, Switches
from mscl.config.recipes import LINEAR, Finetune, FinetuneChanges, Optim
from mscl.config.settings import (
    Analysis,
    Augment,
    ClipConfig,
    Compute,
    Contrast,
    FlowConfig,
    MDSConfig,
    MethodSettings,
    Model,
    Paths,
    Use,
)
from mscl.config.targets import Target, expanded
from mscl.config.validation import Strict, parse, read_yaml


class Config(Strict):
    """The configuration of one experiment."""

    name: Name
    kind: Literal["demo", "evidence", "real", "paper"]  # printed on every table
    paths: Paths
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(min_length=1)
    methods: tuple[Name, ...] = Field(min_length=1)
    method_settings: dict[Name, MethodSettings] = {}  # further methods, and changes for built-in ones
    datasets: dict[Name, Dataset]
    flow: FlowConfig = FlowConfig()
    mds: MDSConfig = MDSConfig()
    clip: ClipConfig = ClipConfig()
    augment: Augment = Augment()
    contrast: Contrast = Contrast()
    pretrain: Use
    targets: tuple[Target, ...] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)
    analysis: Analysis = Analysis()
    compute: Compute = Compute()

    def switches(self, method: str) -> Switches:
        """The switches of a method."""
        own = self.method_settings.get(method)
        if own is None or method in METHODS:
            return METHODS[method].switches
        if own.weights:
            return Switches(pretrain=False)
        return METHODS[own.like].switches if own.like else own.switches

    def foreign(self, model: str, method: str) -> ForeignWeights | None:
        """Others' weights that a method takes for a model; None for a method of this pipeline."""
        own = self.method_settings.get(method)
        return own.weights[model] if own and own.weights else None

    def title(self, method: str) -> str:
        """The name of a method in tables and figures."""
        own = self.method_settings.get(method)
        if own and own.title:
            return own.title
        if method in METHODS and METHODS[method].title:
            return METHODS[method].title
        return method

    def contrast_of(self, model: str, method: str) -> Contrast:
        """The settings `contrast` of a method on a model: with the changes of the model, then those of the method."""
        own = self.method_settings.get(method, MethodSettings())
        return changed(changed(self.contrast, self.models[model].contrast), own.contrast)

    def augment_of(self, method: str) -> Augment:
        """The settings `augment` of a method: with the changes of the built-in method, then those of `method_settings`."""
        named = METHODS[method].augment if method in METHODS else {}
        own = self.method_settings.get(method, MethodSettings())
        return changed(self.augment.model_copy(update=named), own.augment)

    def pretrain_of(self, model: str, method: str) -> Optim:
        """The pretraining recipe of a method on a model: that of the model, with the changes of the method."""
        own = self.method_settings.get(method, MethodSettings())
        return changed(self.models[model].pretrain, own.pretrain)

    def folds(self, dataset: str) -> tuple[int, ...]:
        """The folds of a data set that targets ask for, besides its own."""
        asked = {target.fold for target in self.targets if target.dataset == dataset and target.fold}
        return tuple(sorted(asked - {self.datasets[dataset].fold}))

    def target(self, name: str) -> Target:
        """The target of this name."""
        return next(target for target in self.targets if target.name == name)

    @property
    def finetuned_targets(self) -> list[Target]:
        """The targets on which backbones are finetuned."""
        return [target for target in self.targets if target.finetuned]

    def draws_of(self, target: Target) -> list[Target]:
        """A target with the other draws of its few training videos; alone if it is no draw of several."""
        return [other for other in self.targets if other.shown == target.shown and other.draws_of == target.draws_of]

    def finetune_of(self, target: str, model: str) -> Finetune:
        """The recipe of finetuning a model on a target: that of the model, with the changes of the target."""
        own = self.target(target)
        return changed(changed(self.models[model].finetune, own.finetune), own.models.get(model, FinetuneChanges()))

    @property
    def analysed_targets(self) -> list[Target]:
        """The targets with confused pairs and GradCAM: those of finetuning; of several draws of few training videos the first."""
        return [target for target in self.finetuned_targets if target.draw == 1 or not target.draws_of]

    @property
    def linear_targets(self) -> list[Target]:
        """The targets on which linear classifiers are trained on clips, on frozen backbones."""
        return [target for target in self.targets if target.linear_evaluated]

    def linear_of(self, target: str, model: str) -> Finetune:
        """The recipe of linear evaluation: that of finetuning with the changes of `LINEAR`, then of the model, then of the target."""
        usual = self.finetune_of(target, model).model_copy(update=LINEAR)
        return changed(changed(usual, self.models[model].linear), self.target(target).linear)

    def processes_of(self, model: str, method: str) -> int:
        """Processes of a pretraining: `compute.processes`, or fewer if the batch-norm groups cannot be divided among that number.

        A process holds whole groups, so 4 groups use 4 of 8 GPUs, and another training can use the rest. With one group, each
        process is a group.
        """
        groups = self.contrast_of(model, method).bn_groups
        return self.compute.processes if groups == 1 else max(n for n in range(1, self.compute.processes + 1) if groups % n == 0)

    @property
    def pretrained_methods(self) -> list[str]:
        """The methods with pretraining, in the order of the configuration."""
        return [m for m in self.methods if self.switches(m).pretrain]

    @property
    def pretraining_datasets(self) -> tuple[str, ...]:
        """The data sets that pretraining reads: none where no method is pretrained here."""
        return self.pretrain.datasets if self.pretrained_methods else ()

    def methods_of(self, model: str) -> list[str]:
        """The methods that run with a model, in the order of the configuration."""
        chosen = self.models[model].methods
        return [method for method in self.methods if not chosen or method in chosen]

    def pretrained_of(self, model: str) -> list[str]:
        """The methods of a model that have a pretraining."""
        return [method for method in self.methods_of(model) if self.switches(method).pretrain]

    def targets_of(self, model: str) -> list[Target]:
        """The targets on which a model is tested, in the order of the configuration."""
        chosen = self.models[model].targets
        return [target for target in self.targets if not chosen or set(target.names) & set(chosen)]

    @model_validator(mode="before")
    @classmethod
    def renamed(cls, values: Any) -> Any:
        """Say how settings of an earlier version are written now."""
        if isinstance(values, dict) and "finetune" in values:
            old = values["finetune"] if isinstance(values["finetune"], dict) else {}
            now = ", ".join(f"{key}: {old[key]}" for key in ("dataset", "train", "test") if key in old)
            raise ValueError(f"finetune: there may be several targets now; write targets: [{{{now}}}] instead")
        if isinstance(values, dict) and isinstance(values.get("targets"), list | tuple):
            values = values | {"targets": [one for target in values["targets"] for one in expanded(target)]}
        analysis = values.get("analysis") if isinstance(values, dict) else None
        for key in ("measures", "clips") if isinstance(analysis, dict) else ():
            if key in analysis:
                raise ValueError(
                    f"analysis.{key}: belongs to a target now; write it under targets (measures also lists finetune)"
                )
        return values

    @model_validator(mode="after")
    def possible(self) -> Config:
        check_config(self)
        return self


def changed(settings: Strict, changes: Strict) -> Strict:
    """A copy of `settings` with the values given in `changes`."""
    return settings.model_copy(update={key: value for key, value in changes if value is not None})


def load_config(source: str | Path | dict, where: str = "configuration") -> Config:
    """Load a whole configuration from the path of a YAML file or from Snakemake's merged dict.

    Raises `ConfigError` with one sentence per mistake; `where` names the source of a dict in these sentences.
    """
    if isinstance(source, dict):
        return parse(Config, source, where)
    return parse(Config, read_yaml(source), str(source))
