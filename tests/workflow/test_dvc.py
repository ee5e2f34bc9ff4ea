"""`dvc repro` runs the demo from a clean clone to the same kind of report, and then has nothing to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, tiny_config


def run(folder: Path, *command: str) -> str:
    """Run a command in `folder` with this environment's programs first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of what git knows, with the demo's names at the tiny size."""
    folder = tmp_path_factory.mktemp("clone")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    config, tiny = yaml.safe_load((ROOT / "config.yaml").read_text()), tiny_config(Path("."))
    for mine, theirs in (("motion_kinetics", "kin"), ("motion_ssv2", "ss")):
        config["datasets"][mine] |= {k: tiny["datasets"][theirs][k] for k in ("frames", "embedded")}
    config |= {k: tiny[k] for k in ("flow", "clip", "contrast", "models", "compute")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run(folder, "git", "init", "-q")
    return folder


def test_dvc_repro_ends_with_the_report_and_a_second_one_does_nothing(clone):
    run(clone, "dvc", "repro")
    assert "Table 1" in (clone / "results/demo/report/index.html").read_text()
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    assert set(lock["stages"]) == {"data", "pretrain", "finetune", "report"}
    assert "Data and pipelines are up to date" in run(clone, "dvc", "status")
    metrics = run(clone, "dvc", "metrics", "show")
    assert "top1" in metrics and "mscl" in metrics
    assert "Nothing to be done" in run(clone, "snakemake", "--cores", "1", "-n")
