"""The losses against cases worked out by hand from method.md §4-§5."""

import math

import pytest
import torch

from mscl.flow.rotate import angles, rotate_flow
from mscl.models.losses.info_nce import info_nce
from mscl.models.losses.lmcl import lmcl, local_vectors
from mscl.models.moco import Queue, key_momentum


def queue_of(keys: list[list[float]], ages: list[int], decay: float) -> Queue:
    queue = Queue(len(keys), len(keys[0]), decay)
    queue.keys_KD.copy_(torch.tensor(keys))
    queue.age_K.copy_(torch.tensor(ages))
    return queue


def test_info_nce_of_one_query_by_hand():
    """q·k = 0.6; negatives 1·0.5² = 0.25 (two steps old) and 0 (fresh, orthogonal); τ = 0.5."""
    queue = queue_of([[1.0, 0.0], [0.0, 1.0]], ages=[2, 0], decay=0.5)
    loss, accuracy = info_nce(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), queue.negatives(), temperature=0.5)
    positive, old, fresh = math.exp(0.6 / 0.5), math.exp(0.25 / 0.5), math.exp(0.0)
    assert loss.item() == pytest.approx(-math.log(positive / (positive + old + fresh)), abs=1e-6)
    assert accuracy.item() == 1.0


def test_without_decay_the_old_key_wins_and_accuracy_says_so():
    queue = queue_of([[1.0, 0.0], [0.0, 1.0]], ages=[2, 0], decay=1.0)
    _, accuracy = info_nce(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), queue.negatives(), temperature=0.5)
    assert accuracy.item() == 0.0


def test_queue_replaces_the_oldest_and_everyone_else_ages():
    queue = Queue(4, 1, decay=1.0)
    queue.enqueue(torch.tensor([[1.0], [2.0]]))
    queue.enqueue(torch.tensor([[3.0], [4.0]]))
    queue.enqueue(torch.tensor([[5.0], [6.0]]))
    assert queue.keys_KD[:, 0].tolist() == [5, 6, 3, 4]
    assert queue.age_K.tolist() == [0, 0, 1, 1]


def test_queue_refuses_a_batch_that_does_not_divide_it():
    with pytest.raises(ValueError, match="queue's length 4 is not a multiple of the batch 3"):
        Queue(4, 1, 1.0).enqueue(torch.zeros(3, 1))


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.994), (0.5, 0.997), (1.0, 1.0)])
def test_key_momentum_rises_by_a_cosine(progress, expected):
    assert key_momentum(progress, 0.994) == pytest.approx(expected)


def test_lmcl_without_rotated_flow_by_hand():
    """Two times, u = v = the axes: each finds its own (similarity 1) against the other (0)."""
    u = torch.eye(2)[None]
    loss, found = lmcl(u, u, None, temperature=1.0)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)
    assert found.item() == 1.0


def test_lmcl_with_rotated_flow_is_2t_way_and_looks_at_its_own_video_only():
    """u_1=(1,0), u_2=(0,1); v=u; v'_1=(0,1), v'_2=(-1,0). By hand, τ=0.5."""
    u = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    rotated = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])
    e = lambda s: math.exp(s / 0.5)  # noqa: E731
    first = -math.log(e(1) / (e(1) + e(0) + e(0) + e(-1)))
    second = -math.log(e(1) / (e(1) + e(0) + e(1) + e(0)))
    loss, _ = lmcl(u, u, rotated, temperature=0.5)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    other = torch.nn.functional.normalize(torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(0)), dim=2)
    both, _ = lmcl(torch.cat([u, other]), torch.cat([u, other]), torch.cat([rotated, other]), temperature=0.5)
    alone, _ = lmcl(other, other, other, temperature=0.5)
    assert both.item() == pytest.approx((loss.item() + alone.item()) / 2, abs=1e-6)


def test_lmcl_gradients_reach_both_networks():
    u, v, r = (torch.randn(2, 4, 8, requires_grad=True) for _ in range(3))
    lmcl(u, v, r, 0.07)[0].backward()
    assert all(t.grad.abs().sum() > 0 for t in (u, v, r))


def test_local_vectors_are_unit_spatial_means_per_time():
    x = torch.zeros(1, 2, 2, 1, 2)
    x[0, :, 0, 0] = torch.tensor([[3.0, 3.0], [4.0, 4.0]])
    x[0, :, 1, 0] = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    assert torch.allclose(local_vectors(x), torch.tensor([[[0.6, 0.8], [0.0, 1.0]]]))


def test_fra_turns_vectors_and_leaves_pixels():
    flow = torch.zeros(2, 2, 1, 1, 2)
    flow[:, 0, 0, 0] = torch.tensor([1.0, 0.0])  # left pixel moves right, right pixel is still
    turned = rotate_flow(flow, torch.tensor([math.pi / 2, math.pi]))
    assert torch.allclose(turned[0, :, 0, 0], torch.tensor([[0.0, 0.0], [1.0, 0.0]]), atol=1e-6)
    assert torch.allclose(turned[1, :, 0, 0], torch.tensor([[-1.0, 0.0], [0.0, 0.0]]), atol=1e-6)


def test_fra_has_the_eight_angles_of_the_paper():
    assert torch.rad2deg(angles(torch.arange(8))).tolist() == pytest.approx([36, 72, 108, 144, 180, 216, 252, 288])
