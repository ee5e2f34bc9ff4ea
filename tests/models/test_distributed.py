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
from mscl.config.recipes import Optim
from mscl.models import distributed
from mscl.training.step import Step, TrainingError, begin_step, train_step

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
assert train_step(step, {"x": torch.ones(1, 1)}, optimizer, recipe, 0, 0, 4)["rank"] == 0.5
assert abs(before - step.model["shared"].weight.item() - 0.15) < 1e-6 and step.model["odd"].weight.grad is None
for number, calls in ((1, False), (2, distributed.rank() == 1)):
    scalars = begin_step(step, {"x": torch.ones(1, 1)}, optimizer, recipe, 0, number, 4, lambda: calls)
    assert scalars.called() == (number == 2) and set(scalars.values()) == {"loss", "rank"}
step.wrong, before = True, step.model["shared"].weight.item()
try:
    train_step(step, {"x": torch.ones(1, 1)}, optimizer, recipe, 0, 3, 4)
except TrainingError as error:
    Path(sys.argv[1], str(distributed.rank())).write_text(str(error))
assert step.model["shared"].weight.item() == before
distributed.wait()
torch.distributed.destroy_process_group()
"""


SHUFFLED = """
import torch
from mscl.config.settings import Contrast
from mscl.models import distributed
from mscl.models.moco import Encoder, build_moco
from mscl.models.networks.r3d_18 import R3D18

distributed.start(torch.device("cpu"))
me = distributed.rank()
whole = torch.arange(24.0).view(6, 2, 2)
order = torch.tensor([5, 0, 2, 1, 3, 4])  # each process wants rows of both
mine = whole[distributed.rows(6)]
assert torch.equal(distributed.shuffle_later(mine, order)(), whole[order][distributed.rows(6)])
parts = [distributed.gather(part) for part in mine.split([2, 1])]  # of a batch in two parts
assert torch.equal(distributed.joined(parts), whole)

torch.manual_seed(0)
moco = build_moco(R3D18(4), Contrast(dim=8, queue=8, bn_groups=4)).train()
clips = torch.randn(8, 3, 4, 16, 16).contiguous(memory_format=torch.channels_last_3d)
torch.manual_seed(1)
keys = moco.send_keys(clips[distributed.rows(8)]).encode()
torch.manual_seed(1)
order = torch.randperm(8)
moco.key.load_state_dict(moco.query.state_dict())
expected = torch.cat([moco.key(part)[1] for part in clips[order].chunk(4)])[order.argsort()]
assert torch.allclose(keys.of_all, expected, atol=1e-6), (keys.of_all, expected)
assert torch.equal(keys.own, keys.of_all[distributed.rows(8)])
distributed.wait()
torch.distributed.destroy_process_group()
"""


def test_ranks_with_other_gradients_are_refused(tmp_path: Path):
    """By name, in every process, and no weight moves; before that, the mean of 1 and 2 is 1.5, what has no gradient anywhere
    keeps none, and when one process calls, both know it."""
    in_two_processes(SCRIPT, tmp_path)
    for rank in ("0", "1"):
        said = (tmp_path / rank).read_text()
        assert "2 parameters have a gradient in some processes only, such as odd.weight" in said and "(step 3)" in said


def test_keys_travel_to_their_groups_and_back(tmp_path: Path):
    """Two processes see what one would that has all rows: shuffled clips, groups of batch norm, keys in the order of the batch."""
    in_two_processes(SHUFFLED, tmp_path)


def in_two_processes(script: str, tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(script)
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
