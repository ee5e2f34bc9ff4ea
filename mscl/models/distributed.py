"""Training in several processes, started by torchrun: NCCL on GPUs, gloo on CPUs. A single process does not need this module.

Process r of N holds rows r*B/N … (r+1)*B/N of every batch of B clips. With the same seed in all of them, N processes compute what one
process computes whose batch norm has N groups.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


def start(device: torch.device) -> None:
    """Join the process group that torchrun's environment names; a single process has none."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def rows(total: int) -> slice:
    """The rows of a batch of `total` clips that this process holds; ValueError when the batch does not divide."""
    if total % size():
        raise ValueError(f"a batch of {total} does not divide among {size()} processes; change models.*.batch or their number")
    own = total // size()
    return slice(rank() * own, (rank() + 1) * own)


def groups(wanted: int) -> int:
    """Number of batch-norm groups of the whole batch: `wanted`, or one per process where that is 1; ValueError when it does not divide."""
    if wanted > 1 and wanted % size():
        raise ValueError(
            f"contrast.bn_groups: {wanted} groups do not divide among {size()} processes; set a multiple of {size()}"
        )
    return max(wanted, size())


@torch.no_grad()
def gather_later(x: Tensor) -> Callable[[], Tensor]:
    """Start `gather`; what is returned waits for it. Until then this process computes, and does not wait for slower ones."""
    if size() == 1:
        return lambda: x
    x = x.contiguous()
    rows = x.new_empty(size() * len(x), *x.shape[1:])
    work = dist.all_gather(list(rows.chunk(size())), x, async_op=True)

    def arrived() -> Tensor:
        work.wait()
        return rows

    return arrived


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, in their order; without gradient."""
    return gather_later(x)()


@torch.no_grad()
def shuffle_later(x: Tensor, order: Tensor) -> Callable[[], Tensor]:
    """Start to fetch this process's share of the whole batch in another order; what is returned waits for it.

    `x` are this process's rows, `order` (rows of all) is the same in every process, on the CPU. As `gather(x)[order][own rows]`, but
    every process sends and receives only what is wanted, with the memory format of `x`.
    """
    n, me = len(x), rank()
    if size() == 1:
        return lambda: torch.empty_like(x).copy_(x[order.to(x.device, non_blocking=True)])
    source = order.view(size(), n) // n  # (process that wants, row): process that has
    sent = (order.view(size(), n)[source == me] - me * n).to(x.device, non_blocking=True)
    place = source[me].argsort(stable=True).to(x.device, non_blocking=True)
    outgoing, received = x[sent].contiguous(), x.new_empty(x.shape)
    work = dist.all_to_all_single(
        received, outgoing, source[me].bincount(minlength=size()).tolist(), (source == me).sum(1).tolist(), async_op=True
    )

    def arrived() -> Tensor:
        work.wait()
        return torch.empty_like(x).index_copy_(0, place, received)

    return arrived


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Gathered rows of the parts of a batch, in the order of the whole batch: all rows of the first process first."""
    return torch.cat([rows for process in zip(*(part.chunk(size()) for part in parts)) for rows in process])


class _Gather(torch.autograd.Function):
    """`gather`, whose gradient goes back to the process that a row came from."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[rows(len(gradient))]


def gather_with_gradient(x: Tensor) -> Tensor:
    """The rows of all processes, in their order. Every process's loss reaches the rows of every other."""
    return x if size() == 1 else _Gather.apply(x)


@torch.no_grad()
def mean_gradients(parameters: dict[str, torch.nn.Parameter], values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Average the gradients and some scalars over the processes, all in one message, and wait for no device.

    A parameter without a gradient stays without. Returns the scalars (values,) as float64, and which parameters have a gradient in
    some processes only, (parameters,) bool: their mean is wrong, since every process must compute the same terms of the loss. In a
    single process nothing is averaged, and the second is empty.
    """
    scalars = torch.stack([v.detach().double() for v in values])
    if size() == 1 or not parameters:
        return scalars, scalars.new_zeros(0, dtype=torch.bool)
    trained, device = list(parameters.values()), scalars.device
    own = torch.tensor([float(p.grad is not None) for p in trained]).to(device, non_blocking=True)
    message = torch.cat([*(_in_memory_order(p) for p in trained), own, scalars.float()])
    dist.all_reduce(message)
    message /= size()
    *means, share, scalars = message.split([*(p.numel() for p in trained), len(trained), len(scalars)])
    for p, mean in zip(trained, means):
        if p.grad is not None:
            p.grad = mean.as_strided(p.shape, p.stride(), mean.storage_offset())
    return scalars.double(), (share > 0) & (share < 1)


def _in_memory_order(p: torch.nn.Parameter) -> Tensor:
    """The gradient of a parameter as a vector, its numbers as they lie in memory; zeros where there is none, so that all messages
    have one length."""
    gradient = torch.zeros_like(p) if p.grad is None else p.grad
    if gradient.stride() != p.stride():
        gradient = torch.empty_like(p).copy_(gradient)
    return gradient.as_strided((p.numel(),), (1,))


def largest(values: list[int], device: torch.device) -> list[int]:
    """The elementwise maximum over the processes, so that all of them act on what one of them knows."""
    if size() == 1:
        return values
    found = torch.tensor(values, device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return found.tolist()


def wait() -> None:
    if size() > 1:
        dist.barrier()
