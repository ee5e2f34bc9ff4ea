"""Content hashes of the code that a stage runs, so that an edit of the code reruns the stages that use it.

The hashes cover the module that a stage starts from, the modules named by its settings (the network of a method, a backbone, a
measure, a format), and everything that these import from this package or from the user's own files. A file is hashed as a syntax
tree without docstrings, so comments and formatting do not count. Within this package the room of a module (the folder directly
below `mscl/`) decides whether an edit counts: see NEVER_RERUN.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

from mscl.config.module_path import find_source

ROOT = Path(__file__).resolve().parents[2]
# Rooms whose edits rerun no job: they only set values of a job, which are compared themselves, or they do not change a result.
NEVER_RERUN = ("cli", "config", "machine", "planning", "stages", "watch")


def counts(module: str) -> bool:
    """Whether an edit of this module reruns the stages that import it."""
    package, *rooms = module.split(".")
    return package != "mscl" or (bool(rooms) and rooms[0] not in NEVER_RERUN)


def source_of(module: str, root: Path = ROOT) -> Path | None:
    """The file of a module: below `root` for this package, else in the working folder or on Python's path. None if not found."""
    if module.split(".")[0] != "mscl":
        return find_source(module)
    base = root.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _strip_docstrings(nodes: list[ast.AST]) -> None:
    for node in nodes:
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            del body[0]


def _imports(nodes: list[ast.AST]) -> Iterator[str]:
    """Every module that the nodes of a syntax tree may import. Some of the names may be functions or classes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)


def _read(path: Path) -> tuple[str, frozenset[str]]:
    """Hash of the syntax tree of a file without docstrings, and the names that it imports. Cached until the file changes."""
    state = path.stat()
    return _parsed(path, state.st_mtime_ns, state.st_size)


@functools.cache
def _parsed(path: Path, changed: int, size: int) -> tuple[str, frozenset[str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    _strip_docstrings(nodes)
    return _digest(ast.dump(tree)), frozenset(_imports(nodes))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def modules(root: Path, *starts: str, everything: bool = False) -> dict[str, Path]:
    """Module -> file, for `starts` and all modules that they import, directly or not.

    Modules of this package, of the user's own package, and files beside the user's file are followed; installed packages are not.
    Only modules whose edit reruns a job are returned, unless `everything` is set.
    """
    folders = {folder for start in starts if (folder := _own_folder(start)) is not None}
    found: dict[str, Path] = {}
    todo = list(starts)
    while todo:
        module = todo.pop()
        package = module.split(".")[0]
        ours = package == "mscl" or any((folder / f"{package}.py").is_file() or (folder / package).is_dir() for folder in folders)
        if module in found or not ours or not (everything or counts(module)):
            continue
        if (path := source_of(module, root)) is not None:
            found[module] = path
            todo += _read(path)[1]
    return found


def _own_folder(start: str) -> Path | None:
    """The folder that contains the user's file or package; None for this package and for installed ones."""
    package = start.split(".")[0]
    source = None if package == "mscl" else find_source(package)
    if source is None or {"site-packages", "dist-packages"} & set(source.parts):
        return None
    return source.parent.parent if source.name == "__init__.py" else source.parent


def _name(path: Path, root: Path) -> str:
    """The path of a file in run cards and dry runs: relative to `root` or to the working folder, if the file is below one of them."""
    for folder in (root, Path.cwd()):
        if path.resolve().is_relative_to(folder.resolve()):
            return path.resolve().relative_to(folder.resolve()).as_posix()
    return path.as_posix()


def file_hashes(*starts: str, files: tuple[str, ...] = (), root: Path = ROOT) -> dict[str, str]:
    """Path -> hash (12 hex digits) of each module of `starts`, of all that they import, and of further `files`."""
    found = {_name(path, root): _read(path)[0] for path in modules(root, *starts).values()}
    found |= {f: _digest((root / f).read_text(encoding="utf-8")) for f in files}
    return dict(sorted(found.items()))


def code_hash(*starts: str, files: tuple[str, ...] = (), root: Path = ROOT) -> str:
    """All of `file_hashes` as one hash of 12 hex digits."""
    return _digest("".join(f"{path}={value}\n" for path, value in file_hashes(*starts, files=files, root=root).items()))
