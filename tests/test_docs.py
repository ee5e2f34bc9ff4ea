"""The pages hold together: names of code resolve, links lead somewhere, and the README stays short."""

import importlib
import re
from pathlib import Path

import pytest

from mscl.stages.codehash import NEVER_RERUN
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "config/README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [*sorted((ROOT / "mscl").rglob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]
FILES = ("py", "sif", "def", "yaml")  # `mscl.sif` is a file name, not a module
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def called(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def names_in(text: str) -> set[str]:
    """Every dotted name of this package in back ticks; `mscl.x:Name` counts as `mscl.x.Name`."""
    found = re.findall(r"`(mscl(?:\.\w+)+(?::\w+)?)", text)
    return {name.replace(":", ".") for name in found if name.rpartition(".")[2] not in FILES}


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute or a field of one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            fields = getattr(thing, "__annotations__", {})  # a field without a default is no attribute of its class
            if not hasattr(thing, part) and part not in fields:
                return False
            thing = getattr(thing, part, None)
        return True
    return False


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", FENCE.sub("", page.read_text()), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        twin = next(n for n in range(len(found) + 1) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{twin}" if twin else slug)
    return found


def links_in(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text))


def broken_links(page: Path) -> list[str]:
    """The relative links of a page whose file, or heading, does not exist."""
    wrong = []
    for link in links_in(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in slugs(target)):
            wrong.append(link)
    return wrong


def test_names_of_code_resolve():
    found = {
        called(path): [name for name in sorted(names_in(path.read_text())) if not resolves(name)] for path in [*PAGES, *CODE]
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_paths_into_the_package_exist(page):
    paths = re.findall(r"`(mscl/[\w./]+)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_the_index_lists_every_page():
    linked = {link.partition("#")[0] for link in links_in((ROOT / "docs/README.md").read_text())}
    pages = {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}
    assert pages - linked == set()


def test_the_tree_shows_every_room_and_what_reruns_nothing():
    tree = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    never, counted = (set(re.findall(r"^  (\w+)/", part, re.M)) for part in tree.split("\n\n"))
    rooms = {folder.name for folder in (ROOT / "mscl").iterdir() if (folder / "__init__.py").is_file()}
    assert never == set(NEVER_RERUN) and counted == rooms - never


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 100] == []


def test_these_checks_find_what_is_wrong(tmp_path):
    assert names_in("`mscl.training.engine.Run`, `mscl.sif`, `mscl.load_backbone(path)`, `mscl.flow.mds:nothing`") == {
        "mscl.training.engine.Run",
        "mscl.load_backbone",
        "mscl.flow.mds.nothing",
    }
    assert resolves("mscl.training.engine.Run.fit") and resolves("mscl.config.schema.Optim.lr")
    assert not resolves("mscl.flow.mds.nothing") and not resolves("mscl.nothing") and not resolves("mscl.config.schema.Optim.no")
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c!\n[x](#a-b-c) [x](#d) [x](page.md#a-b-c) [x](other.md) [x](https://example.org)\n```\n[x](no.md)\n```\n"
    )
    assert broken_links(page) == ["#d", "other.md"]
