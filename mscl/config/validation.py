"""Turns each wrong setting into a sentence that names the key, the problem and the fix.

Imports only pydantic and PyYAML, so that the Snakefile can validate without loading torch.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model


class ConfigError(ValueError):
    """The configuration is not valid. The text names the key, the problem and the fix."""


class Strict(BaseModel):
    """A frozen section of settings that does not allow unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def partial(model: type[Strict]) -> type[Strict]:
    """A model with the same keys and checks, in which every key is optional and is None if not given."""
    fields = {}
    for name, field in model.model_fields.items():
        annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        fields[name] = (annotation | None, None)
    return create_model(f"{model.__name__}Changes", __base__=Strict, **fields)


def did_you_mean(word: str, known: list[str]) -> str:
    """The end of a message on an unknown word: the most similar known word, else all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"


PLAIN = {"tuple_type": "give a list, as in [one, two]", "dict_type": "give keys and values", "model_type": "give keys and values"}


def _model_in(annotation: Any) -> Any:
    """The model class inside an annotation such as dict[Name, Model] | None; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in typing.get_args(annotation) if (m := _model_in(a))), None)


def _fields_at(model: Any, loc: tuple) -> list[str]:
    """The allowed keys at the place `loc` of an unknown key, found by following `loc` through `model`."""
    for part in loc[:-1]:
        if part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _sentence(model: Any, error: dict) -> str:
    """One sentence for one error of pydantic."""
    key = ".".join(str(p) for p in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(str(error['loc'][-1]), _fields_at(model, error['loc']))}"
    if error["type"] == "missing":
        return f"{key}: missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error" and not key:
        return message
    if error["type"] == "value_error":  # raised by our own check; the sentence may start with a key of that section
        return f"{key}{'.' if re.match(r'[a-z_0-9.]+: ', message) else ': '}{message}"
    message = PLAIN.get(error["type"], message[0].lower() + message[1:])
    return f"{key}: {message} (got {error['input']!r})"


def parse(model: type[BaseModel], values: Any, where: str) -> Any:
    """Validate `values` as `model`. Raises `ConfigError` with one sentence per mistake, each starting with `where`."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected keys and values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        places = [e["loc"] for e in error.errors()]
        # Pydantic also reports a list with a wrong item as too short; the sentence on the item is enough.
        shown = [e for e in error.errors() if not any(p != e["loc"] and p[: len(e["loc"])] == e["loc"] for p in places)]
        raise ConfigError("\n".join(f"{where}: {_sentence(model, e)}" for e in shown)) from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice in one section; YAML itself keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                break  # the parent class reports it
            if key in lines:
                raise ConfigError(f"lines {lines[key]} and {line} both have the key '{key}'; keep one of them")
            lines[key] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file. Raises `ConfigError` with the file and the line when it cannot be read or gives a key twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable YAML: {' '.join(str(error).split())}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML text. Raises `ConfigError` that starts with `where` when it is not YAML or gives a key twice."""
    try:
        return yaml.load(text, _Loader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not readable YAML: it is nested too deeply; is it a configuration?") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not readable YAML: {' '.join(str(error).split())}") from None


def number(value: Any) -> Any:
    """A text that is a number or a truth value, as this value; Snakemake's --config gives values in sections as text."""
    if not isinstance(value, str):
        return value
    found = yaml.safe_load(value) if re.fullmatch(r"[-+.\w]+", value) else value
    return found if isinstance(found, bool | int | float) else value
