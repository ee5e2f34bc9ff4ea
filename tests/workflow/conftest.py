"""Finished runs at the smallest size, by Snakemake and by DVC in a clone. Each is made once and shared by the tests."""

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, tiny_config
from tests.workflow.warm import Warm

CODE = ("Snakefile", "workflow", "profiles", "mscl", "slurm", "config", "README.md")


def run_snakemake(folder: Path, *arguments, config: dict | None = None, **options) -> subprocess.CompletedProcess:
    """Run the copy of the workflow in `folder`, with `config` as its complete configuration (my.yaml); dry runs start fast."""
    if config is not None:
        (folder / "my.yaml").write_text(yaml.safe_dump(config))
    asked = ["--cores", "2", *map(str, arguments), "--configfile", "my.yaml"]
    if "-n" in asked and not options:
        with tempfile.TemporaryDirectory() as said:
            return warm().run(folder, asked, Path(said))
    command = [sys.executable, "-m", "snakemake", *asked]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, **options)


@functools.cache
def warm() -> Warm:
    """The process that dry runs are copies of; it ends with the tests."""
    process = Warm()
    atexit.register(process.close)
    return process


def rules_planned(run: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs in the table of a dry run; empty when there is nothing to do."""
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
    """(folder, config, ids of the validation videos). One validation video was damaged and one deleted before extraction.

    The folder contains its own copy of the code and only relative paths, so a copy of it may be edited. Do not edit this one.
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


def attempt(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in `folder`, with the programs of this environment first on the path and an author for git."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    author = {f"GIT_{who}_{what}": "nobody@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | author | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)


def run(folder: Path, *command: str, **environment: str) -> str:
    """The same for a command that must succeed. Returns its output."""
    done = attempt(folder, *command, **environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def tiny_clone(folder: Path) -> Path:
    """The files of this checkout that git tracks, in a new repository; the demo's configuration at the tiny size with two methods."""
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "experiments/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    config, tiny = yaml.safe_load((ROOT / "config.yaml").read_text()), tiny_config(Path("."))
    for mine, theirs in (("motion_kinetics", "kin"), ("motion_ssv2", "ss")):
        config["datasets"][mine] |= {k: tiny["datasets"][theirs][k] for k in ("frames", "embedded")}
    config |= {k: tiny[k] for k in ("flow", "clip", "contrast", "models", "compute")} | {"methods": ["scratch", "mscl"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run(folder, "git", "init", "-q")
    commit(folder, "the code")
    return folder


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", message)


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory) -> Path:
    """The tiny clone after `dvc repro`, with dvc.lock in git. Tests do not change it."""
    folder = tiny_clone(tmp_path_factory.mktemp("reproduced"))
    run(folder, "dvc", "repro")
    commit(folder, "the results")
    return folder


@pytest.fixture
def copy(reproduced, tmp_path) -> Path:
    """A complete copy of `reproduced` that a test may change."""
    shutil.copytree(reproduced, tmp_path / "copy", ignore=shutil.ignore_patterns("videos"))
    return tmp_path / "copy"
