"""Module paths `package.module:Name`: how a configuration names code, in this package or in the user's own files.

A module is searched in the working folder first, then on Python's path. Finding a file does not run it, so the workflow can hash
it without importing torch.
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_module_path(text: str) -> bool:
    """Whether a text has the form `package.module:Name`."""
    return PATTERN.fullmatch(text) is not None


def module_of(path: str) -> str:
    """The module of `package.module:Name`."""
    return path.partition(":")[0]


def find_source(module: str) -> Path | None:
    """The file of a module, found without importing it; None if there is none."""
    places, spec = ["", *sys.path], None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def load(path: str) -> Any:
    """Import the object `package.module:Name`. Raises ValueError when there is no such module or name."""
    module, _, name = path.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if find_source(module) is None:
        raise ValueError(
            f"{path}: no module '{module}' in {Path.cwd()} or on Python's path; correct the name or add its folder to PYTHONPATH"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError:
        raise ValueError(f"{path}: {find_source(module)} has no '{name}'; correct the name after the colon") from None


def refuse_unknown(what: str, name: str, known: list[str]) -> None:
    """Raise ValueError unless `name` is in `known` or is the module path of an existing file."""
    if name in known:
        return
    if not is_module_path(name):
        from mscl.config.validation import did_you_mean

        raise ValueError(f"unknown {what} '{name}'{did_you_mean(name, known)}, or give your own as package.module:Name")
    if find_source(module_of(name)) is None:
        raise ValueError(f"{what} '{name}': no module '{module_of(name)}' in {Path.cwd()} or on Python's path")
