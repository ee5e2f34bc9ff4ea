"""Targets: the data sets on which every pretrained backbone is tested, and what is measured there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from mscl.config.datasets import Name, Positive
from mscl.config.measures import FINETUNE, distinct, known_measure
from mscl.config.recipes import FinetuneChanges
from mscl.config.validation import Strict, number

Measures = Annotated[tuple[Annotated[str, AfterValidator(known_measure)], ...], AfterValidator(distinct)]


class Target(Strict):
    """A data set on which every pretrained backbone is tested, and what is measured there.

    In a configuration, `folds: [1, 2, 3]` stands for one target per fold; the tables also show their mean.
    """

    name: Name = ""  # in paths and tables; default: that of the data set
    dataset: Name
    fold: Annotated[Literal[1, 2, 3], BeforeValidator(number)] | None = None  # official split; default: that of the data set
    folds_of: str = ""  # set by `folds`: the name of the target that this is one fold of
    train: str = "train"
    test: str = "validation"
    measures: Measures = (FINETUNE, "probe", "retrieval")  # finetuning, and measures of the frozen features
    clips: Positive = 1  # uniform clips per video whose features are averaged for the measures of the frozen features
    finetune: FinetuneChanges = FinetuneChanges()  # changes to the recipe of every model
    models: dict[Name, FinetuneChanges] = {}  # model -> further changes

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
        return self

    @property
    def finetuned(self) -> bool:
        """Whether backbones are finetuned on it."""
        return FINETUNE in self.measures

    @property
    def frozen(self) -> tuple[str, ...]:
        """The measures of frozen features."""
        return tuple(name for name in self.measures if name != FINETUNE)


def each_fold(target: Any) -> list[Any]:
    """A target as given, or one per fold if it has `folds`."""
    if not isinstance(target, dict) or not isinstance(target.get("folds"), list | tuple) or not target["folds"]:
        return [target]
    given = {key: value for key, value in target.items() if key != "folds"}
    name = given.get("name") or given.get("dataset")
    return [given | {"name": f"{name}-fold{fold}", "folds_of": name, "fold": fold} for fold in target["folds"]]
