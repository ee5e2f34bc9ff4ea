"""The whole method: which terms each named method has, where gradients go, what enters the queues."""

from types import SimpleNamespace

import pytest
import torch

from mscl.config.methods import METHODS, Switches
from mscl.config.settings import Contrast, Kernels
from mscl.flow.colour import colourwheel
from mscl.flow.rotate import rotate_flow
from mscl.models.methods.mscl import MSCL
from mscl.models.moco import build_moco, in_groups
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.view import View
from mscl.training.hardware import place

NET = SimpleNamespace(backbone="r3d_18", width=4, flow_width=4, neck=16, neck_blocks=2, size=32)
CLIP_TERMS = {"rgb", "flow", "rgb_to_flow", "flow_to_rgb"}
ROTATED = {"rotated", "rgb_to_rotated", "rotated_to_rgb"}


def model_of(switches: Switches, net=NET) -> MSCL:
    torch.manual_seed(0)
    return MSCL(net, Contrast(dim=16, queue=8), switches)


def view(seed: int) -> View:
    g = torch.Generator().manual_seed(seed)
    flow = torch.rand(4, 2, 4, 32, 32, generator=g) - 0.5  # every second of 8 fields
    crossed = torch.rand(4, 2, 4, 32, 32, generator=g) - 0.5
    return View(torch.randn(4, 3, 8, 32, 32, generator=g), flow, torch.full((4,), 1.2566), crossed_B2THW=crossed)


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("moco", {"rgb"}),
        ("baseline", CLIP_TERMS | ROTATED),
        ("lmcl", CLIP_TERMS | ROTATED | {"lmcl"}),
        ("mscl", CLIP_TERMS | ROTATED | {"lmcl"}),
        ("mscl-released", CLIP_TERMS | ROTATED | {"lmcl"}),
    ],
)
def test_each_method_has_its_terms_and_trains_every_query_weight(method, terms):
    model = model_of(METHODS[method].switches)
    losses, accuracies = model(view(1), view(2))
    assert set(losses) == terms == set(accuracies)
    sum(losses.values()).backward()
    untouched = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # The neck's last block works out three levels, of which the local loss uses level 0.
    assert [n for n in untouched if not n.startswith("neck.pyramid.1")] == []
    assert not any(p.requires_grad for p in model.rgb.key.parameters())


def test_rotated_keys_never_enter_a_queue():
    model, query, key = model_of(METHODS["mscl"].switches), view(1), view(2)
    model(query, key)
    model.enqueue()
    expected = model_of(METHODS["mscl"].switches).flow.send_keys(colourwheel(key.flow_B2THW)).encode().own
    assert torch.equal(model.flow.queue.keys_KD[:4], expected)
    assert model.flow.queue.age_K.tolist() == [0] * 4 + [1] * 4


def test_released_wiring_swaps_the_key_clips_flow_with_the_rotated_query_flow():
    query, key = view(1), view(2)
    paper = model_of(METHODS["mscl"].switches)._wire(query, key)
    released = model_of(METHODS["mscl-released"].switches)._wire(query, key)
    rotated_query = colourwheel(rotate_flow(query.flow_B2THW, query.angle_B))
    assert torch.equal(paper[1], rotated_query) and torch.equal(paper[2], key.flow_image())
    # Each in the place of the other, with the crop and flip of the view whose place it takes.
    assert torch.equal(released[1], colourwheel(key.crossed_B2THW))
    assert torch.equal(released[2], colourwheel(rotate_flow(query.crossed_B2THW, query.angle_B)))
    assert torch.equal(paper[0], released[0]) and torch.equal(paper[3], released[3])


def test_released_flow_keys_are_negatives_of_their_own_step():
    """They are in the queue before the rotated and cross-modal terms; RGB keys wait for the end of the step, as ever."""
    model, before = model_of(METHODS["mscl-released"].switches), model_of(METHODS["mscl-released"].switches)
    model(view(1), view(2))
    assert model.flow.queue.age_K.tolist() == [0] * 4 + [1] * 4
    assert torch.equal(model.rgb.queue.keys_KD, before.rgb.queue.keys_KD)
    model.enqueue()
    assert model.flow.queue.age_K.tolist() == model.rgb.queue.age_K.tolist() == [0] * 4 + [1] * 4


