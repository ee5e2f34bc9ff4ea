"""Other people's weights as a method: a file for each model, and what is known about it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from mscl.config.limits import Place
from mscl.config.validation import Strict, did_you_mean

if TYPE_CHECKING:
    from mscl.config.schema import Config
    from mscl.config.settings import MethodSettings

Percent = Annotated[float, Field(ge=0, le=100)]
Above0 = Annotated[float, Field(gt=0)]


class ForeignWeights(Strict):
    """A file of weights that somebody else trained, for one model."""

    file: Place  # .safetensors, or a state dict of torch.save
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # of the file, which is refused if it has another
    trained_on: Annotated[str, Field(min_length=1)]  # data and labels, shown in Table 1
    published: Percent | dict[str, Percent] | None = None  # top-1 % after finetuning on the only target; or target -> top-1 %
    source: str = ""  # where `published` and the file are from
    mean: tuple[float, float, float] | None = (
        None  # of the clips that it was trained with, in [0, 1]; default: as the file says, else ImageNet's
    )
    std: tuple[Above0, Above0, Above0] | None = None

    @model_validator(mode="after")
    def possible(self) -> ForeignWeights:
        if self.published is not None and not self.source:
            raise ValueError("source: a published number needs its source; add it, or remove published")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"{'std' if self.std is None else 'mean'}: mean and std belong together; give both or none")
        return self

    def published_on(self, target: str, fold: bool) -> float | None:
        """The published top-1 on a target, in percent, None if none is known; a `fold` has only a number of its own."""
        if isinstance(self.published, dict):
            return self.published.get(target)
        return None if fold else self.published


def _per_model(values: Any) -> Any:
    if isinstance(values, dict) and "file" in values:
        raise ValueError("give the file per model, as in weights: {r18: {file: …, trained_on: …}}")
    return values


PerModel = Annotated[dict[str, ForeignWeights], BeforeValidator(_per_model)]  # model -> weights


def check_alone(own: MethodSettings) -> None:
    """Check that a method of others' weights has no settings of a pretraining. Raises ValueError that names the key."""
    fields = type(own).model_fields
    for key in ("like", "switches", "contrast", "pretrain", "augment"):
        if own.weights and getattr(own, key) != fields[key].default:
            raise ValueError(f"{key}: others' weights are not pretrained here; remove this key, or weights")


def check_foreign(config: Config, built_in: Collection[str]) -> None:
    """Check that every model that runs it has a file, and that models and targets exist. Raises ValueError that names the key."""
    targets = {name for t in config.finetuned_targets for name in t.names}
    single = {t.folds_of or t.shown for t in config.finetuned_targets}
    for method, own in config.method_settings.items():
        key = f"method_settings.{method}"
        if own.weights and method in built_in:
            raise ValueError(f"{key}.weights: '{method}' is a built-in method; give yours another name")
        for model, given in (own.weights or {}).items():
            if model not in config.models:
                raise ValueError(f"{key}.weights: no model '{model}'{did_you_mean(model, list(config.models))}")
            for name in given.published if isinstance(given.published, dict) else ():
                if not targets:
                    raise ValueError(
                        f"{key}.weights.{model}.published: no target is finetuned; remove it, or add finetune to the measures of a target"
                    )
                if name not in targets:
                    raise ValueError(
                        f"{key}.weights.{model}.published: no finetuned target '{name}'{did_you_mean(name, sorted(targets))}"
                    )
            if isinstance(given.published, float) and len(single) != 1:
                cure = f"say which one the number is of, as in {{{min(single)}: {given.published:g}}}" if single else "remove it"
                raise ValueError(f"{key}.weights.{model}.published: {len(single) or 'no'} targets are finetuned; {cure}")
        for model in config.models if own.weights else ():
            if method in config.methods_of(model) and model not in own.weights:
                raise ValueError(
                    f"{key}.weights: no file for model '{model}'; add {key}.weights.{model}, or leave {method} out of models.{model}.methods"
                )


def foreign_of(config: Config) -> Iterator[tuple[str, str, ForeignWeights]]:
    """(model, method, weights) of each file that the configuration runs."""
    for model in config.models:
        for method in config.methods_of(model):
            if (found := config.foreign(model, method)) is not None:
                yield model, method, found
