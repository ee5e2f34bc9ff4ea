"""A configuration that Snakemake cannot use is one sentence; values on its command line have their types."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def dry(folder, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "all", "-s", ROOT / "Snakefile", "-d", folder, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, cwd=folder)


@pytest.mark.parametrize(("text", "sentence"), [
    (None, "config.yaml: no such file"),
    ("name: [\n", "config.yaml: not readable YAML: while parsing a flow node"),
    ("contrast: {dim: 1}\ncontrast: {dim: 2}\n", "config.yaml: lines 1 and 2 both have the key 'contrast'; keep one of them"),
])  # fmt: skip
def test_a_missing_or_broken_configuration_is_one_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    run = dry(tmp_path)
    said = run.stdout + run.stderr
    assert run.returncode == 1 and sentence in said and "Traceback" not in said


def test_values_on_snakemakes_command_line_have_their_types(tmp_path):
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    run = dry(tmp_path, "--config", "datasets={motion_ssv2: {fold: 1, download: null}}")
    assert run.returncode == 0, run.stdout + run.stderr
