"""The rate of each step, by hand."""

import pytest
import torch

from mscl.config.recipes import Optim
from mscl.training.recipe import learning_rate


def rates(epochs=2, per_epoch=4, **recipe):
    return [learning_rate(Optim(lr=1.0, batch=2, epochs=epochs, **recipe), step, per_epoch) for step in range(epochs * per_epoch)]


def test_cosine_steps_and_scaling_by_hand():
    assert rates() == pytest.approx([1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381], abs=1e-4)
    assert rates(epochs=3, per_epoch=2, steps=(1, 2)) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rates(base_batch=4)[0] == 0.5  # meant for a batch of 4, used with 2


def test_warm_up_by_hand():
    """Over half of the first epoch, two steps, by 1/3 and 2/3; then the schedule as without it."""
    assert rates(warmup=0.5)[:3] == pytest.approx([1 / 3, 0.9619 * 2 / 3, 0.8536], abs=1e-4)
    assert rates(epochs=2, per_epoch=2, steps=(1,), warmup=1) == pytest.approx([1 / 3, 2 / 3, 0.1, 0.1])
    assert rates(warmup=0) == rates()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_fused_optimiser_does_not_move_where_the_device_has_found_a_number_that_is_not_finite(optimizer):
    """What a GPU's step relies on (`mscl.training.step.begin_step`), here with the CPU's fused kernels: no wait, no move."""
    weight = torch.nn.Parameter(torch.ones(4))
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    fused = kind([weight], lr=0.1, fused=True)
    for found, gradient, moves in ((0.0, 1.0, True), (1.0, float("nan"), False)):
        before = weight.detach().clone()
        weight.grad = torch.full((4,), gradient)
        fused.found_inf = torch.tensor(found)
        fused.step()
        assert torch.isfinite(weight).all() and torch.equal(weight, before) != moves
