"""What several processes must agree on."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

SCRIPT = """
import sys
from pathlib import Path

import torch
from torch import nn
from mscl.models import distributed

distributed.start(torch.device("cpu"))
model = nn.ModuleDict({"shared": nn.Linear(1, 1), "odd": nn.Linear(1, 1)})
loss = model["shared"](torch.ones(1, 1)).sum() * (1 + distributed.rank())
loss.backward()
distributed.mean_gradients(dict(model.named_parameters()))
assert model["shared"].weight.grad.item() == 1.5 and model["odd"].weight.grad is None
if distributed.rank():
    model["odd"](torch.ones(1, 1)).sum().backward()
try:
    distributed.mean_gradients(dict(model.named_parameters()))
except ValueError as error:
    Path(sys.argv[1], str(distributed.rank())).write_text(str(error))
distributed.wait()
torch.distributed.destroy_process_group()
"""


def test_ranks_with_other_gradients_are_refused(tmp_path: Path):
    """By name, in every process; before that, the mean of 1 and 2 is 1.5, and what has no gradient anywhere keeps none."""
    (tmp_path / "ranks.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(tmp_path / "ranks.py"),
        str(tmp_path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
    for rank in ("0", "1"):
        said = (tmp_path / rank).read_text()
        assert "2 parameters have a gradient in some processes only, such as odd.weight" in said
