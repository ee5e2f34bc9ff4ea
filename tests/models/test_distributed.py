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
from mscl.config.schema import Optim
from mscl.models import distributed
from mscl.training.step import Step, TrainingError, train_step

distributed.start(torch.device("cpu"))


class Odd(Step):
    model = nn.ModuleDict({"shared": nn.Linear(1, 1), "odd": nn.Linear(1, 1)})

    def __call__(self, batch, draws):
        loss = self.model["shared"](batch["x"]).sum() * (1 + distributed.rank())
        if distributed.rank() and self.wrong:
            loss = loss + self.model["odd"](batch["x"]).sum()
        return {"loss": loss, "rank": torch.tensor(float(distributed.rank()))}


step, recipe = Odd(), Optim(lr=0.1, momentum=0, batch=2, epochs=1)
optimizer = torch.optim.SGD(step.model.parameters(), lr=0.1)
step.wrong = False
before = step.model["shared"].weight.item()
assert train_step(step, {"x": torch.ones(1, 1)}, optimizer, recipe, 0, 0, 2)["rank"] == 0.5
assert abs(before - step.model["shared"].weight.item() - 0.15) < 1e-6 and step.model["odd"].weight.grad is None
step.wrong, before = True, step.model["shared"].weight.item()
try:
    train_step(step, {"x": torch.ones(1, 1)}, optimizer, recipe, 0, 1, 2)
except TrainingError as error:
    Path(sys.argv[1], str(distributed.rank())).write_text(str(error))
assert step.model["shared"].weight.item() == before
distributed.wait()
torch.distributed.destroy_process_group()
"""


def test_ranks_with_other_gradients_are_refused(tmp_path: Path):
    """By name, in every process, and no weight moves; before that, the mean of 1 and 2 is 1.5, and what has no gradient anywhere
    keeps none."""
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
        assert "2 parameters have a gradient in some processes only, such as odd.weight" in said and "(step 1)" in said
