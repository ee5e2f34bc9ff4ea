"""A finished run of the whole workflow at the smallest size, made once for all tests that look at one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, tiny_config

CODE = ("Snakefile", "workflow", "mscl", "slurm", "config", "README.md")


def run_snakemake(folder: Path, *arguments, config: dict | None = None, **options) -> subprocess.CompletedProcess:
    """Run the copy of the workflow that lies in `folder`, there, with `config` as its whole configuration (my.yaml)."""
    if config is not None:
        (folder / "my.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments), "--configfile", "my.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, **options)


def rules_planned(run: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs in a dry run's table; empty where nothing is to be done."""
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    found = re.search(r"Job stats:\n.*?\n-+\s+-+\n(.*?)\ntotal", said, re.S)
    assert found or "Nothing to be done" in said, said
    return {line.split()[0]: int(line.split()[1]) for line in found[1].splitlines()} if found else {}


def copy_code(folder: Path) -> None:
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(folder, config, ids of the validation videos); one validation video was broken and one deleted before extraction.

    The folder holds its own copy of the code and only relative paths, so it may be copied and edited. Do not edit this one.
    """
    folder = tmp_path_factory.mktemp("finished")
    copy_code(folder)
    config = tiny_config(Path("."))
    first = run_snakemake(folder, "data/datasets/ss.json", config=config)
    assert first.returncode == 0, first.stdout + first.stderr
    videos = folder / "data/videos/ss/videos"
    ids = [row["id"] for row in json.loads((folder / "data/videos/ss/validation.json").read_text())]
    (videos / f"{ids[0]}.webm").write_bytes(b"not a video")
    (videos / f"{ids[1]}.webm").unlink()
    run = run_snakemake(folder, config=config)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return folder, config, ids
