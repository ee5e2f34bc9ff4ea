"""The committed dvc.lock belongs to the committed code and settings: otherwise `make restore` would refuse it."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def test_the_demos_lock_is_fresh():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository: DVC cannot read dvc.lock here")
    done = subprocess.run([sys.executable, "-m", "workflow.recorded"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
