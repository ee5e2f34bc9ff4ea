"""Targets: the data sets on which every pretrained backbone is tested, and what is measured there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mscl.config.datasets import Name, Positive
from mscl.config.measures import FINETUNE, LINEAR, TRAINED, distinct, known_measure
from mscl.config.recipes import FinetuneChanges
from mscl.config.validation import Strict, number

Measures = Annotated[tuple[Annotated[str, AfterValidator(known_measure)], ...], AfterValidator(distinct)]


class Few(Strict):
    """A few training videos instead of all: `examples` in all, balanced over the classes, or `per_class` of each class."""

    examples: int | None = None
    per_class: int | None = None
    draw: Positive = 1  # which of several independent draws

    @property
    def said(self) -> str:
        """The setting as written."""
        return f"examples: {self.examples}" if self.examples else f"per_class: {self.per_class}"


class Target(Strict):
    """A data set on which every pretrained backbone is tested, and what is measured there.

    In a configuration, `folds: [1, 2, 3]` stands for one target per fold, and `draws: 3` for one per draw of a few training videos;
    the tables show their mean.
    """

    name: Name = ""  # in paths and tables; default: that of the data set
    dataset: Name
    fold: Annotated[Literal[1, 2, 3], BeforeValidator(number)] | None = None  # official split; default: that of the data set
    folds_of: str = ""  # set by `folds`: the name of the target that this is one fold of
    train: str = "train"
    test: str = "validation"
    examples: Annotated[int, Field(ge=2)] | None = None  # train on so many videos in all, balanced over the classes; default: all
    per_class: Positive | None = None  # or on so many of each class
    draw: Positive = 1  # which draw of these videos
    draws_of: str = ""  # set by `draws`: the name of the target that this is one draw of
    measures: Measures = (FINETUNE, "probe", "retrieval")  # finetuning, linear evaluation, and measures of the frozen features
    clips: Positive = 1  # uniform clips per video whose features are averaged for the measures of the frozen features
    finetune: FinetuneChanges = FinetuneChanges()  # changes to the recipe of every model
    models: dict[Name, FinetuneChanges] = {}  # model -> further changes
    linear: FinetuneChanges = FinetuneChanges()  # changes to the recipe of linear evaluation of every model

    @model_validator(mode="before")
    @classmethod
    def named(cls, values: Any) -> Any:
        return {"name": values.get("dataset")} | values if isinstance(values, dict) else values

    @model_validator(mode="after")
    def possible(self) -> Target:
        if not self.measures:
            raise ValueError("measures: name at least one, such as finetune or probe, or remove the target")
        if self.train == self.test:
            raise ValueError(f"test: '{self.test}' is also train; test on another split, or add one by holdout")
        if self.examples and self.per_class:
            raise ValueError("per_class: examples is also given; remove one of the two")
        if not (self.examples or self.per_class) and (self.draw > 1 or self.draws_of):
            raise ValueError("draw: all training videos are used; add examples or per_class, or remove this key")
        return self

    @property
    def finetuned(self) -> bool:
        """Whether backbones are finetuned on it."""
        return FINETUNE in self.measures

    @property
    def linear_evaluated(self) -> bool:
        """Whether linear classifiers are trained on clips of it, on frozen backbones."""
        return LINEAR in self.measures

    @property
    def frozen(self) -> tuple[str, ...]:
        """The measures of frozen features."""
        return tuple(name for name in self.measures if name not in TRAINED)

    @property
    def shown(self) -> str:
        """Its name in lists; the draws of a target have one name."""
        return self.draws_of or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """What a configuration may call it: its own name, and the common ones of its draws and its folds."""
        return tuple(name for name in (self.name, self.draws_of, self.folds_of) if name)

    @property
    def few(self) -> Few | None:
        """The few training videos that are used; None for all."""
        few = self.examples or self.per_class
        return Few(examples=self.examples, per_class=self.per_class, draw=self.draw) if few else None


def expanded(target: Any) -> list[Any]:
    """A target as given, or one per official split if it has `folds`, and per draw if it has several `draws`."""
    return [one for fold in _each_fold(target) for one in _each_draw(fold)]


def _each_fold(target: Any) -> list[Any]:
    if not isinstance(target, dict) or not isinstance(target.get("folds"), list | tuple) or not target["folds"]:
        return [target]
    given = {key: value for key, value in target.items() if key != "folds"}
    name = given.get("name") or given.get("dataset")
    return [given | {"name": f"{name}-fold{fold}", "folds_of": name, "fold": fold} for fold in target["folds"]]


def _each_draw(target: Any) -> list[Any]:
    if not isinstance(target, dict) or "draws" not in target:
        return [target]
    draws = number(target["draws"])
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"targets: draws: {draws!r} is not a number of draws; give a whole number from 1, or remove this key")
    given = {key: value for key, value in target.items() if key != "draws"}
    name = given.get("name") or given.get("dataset")
    if not {"examples", "per_class"} & set(given):
        raise ValueError(
            f"targets: draws: target '{name}' uses all training videos; add examples or per_class, or remove this key"
        )
    if draws == 1:
        return [given | {"draw": 1}]
    return [given | {"name": f"{name}-draw{draw}", "draws_of": name, "draw": draw} for draw in range(1, draws + 1)]
