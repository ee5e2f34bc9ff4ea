"""The workflow passes the checks of Snakemake and of its catalog, and its environments have the pins of requirements.lock."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "workflow" / "envs"))
import write as envs  # noqa: E402

BIN = Path(sys.executable).parent


def run(*command) -> str:
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_snakemake_lint_and_snakefmt_find_nothing():
    assert "good condition" in run(BIN / "snakemake", "--lint")
    run(BIN / "snakefmt", "--check", "Snakefile", "workflow")


def rules() -> dict[str, str]:
    """Name -> text of every rule that runs a command."""
    texts = {}
    for path in sorted((ROOT / "workflow").rglob("*.smk")):
        parts = re.split(r"^ *rule (\w+):\n", path.read_text(), flags=re.M)
        texts |= {name: text for name, text in zip(parts[1::2], parts[2::2]) if "shell:" in text}
    return texts


def test_every_rule_has_a_log_a_measurement_an_environment_and_a_size():
    found = rules()
    assert len(found) == 15
    for name, text in found.items():
        for directive in ("log:", "benchmark:", "conda:", "resources:", "mem_mb=", "runtime=", "message:", "| keep "):
            assert directive in text, f"rule {name} has no {directive}"


def test_the_environments_are_those_of_the_lock():
    written = (ROOT / "workflow/envs/mscl.yaml").read_text()
    assert written == envs.text(), "requirements.lock has changed: run python workflow/envs/write.py"
    names = envs.needed()
    assert {"torch", "pydantic", "decord", "captum", "jinja2"} <= names and not {"snakemake", "dvc", "pytest"} & names
    conda = [d for d in yaml.safe_load(written)["dependencies"] if isinstance(d, str)]
    by_hand = [d for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(d, str)]
    assert conda == by_hand
    assert "requirements.lock" in (ROOT / "workflow/envs/mscl.def").read_text()


def test_the_catalog_finds_the_files_it_requires():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["mandatory-flags"]["desc"] and usage["mandatory-flags"]["flags"]
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["report"] is True
    for needed in (
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "workflow/Snakefile",
        "workflow/report/workflow.rst",
        "config/README.md",
        "config.yaml",
    ):
        assert (ROOT / needed).is_file(), needed
    for path in ROOT.glob("config/*.yaml"):
        assert f"`config/{path.name}`" in (ROOT / "config/README.md").read_text(), path


def test_the_diagram_of_the_workflow_shows_every_rule_and_edge():
    """The diagram in docs/workflow.md is that of `snakemake --rulegraph` for a configuration with every rule except download."""
    few = "{dataset: motion_ssv2, name: few, per_class: 1, measures: [finetune, linear, probe]}"
    targets = f"targets=[{{dataset: motion_ssv2, clips: 2}}, {few}]"  # of which one stores features, and one extracts its own
    theirs = "method_settings={theirs: {weights: {r18: {file: w.pth, trained_on: labels}}}}"
    methods = "methods=[scratch, moco, baseline, mscl, theirs]"
    said = run(BIN / "snakemake", "--rulegraph", "mermaid-js", "--config", targets, methods, theirs)
    names = {key: name for key, name in re.findall(r"(id\d+)\[(\w+)\]", said)}
    edges = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", said)}
    page = (ROOT / "docs/workflow.md").read_text()
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)", page, re.M))
    assert edges and edges == {edge for edge in drawn if "download" not in edge}
    for name in rules():
        assert re.search(rf"\b{name}\[", page), f"docs/workflow.md does not draw rule {name}"
