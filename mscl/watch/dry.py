"""A step of a network without content: tensors have a shape and no values, so that its cost is counted without computing.

Counted are floating-point operations (FLOPs) and the bytes that the step keeps for its backward pass. Each distinct backbone is
counted once in a process: where a step uses one again, its numbers are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from mscl.models.networks.backbone import Backbone
from mscl.models.networks.flow_resnet import FlowResNet


class Cost(NamedTuple):
    """What a step costs; activations in float32, of which bfloat16 halves the feature maps."""

    flops: float
    maps: int  # bytes of feature maps (at least 4 dimensions) that are kept for the backward pass
    rest: int  # bytes of everything else that is kept, such as similarities to the queue
    largest: int  # bytes of the largest feature map

    def activations(self, half: bool, at_once: int) -> float:
        """Bytes at the peak: what is kept, and `at_once` of the largest feature maps, in bfloat16 if `half`."""
        return (self.maps + at_once * self.largest) / (2 if half else 1) + self.rest


class Counter:
    """Counts a step that runs in the body of `counted`; read `cost()` behind it."""

    def __init__(self) -> None:
        self.flops = FlopCounterMode(display=False)
        self.again = 0.0  # FLOPs of backbones that were counted before
        self.maps, self.largest = 0, 0
        self.kept: dict[int, Any] = {}  # storages, which stay alive here so that no other gets their key
        self.rest = 0

    def cost(self) -> Cost:
        return Cost(self.flops.get_total_flops() + self.again, self.maps, self.rest, self.largest)

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd keeps, once; weights are no activations."""
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter) and storage._cdata not in self.kept:
            self.kept[storage._cdata] = storage
            self.add(tensor)
        return tensor

    def add(self, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if tensor.ndim >= 4 and tensor.is_floating_point():
            self.maps += size
            self.largest = max(self.largest, size)
        else:
            self.rest += size


@contextmanager
def counted(model: nn.Module, autocast: bool = False) -> Iterator[Counter]:
    """Count the operations of the body, in which tensors have no content; `model` must be built by `on_meta`, and is changed.

    With `autocast`, the body may use torch.autocast, which does not know the meta device: it has fake tensors of a CPU, which are slower.

    Batch norms and ReLUs count no operations and are left out; the input that a batch norm keeps is counted, and a ReLU in place keeps
    what the next layer keeps.
    """
    counter = Counter()
    with FakeTensorMode() if autocast else torch.device("meta"):
        _without_content(nn.ModuleList([model]), counter)
        with counter.flops, saved_tensors_hooks(counter.keep, lambda tensor: tensor):
            yield counter


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The model of `build()` on the `meta` device, without memory for its weights."""
    with torch.device("meta"):
        return build()


def _without_content(part: nn.Module, counter: Counter) -> None:
    """Replace the weights of a module by such without content; those of a backbone in it when it is counted."""
    for name, child in part.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
            setattr(part, name, _Norm(counter))
        elif isinstance(child, nn.ReLU):
            setattr(part, name, nn.Identity())
        elif isinstance(child, Backbone | FlowResNet):
            child.maps = _Once(child, counter)
        else:
            _without_content(child, counter)
    for name, p in part._parameters.items():
        if p is not None:
            part._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), requires_grad=p.requires_grad)
    for name, b in part._buffers.items():
        if b is not None:
            part._buffers[name] = torch.empty(b.shape, dtype=b.dtype)


class _Norm(nn.Module):
    """In place of a batch norm: keeps its input."""

    def __init__(self, counter: Counter):
        super().__init__()
        self.counter = counter

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            self.counter.add(x)
        else:
            self.counter.largest = max(self.counter.largest, x.numel() * x.element_size())
        return x


class _Once:
    """The `maps` of a backbone: forward and backward are counted at the first call with its weights and clips of this shape."""

    seen: dict[tuple, tuple[Cost, list[torch.Size]]] = {}  # noqa: RUF012 of the process

    def __init__(self, backbone: nn.Module, counter: Counter):
        self.backbone, self.maps, self.counter = backbone, backbone.maps, counter
        weights = dict(backbone.named_parameters())
        shapes = tuple((name, p.shape) for name, p in weights.items())
        self.key = type(backbone), shapes, any(p.requires_grad for p in weights.values())

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        backward = self.key[-1] and torch.is_grad_enabled()
        key = (*self.key, x.shape, backward)
        if key not in self.seen:
            self.seen[key] = self._count(x, backward)
        cost, shapes = self.seen[key]
        counter = self.counter
        counter.again += cost.flops
        counter.maps, counter.rest = counter.maps + cost.maps, counter.rest + cost.rest
        counter.largest = max(counter.largest, cost.largest)
        found = tuple(torch.empty(shape, requires_grad=backward) for shape in shapes)
        counter.kept |= {map.untyped_storage()._cdata: map.untyped_storage() for map in found}  # counted with the backbone
        return found

    def _count(self, x: Tensor, backward: bool) -> tuple[Cost, list[torch.Size]]:
        """Counted by the counter of the step itself, from which it is taken away again."""
        before, counter = self.counter.cost(), self.counter
        counter.largest = 0
        with (
            unset_fake_temporarily(),
            torch.device("meta"),
        ):  # half of the time; only what stands on a backbone needs fake tensors
            _without_content(self.backbone, counter)
            maps = self.maps(torch.empty(x.shape, requires_grad=x.requires_grad))
            counter.largest = max(counter.largest, *(m.numel() * m.element_size() for m in maps))
            if backward:
                torch.autograd.backward(maps, [torch.empty_like(m) for m in maps])
        after = counter.cost()
        cost = Cost(after.flops - before.flops, after.maps - before.maps, after.rest - before.rest, after.largest)
        counter.again, counter.maps, counter.rest = counter.again - cost.flops, before.maps, before.rest
        counter.largest = before.largest
        return cost, [m.shape for m in maps]
