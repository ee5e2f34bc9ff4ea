"""The rivals' losses against cases worked out by hand, and where their gradients go (docs/rivals.md)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mscl.config.methods import METHODS, Switches
from mscl.config.settings import Contrast
from mscl.flow.edges import flow_edges
from mscl.flow.mds import motion
from mscl.flow.rotate import rotate_flow
from mscl.models.build import build_method
from mscl.models.methods.corp import PairHead
from mscl.models.moco import Queue
from mscl.models.networks.blocks import Bottleneck
from mscl.models.view import View

NET = SimpleNamespace(backbone="r3d_18", width=4, flow_width=4, neck=16, neck_blocks=2, size=32)
R50 = SimpleNamespace(backbone="slow_r50", width=4, flow_width=4, neck=16, neck_blocks=1, size=64)
RIVALS = ("rho-moco-3", "modist", "modist+flow", "corp-m", "corp-f")


def model_of(switches: Switches, net=NET):
    torch.manual_seed(0)
    return build_method(net, Contrast(dim=16, queue=8, temperature=0.5, decay=1.0), switches)


def view(seed: int, batch: int = 4) -> View:
    g = torch.Generator().manual_seed(seed)
    flow = torch.rand(batch, 2, 4, 32, 32, generator=g) - 0.5  # every second of 8 fields
    return View(torch.randn(batch, 3, 8, 32, 32, generator=g), flow, torch.full((batch,), 1.2566), torch.randint(0, 99, (batch,)))


def queue_of(*keys: list[float]) -> Queue:
    queue = Queue(len(keys), len(keys[0]), decay=1.0)
    queue.keys_KD.copy_(torch.tensor(keys))
    return queue


class Embedded:
    """Keys whose embeddings are given."""

    def __init__(self, own: torch.Tensor):
        self.own = self.of_all = own

    def encode(self) -> "Embedded":
        return self


def fixed(model, *embeddings):
    """The model, with clip i of every video embedded as the rows of `embeddings[i]`: query first."""
    model.rgb.encode_query = lambda x: ((), embeddings[0])
    keys = iter(embeddings[1:])
    model.rgb.send_keys = lambda x: Embedded(next(keys))
    return model


def with_gammas(model):
    """The last batch norm of a bottleneck starts at zero, and what comes before it has no gradient then."""
    for block in (m for m in model.modules() if isinstance(m, Bottleneck)):
        torch.nn.init.ones_(block.bn3.weight)
    return model


@pytest.mark.parametrize("net", [NET, R50], ids=["r18", "r50"])
@pytest.mark.parametrize("method", RIVALS)
def test_gradients_reach_every_trained_weight(method, net):
    switches = METHODS[method].switches
    model = with_gammas(model_of(switches, net))
    losses, accuracies = model(*(view(n) for n in range(switches.clips)))
    assert set(losses) == set(accuracies)
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)] == []


def test_rho_moco_is_the_mean_over_its_keys_by_hand():
    """q = (1,0), keys at similarity 0.6 and 0; the queue holds (0,1) and (-1,0); τ = 0.5."""
    model = model_of(METHODS["rho-moco-3"].switches)
    model.rgb.queue = queue_of([0.0, 1.0], [-1.0, 0.0])
    q, near, far = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
    losses, accuracies = fixed(model, q, near, far)(view(0), view(1), view(2))
    e = lambda s: math.exp(s / 0.5)  # noqa: E731
    first, second = (-math.log(e(s) / (e(s) + e(0) + e(-1))) for s in (0.6, 0.0))
    assert losses["rgb"].item() == pytest.approx((first + second) / 2, abs=1e-6)
    # The second key is as near as a negative, which does not count against it: argmax takes the first of equals.
    assert accuracies["rgb"].item() == 1.0


def test_flow_edges_by_hand():
    """u jumps by 0.4 between columns 2 and 3: Sobel answers 4 x 0.4 beside the jump, which is an edge of 0.4, and 0 elsewhere."""
    flow = torch.zeros(1, 2, 1, 5, 6)
    flow[:, 0, :, :, 3:] = 0.4
    edges = flow_edges(flow)
    assert edges.shape == (1, 3, 1, 5, 6)
    assert torch.allclose(edges, torch.tensor([0.0, 0.0, 0.4, 0.4, 0.0, 0.0]).expand_as(edges), atol=1e-6)
    turned = rotate_flow(flow, torch.tensor([1.0]))
    assert torch.allclose(flow_edges(turned), edges, atol=1e-6)  # an edge has no direction
    assert torch.allclose(flow_edges(flow + 0.3), edges, atol=1e-6)  # a camera that pans makes none
    assert flow_edges(5 * flow).max() == 1
    ours = np.stack([motion(field) for field in flow[0].permute(1, 2, 3, 0).numpy()])  # as MDS has it
    assert torch.allclose(4 * edges[0, 0], torch.from_numpy(ours), atol=1e-5)


def test_modist_contrasts_within_rgb_and_across_and_sees_edges_by_hand():
    """One video; RGB q = (1,0), k = (0.6,0.8); motion q = (0,1), k = (0.8,0.6); each queue holds one key; τ = 0.5."""
    model, query, key = model_of(METHODS["modist+flow"].switches), view(0), view(1)
    fixed(model, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]))
    seen = []
    model.flow.encode_query = lambda x: (seen.append(x), ((x,), torch.tensor([[0.0, 1.0]])))[1]
    model.flow.send_keys = lambda x: (seen.append(x), Embedded(torch.tensor([[0.8, 0.6]])))[1]
    model.rgb.queue, model.flow.queue = queue_of([0.0, 1.0]), queue_of([-1.0, 0.0])
    losses, _ = model(query, key)
    loss = lambda positive, negative: math.log(1 + math.exp((negative - positive) / 0.5))  # noqa: E731
    expected = {"rgb": loss(0.6, 0), "flow": loss(0.6, 0), "rgb_to_flow": loss(0.8, -1), "flow_to_rgb": loss(0.8, 1)}
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected, abs=1e-6)
    assert torch.equal(seen[0], flow_edges(key.flow_B2THW)) and torch.equal(seen[1], flow_edges(query.flow_B2THW))
    assert set(model_of(METHODS["modist"].switches)(query, key)[0]) == set(expected) - {"flow"}


def test_decoupled_attention_by_hand():
    """Eight heads of one dimension, U the identity, V swapping dimensions 0 with 1 and 4 with 5."""
    head = PairHead(8, 2, temperature=1.0)
    with torch.no_grad():
        head.u.weight.copy_(torch.eye(8))
        head.v.weight.copy_(torch.eye(8)[[1, 0, 2, 3, 5, 4, 6, 7]])
    a, b = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8]]), torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]])
    there, back = head.attention(a, b)[0, 0].tolist(), head.attention(b, a)[0, 0].tolist()
    # Heads 0 and 4: (a0 b1 + a1 b0) / 2 = (7 + 16) / 2, and (a4 b5 - a5 b4) / 2 = (15 - 24) / 2.
    assert there == [11.5, 11.5, 18, 20, -4.5, 4.5, 0, 0]
    assert back == there[:4] + [-x for x in there[4:]]


def pair_loss(logits: list[float], allowed: list[int]) -> float:
    """-log of the share of the softmax that the allowed answers have."""
    return -math.log(sum(math.exp(logits[n]) for n in allowed) / sum(map(math.exp, logits)))


STARTS = torch.tensor([[5, 9], [4, 4]])  # of the second video the order is not known


def test_corp_f_is_one_question_with_4b_minus_2_answers_by_hand():
    """Two videos of two clips: clip i has 2(2·2-1) = 6 answers (which clip, after or before)."""
    model, table = model_of(METHODS["corp-f"].switches), torch.randn(4, 4, 2, generator=torch.Generator().manual_seed(1))
    model.head.forward = lambda a, b: table[: len(a)]
    losses, _ = model.compare(torch.zeros(2, 2, 16), STARTS, slice(0, 2))
    by_hand = []
    for i, (partner, orders) in enumerate([(1, [0]), (0, [1]), (3, [0, 1]), (2, [0, 1])]):
        answers = [(j, o) for j in range(4) if j != i for o in (0, 1)]
        by_hand.append(pair_loss([table[i, j, o].item() for j, o in answers], [answers.index((partner, o)) for o in orders]))
    assert sum(losses.values()).item() == pytest.approx(sum(by_hand) / 4, abs=1e-6)
    alone = pair_loss(table[0, 1].tolist(), [0]) + pair_loss(table[1, 0].tolist(), [1])
    assert losses["order"].item() == pytest.approx(alone / 4, abs=1e-6)


def test_corp_m_asks_a_three_way_question_of_every_pair_of_two_videos_by_hand():
    """Two videos of two clips make 2·2(2·2-1) = 12 ordered pairs: 0 different, 1 the second comes after, 2 before."""
    model, table = model_of(METHODS["corp-m"].switches), torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(2))
    model.head.forward = lambda a, b: table
    losses, _ = model.compare(torch.zeros(2, 2, 16), STARTS, slice(0, 2))
    # Group 0 is video 0 beside video 1, group 1 video 1 beside video 0: the clips of known order are 0, 1 and then 2, 3.
    known = [
        {(0, 1): [1], (1, 0): [2], (2, 3): [1, 2], (3, 2): [1, 2]},
        {(2, 3): [1], (3, 2): [2], (0, 1): [1, 2], (1, 0): [1, 2]},
    ]
    pairs = [(g, i, j) for g in (0, 1) for i in range(4) for j in range(4) if i != j]
    by_hand = [pair_loss(table[g, i, j].tolist(), known[g].get((i, j), [0])) for g, i, j in pairs]
    assert sum(losses.values()).item() == pytest.approx(sum(by_hand) / 24, abs=1e-6)


def test_corp_refuses_a_single_video():
    with pytest.raises(ValueError, match="CORP tells videos apart, and there is one only"):
        model_of(METHODS["corp-f"].switches)(view(0, 1), view(1, 1))


def test_every_key_of_a_step_enters_the_queue_and_none_before_its_end():
    """Two parts of two videos with two keys each: all of the first keys, then all of the second."""
    model = model_of(METHODS["rho-moco-3"].switches)
    model.rgb.queue, before = queue_of(*[[0.0]] * 8), torch.zeros(8, 1)
    for part in (0, 10):
        keys = [torch.tensor([[part + 1.0], [part + 2.0]]), torch.tensor([[part + 5.0], [part + 6.0]])]
        fixed(model, torch.ones(2, 1), *keys)(view(0), view(1), view(2))
        assert torch.equal(model.rgb.queue.keys_KD, before)
    model.enqueue()
    assert model.rgb.queue.keys_KD[:, 0].tolist() == [1, 2, 11, 12, 5, 6, 15, 16]
    assert model.rgb.queue.age_K.tolist() == [1, 1, 1, 1, 0, 0, 0, 0] and not model._waiting
