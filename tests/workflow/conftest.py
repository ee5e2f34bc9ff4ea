"""The demo at the tiny size in a git repository of its own, run by DVC, and what its tests need around it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, tiny_config


def attempt(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in `folder` with this environment's programs first on the path, git knowing an author."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    author = {f"GIT_{who}_{what}": "nobody@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | author | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)


def run(folder: Path, *command: str, **environment: str) -> str:
    """The same for a command that must succeed; returns what it says."""
    done = attempt(folder, *command, **environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def tiny_clone(folder: Path) -> Path:
    """What git knows of this checkout, committed anew, with the demo's names at the tiny size and two methods."""
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
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
    """The tiny clone after `dvc repro`, with dvc.lock in git. Tests leave it as it is."""
    folder = tiny_clone(tmp_path_factory.mktemp("reproduced"))
    run(folder, "dvc", "repro")
    commit(folder, "the results")
    return folder


@pytest.fixture
def copy(reproduced, tmp_path) -> Path:
    """A copy of it, with everything, to spoil."""
    shutil.copytree(reproduced, tmp_path / "copy", ignore=shutil.ignore_patterns("videos"))
    return tmp_path / "copy"
