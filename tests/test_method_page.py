"""docs/method.md ends with a table of facts and the tests that hold them: each of these tests must exist."""

import ast
import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")


def functions(path: str) -> set[str]:
    """Names of the functions at the top of a file; none where there is no such file."""
    if not (file := ROOT / path).is_file():
        return set()
    return {node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists():
    rows = [line for line in PAGE.partition("## How we know")[2].splitlines() if re.match(r"\| \d ", line)]
    assert {row[2] for row in rows} == set("12345678"), "the table has no row of some section"
    named = [re.findall(r"`([^`]+)::([^`]+)`", row) for row in rows]
    assert all(named), "a row of the table names no test"
    absent = [f"{path}::{name}" for row in named for path, name in row if name not in functions(path)]
    assert not absent
