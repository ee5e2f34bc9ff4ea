"""The settings of a job, one by one. The workflow compares them to decide whether a job must run again, and to report why."""

from __future__ import annotations

import json
import typing
from typing import Any

from mscl.config.validation import Strict


def names(kind: type[Strict]) -> tuple[str, ...]:
    """The dotted names of all settings of a class of jobs, such as "optim.lr"; the same for every job of the class."""
    found: list[str] = []
    for name, annotation in typing.get_type_hints(kind).items():
        if name in kind.model_fields:
            section = _section(annotation)
            found += [f"{name}.{inner}" for inner in names(section)] if section else [name]
    return tuple(found)


def lines(job: Strict) -> dict[str, str]:
    """Every setting of a job as name -> line of text: {"optim.lr": "optim.lr = 0.002"}; "" for a default that is not dumped.

    Snakemake compares the set of lines, which has "" in any case (`Rules.code`): such a default is no change.
    """
    values = job.model_dump(mode="json")
    return {name: _line(values, name) for name in names(type(job))}


def _section(annotation: Any) -> type[Strict] | None:
    """The class of a section, also of an optional one; None for a plain value, a list, or a dict of sections."""
    options = typing.get_args(annotation) if typing.get_origin(annotation) not in (tuple, dict, list) else ()
    classes = [a for a in (annotation, *options) if isinstance(a, type) and issubclass(a, Strict)]
    return classes[0] if classes else None


def _line(values: Any, name: str) -> str:
    for part in name.split("."):
        if values is not None and part not in values:
            return ""
        values = None if values is None else values[part]  # all settings of a missing optional section are null
    return f"{name} = {json.dumps(values, sort_keys=True)}"
