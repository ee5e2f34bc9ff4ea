"""Module paths `package.module:Name`: how a configuration names code, in this package or in the user's own files.

A module is searched in the working folder first, then on Python's path. Finding a file does not run it, so the workflow can hash
it without importing torch.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
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
    package, *parts = module.split(".")
    # the working folder first; then every finder, since a package installed with `pip install -e` may lie on no path
    spec = PathFinder.find_spec(package, [""]) or _installed(package)
    for part in parts:
        spec = spec and PathFinder.find_spec(part, list(spec.submodule_search_locations or ()))
    if spec is None:
        return None
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _installed(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # a module that was not imported from a file
        return None


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
    source = find_source(module_of(name))
    if source is None:
        raise ValueError(f"{what} '{name}': no module '{module_of(name)}' in {Path.cwd()} or on Python's path")
    if not may_define(source, name.partition(":")[2]):
        raise ValueError(f"{what} '{name}': {source} has no '{name.partition(':')[2]}'; correct the name after the colon")


def may_define(source: Path, name: str) -> bool:
    """Whether a file binds `name` outside its functions and classes, told without running it; True where that cannot be told."""
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):  # reported when it is imported
        return True
    bound: set[str] = set()
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            bound |= {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
            todo += ast.iter_child_nodes(node)
    return bool(bound & {name, "*", "__getattr__"})