def test_momentum_moves_the_key_encoders_once():
    model = model_of(METHODS["baseline"].switches)
    model.flow.momentum = 0.9
    with torch.no_grad():
        for p in model.flow.query.parameters():
            p.add_(1.0)
    before = [p.clone() for p in model.flow.key.parameters()]
    model.begin(0.0, 0.1)
    assert all(torch.allclose(b + 0.1, k, atol=1e-6) for b, k in zip(before, model.flow.key.parameters()))


def test_r50_projects_its_flow_to_the_necks_width():
    net = SimpleNamespace(backbone="slow_r50", width=4, flow_width=4, neck=16, neck_blocks=1, size=64)
    model = model_of(METHODS["mscl"].switches, net)
    assert model.to_neck.weight.shape == (16, 128, 1, 1, 1)
    losses, _ = model(view(1), view(2))
    assert torch.isfinite(sum(losses.values()))


def test_shuffled_groups_come_back_in_order_and_keys_share_no_statistics_with_queries():
    """With statistics frozen (eval) groups change nothing; in training each group has its own, and keys are shuffled."""
    torch.manual_seed(0)
    grouped = MSCL(NET, Contrast(dim=16, queue=8, bn_groups=2), METHODS["moco"].switches).rgb
    x = view(3).rgb_BCTHW
    grouped.eval()
    assert torch.allclose(grouped.send_keys(x).encode().own, grouped.key(x)[1], atol=1e-6)
    maps, z = grouped.encode_query(x)
    whole_maps, whole = grouped.query(x)
    assert torch.allclose(z, whole, atol=1e-6) and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(maps, whole_maps))
    grouped.train()
    first_half = grouped.encode_query(x)[1][:2]
    other_company = grouped.encode_query(torch.cat([x[:2], torch.zeros_like(x[2:])]))[1][:2]
    assert torch.allclose(first_half, other_company, atol=1e-6)  # a group's statistics are its own
    torch.manual_seed(1)
    assert torch.randperm(4).tolist()[:2] not in ([0, 1], [1, 0], [2, 3], [3, 2])  # this seed mixes the groups
    torch.manual_seed(1)
    assert not torch.allclose(grouped.send_keys(x).encode().own, in_groups(grouped.key, x, 2)[1], atol=1e-4)


@pytest.mark.parametrize("way", ["together", "one_by_one", "somebody else's"])
def test_groups_compute_what_one_after_another_does(way):
    """Outputs and batch-norm statistics to the bit, gradients to rounding; also in a network with torch's own batch norm."""
    torch.manual_seed(0)
    together, apart = (build_moco(R3D18(4), Contrast(dim=8, queue=8, bn_groups=2)).query for _ in range(2))
    apart.load_state_dict(together.state_dict())
    kernels = Kernels(groups="one_by_one" if way == "one_by_one" else "together")
    for encoder in (together, apart):
        place(encoder, torch.device("cpu"), kernels)
    if way == "somebody else's":
        for parent in list(together.modules()):
            for name, child in parent.named_children():
                if isinstance(child, torch.nn.BatchNorm3d):
                    setattr(parent, name, torch.nn.BatchNorm3d(child.num_features))
    x = torch.randn(6, 3, 4, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    batches = []
    together.backbone.stem[0].register_forward_hook(lambda conv, given, out: batches.append(len(out)))
    maps, z = in_groups(together, x, 2)
    assert batches == ([6] if way == "together" else [3, 3])
    halves = [apart(half) for half in x.chunk(2)]
    assert torch.equal(z, torch.cat([half[1] for half in halves]))
    assert all(torch.equal(level, torch.cat(parts)) for level, *parts in zip(maps, *(half[0] for half in halves)))
    (z**2)[:, 0].sum().backward()
    sum((half[1] ** 2)[:, 0].sum() for half in halves).backward()
    for (name, a), b in zip(together.named_parameters(), apart.parameters()):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-5), name
    assert all(torch.equal(a, apart.get_buffer(name)) for name, a in together.named_buffers())
    assert torch.equal(in_groups(together.eval(), x, 2)[1], together(x)[1])
