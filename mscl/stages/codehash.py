"""A content hash of the part of the package that a stage runs, so that an edit reruns what it touches.

The hash covers a module and every `mscl` module it imports, as syntax trees without docstrings:
comments and formatting change nothing. Settings and plumbing are left out: their values reach a
stage through its job, whose settings are parameters of its rule. So is what only shows how a run goes.
"""

import ast
import functools
import hashlib
from pathlib import Path

from mscl.config.methods import Family, modules_of_others

ROOT = Path(__file__).resolve().parents[2]
# Rooms (folders of the package) whose edit reruns no job: what they decide reaches a stage as a value of its job, or is no result.
NEVER_RERUN = ("cli", "config", "machine", "planning", "stages", "watch")


def counts(module: str) -> bool:
    """Whether an edit of a module reruns the stages that import it: its room decides."""
    room = module.split(".")[1:2]
    return bool(room) and room[0] not in NEVER_RERUN


def _path(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return {m for m in found if m.split(".")[0] == "mscl"}


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(getattr(body[0], "value", None), ast.Constant)
        ):
            del body[0]


@functools.cache
def _module(root: Path, module: str) -> tuple[str, frozenset[str]]:
    tree = ast.parse(_path(root, module).read_text())
    _strip_docstrings(tree)
    return ast.dump(tree), frozenset(_imports(tree))


def modules(root: Path, *starts: str, everything: bool = False, family: Family | None = None) -> dict[str, str]:
    """`starts` and every module they import below `root`/mscl, with their stripped syntax trees.

    With a `family` of methods, without what belongs to other families alone.
    """
    without = modules_of_others(family) if family else frozenset()
    seen, todo = {}, list(starts)
    while todo:
        module = todo.pop()
        if module in seen or module in without or not (everything or counts(module)) or _path(root, module) is None:
            continue
        seen[module], imports = _module(root, module)
        todo += imports
    return seen


def file_hashes(*starts: str, files: tuple[str, ...] = (), root: Path = ROOT, family: Family | None = None) -> dict[str, str]:
    """Hash of each module of `starts` and all they import, and of further `files` (templates, tables), by path below `root`."""
    texts = {_path(root, m).relative_to(root).as_posix(): text for m, text in modules(root, *starts, family=family).items()}
    texts |= {f: (root / f).read_text() for f in files}
    return {path: hashlib.sha256(texts[path].encode()).hexdigest()[:12] for path in sorted(texts)}


def code_hash(*starts: str, files: tuple[str, ...] = (), root: Path = ROOT, family: Family | None = None) -> str:
    """Hash of the modules `starts`, all they import, and further `files` (templates, tables) below `root`."""
    seen = modules(root, *starts, family=family)
    text = "".join(seen[m] for m in sorted(seen)) + "".join((root / f).read_text() for f in files)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
