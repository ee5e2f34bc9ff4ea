"""One step of a training: forward, backward, one move of the optimiser. On a GPU nothing in it waits for the device.

So the next step's kernels are launched while those of this step run. Its scalars arrive one step later; a loss or gradient that is
not finite does not wait for them: the optimiser sees it on the device and does not move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mscl.config.recipes import Optim
from mscl.config.settings import Kernels
from mscl.models import distributed
from mscl.training.draws import Draws
from mscl.training.hardware import DEFAULT, autocast

Batch = dict[str, Tensor]


class TrainingError(ValueError):
    """Training cannot go on; the text names the step and the terms."""


class Step:
    """What pretraining and finetuning do differently within a step, which has several calls where its batch comes in parts."""

    model: nn.Module
    kernels: Kernels = DEFAULT

    def begin(self, progress: float, step: float) -> None:
        """Before the first part; `progress` of the whole training in [0, 1), of which the step is the share `step`."""

    def __call__(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Scalars of one part of the batch: `loss`, with gradient, and whatever is to be watched."""
        raise NotImplementedError

    def end(self) -> None:
        """After the optimiser has moved."""


@dataclass(frozen=True)
class Scalars:
    """The scalars of step `number`, means over parts and processes, on their way from the device.

    `copied`, (names + 2 + parameters,) float64 in memory, which a GPU writes until `done`, holds them, the share of processes that
    called the others, the gradient's norm, and of each parameter 1 where some processes only have a gradient; a single process has
    no such rows.
    """

    number: int
    names: tuple[str, ...]
    parameters: tuple[str, ...]
    copied: Tensor
    done: torch.cuda.Event | None

    def values(self) -> dict[str, float]:
        """Wait for them. Raises TrainingError, in every process alike, when the loss or the gradient was not finite, or when a
        parameter had a gradient in some processes only."""
        *means, _, norm = self._arrived()[: len(self.names) + 2].tolist()
        if some := [name for name, uneven in zip(self.parameters, self.copied[len(self.names) + 2 :].tolist()) if uneven]:
            raise TrainingError(
                f"{len(some)} parameters have a gradient in some processes only, such as {some[0]}: every process must compute the "
                f"same terms of the loss (step {self.number})"
            )
        values = dict(zip(self.names, means))
        wrong = [what for what, value in (("loss", values["loss"]), ("gradient", norm)) if not math.isfinite(value)]
        if wrong:
            terms = ", ".join(f"{k}={v:.4g}" for k, v in [*values.items(), ("gradient norm", norm)])
            raise TrainingError(
                f"the {' and the '.join(wrong)} of step {self.number} {'is' if len(wrong) == 1 else 'are'} not finite ({terms})"
            )
        return values

    def called(self) -> bool:
        """Wait for them: whether any process called the others, the same answer in all of them."""
        return bool(self._arrived()[len(self.names)] > 0)

    def _arrived(self) -> Tensor:
        if self.done:
            self.done.synchronize()
        return self.copied


def train_step(
    step: Step, batch: Batch, optimizer: torch.optim.Optimizer, recipe: Optim, seed: int, number: int, total: int
) -> dict[str, float]:
    """Step `number` of `total`, waited for: see `begin_step`. Raises TrainingError when the loss or the gradient is not finite."""
    return begin_step(step, batch, optimizer, recipe, seed, number, total).values()


def begin_step(
    step: Step,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    recipe: Optim,
    seed: int,
    number: int,
    total: int,
    call: Callable[[], bool] = lambda: False,
) -> Scalars:
    """Step `number` of `total`: forward, backward, one move of the optimiser. `batch` holds this process's rows of the whole batch.

    Where `call()`, asked after the backward pass, is true, this process calls the others without a message of its own: `called` of
    what is returned tells all of them.

    In no process does the optimiser move when the loss or the gradient is not finite, or when a parameter has a gradient in some
    processes only: on a CPU TrainingError is raised before it would, on a GPU by `values()` of what is returned.
    """
    step.begin(number / total, 1 / total)
    optimizer.zero_grad(set_to_none=True)
    sums = _backward(step, batch, recipe.accumulate, seed, number)
    trained = {name: p for name, p in step.model.named_parameters() if p.requires_grad}
    calls = torch.full((), float(call()), device=sums["loss"].device)
    means, uneven = distributed.mean_gradients(trained, [*sums.values(), calls])  # not finite in one process: not finite in all
    norm = nn.utils.clip_grad_norm_(trained.values(), recipe.clip_grad)
    copied, done = _on_their_way(torch.cat([means, norm.double()[None], uneven.double()]))
    scalars = Scalars(number, tuple(sums), tuple(trained), copied, done)
    if means.is_cuda:  # a fused optimiser (`make_optimizer`) reads this on the device
        both = torch.stack([means[tuple(sums).index("loss")], norm.double()])
        optimizer.found_inf = ((~torch.isfinite(both)).any() | uneven.any()).float()
    else:
        scalars.values()
    optimizer.step()
    step.end()
    return scalars


def _on_their_way(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy in memory, and the event after which it is whole; None on a CPU."""
    if not values.is_cuda:
        return values, None
    copied = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return copied, done


def _backward(step: Step, batch: Batch, parts: int, seed: int, number: int) -> dict[str, Tensor]:
    """Forward and backward of a batch in parts, whose gradients add up; the means of its scalars."""
    any_tensor = next(iter(batch.values()))
    own, sums = len(any_tensor), {}
    first, device = distributed.rank() * own, any_tensor.device
    for part, rows in enumerate(_parts(own, parts)):
        mine = slice(first + rows.start, first + rows.stop)
        draws = Draws(seed, number, own * distributed.size(), mine, part, device)
        share = (rows.stop - rows.start) / own
        with autocast(device, step.kernels):
            terms = step({name: value[rows] for name, value in batch.items()}, draws)
        (terms["loss"] * share).backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * share
    return sums


def _parts(own: int, count: int) -> Iterator[slice]:
    size = -(-own // count)
    return (slice(at, min(at + size, own)) for at in range(0, own, size))
