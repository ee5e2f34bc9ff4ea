"""The scripts under examples/ run as a reader would run them."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def test_a_training_step(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = ROOT / "examples/train_step.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "query_rgb     (8, 8, 32, 32, 3) torch.uint8" in done.stdout
    terms = {name: float(value) for name, value in re.findall(r"^(\w+) +(-?\d+\.\d+)$", done.stdout, re.M)}
    losses = {name: value for name, value in terms.items() if name.startswith("loss_")}
    assert set(losses) == {
        f"loss_{name}"
        for name in ("rgb", "flow", "rgb_to_flow", "flow_to_rgb", "rotated", "rgb_to_rotated", "rotated_to_rgb", "lmcl")
    }
    assert terms["loss"] == pytest.approx(sum(losses.values()), abs=0.01)
    assert terms["momentum"] == 0.994
    assert not list(tmp_path.iterdir())
