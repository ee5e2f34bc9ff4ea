"""Configurations put together as Snakemake does: a file, over config.yaml if it is only a part, then key=value pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mscl.config.validation import ConfigError, parse_yaml, read_yaml

DEFAULT = Path("config.yaml")  # below the working folder
NULL = ("null", "~")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; sections are merged key by key, anything else is replaced."""
    found = dict(base)
    for key, value in changes.items():
        under = found.get(key)
        found[key] = merged(under if isinstance(under, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return found


def read_config(path: Path, pairs: Iterable[str] = ()) -> dict[str, Any]:
    """The values of a configuration file with `pairs` (key=value, the value as YAML). Raises `ConfigError` for an unreadable one."""
    values = _section(read_yaml(path), path)
    if "name" not in values and Path(path) != DEFAULT and DEFAULT.exists():
        values = merged(_section(read_yaml(DEFAULT), DEFAULT), values)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--config: '{pair}' is not key=value with a key of the first level; write for example seeds=[0,1]")
        values = merged(values, {key: parse_yaml(text, f"--config {key}")})
    return values


def read_words(words: Iterable[str]) -> tuple[Path, dict[str, Any]]:
    """The file that a command line names (one word without =; none: config.yaml), and its values with the key=value pairs."""
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(f"{files[1]}: a second configuration file; give one at a time")
    path = Path(files[0]) if files else DEFAULT
    return path, read_config(path, [word for word in words if "=" in word])


def _section(values: Any, path: Path) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: expected keys and values, found {type(values).__name__}; write one section per line as in config.yaml"
        )
    return values


def from_snakemake(values: Any) -> Any:
    """Values with the text null as None: below the first level, Snakemake's --config reads every value as text."""
    if isinstance(values, Mapping):
        return {key: from_snakemake(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [from_snakemake(value) for value in values]
    return None if isinstance(values, str) and values in NULL else values
