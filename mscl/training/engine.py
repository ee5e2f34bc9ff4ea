"""One training loop for pretraining and finetuning, read from top to bottom; on one process or, under torchrun, on several.

Deterministic: the order of an epoch comes from (seed, epoch), every random choice of a step from
(seed, step), so that a run which is killed and started again continues as if it had never stopped.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mscl import distributed
from mscl.device import half_precision_error, pick_device
from mscl.progress import tqdm
from mscl.training.checkpoint import load_checkpoint, previous, save_checkpoint
from mscl.training.draws import Draws

CANARY = 0.02  # error of a bfloat16 Conv3d, relative to its largest output, above which something is wrong


class Step:
    """What a method does within one step of the loop. A step has several calls where its batch comes in parts."""

    def begin(self, progress: float) -> None:
        """Before the first part; `progress` of the whole training in [0, 1)."""

    def __call__(self, batch: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        """Scalars of one part of the batch: `loss`, with gradient, and whatever is to be watched."""
        raise NotImplementedError

    def end(self) -> None:
        """After the optimiser has moved."""


class TrainingError(ValueError):
    """Training cannot go on; the text names the step and the terms."""


def prepare_device(device: str, threads: int) -> torch.device:
    """The device of a training job, set up to be deterministic; on a CPU the thread count is part of the result's bits."""
    chosen = pick_device(device)
    distributed.start(chosen)
    if chosen.type == "cpu":
        torch.set_num_threads(threads)
    else:
        _warn_of_half_precision(chosen)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products on a GPU need
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    return chosen


def _warn_of_half_precision(device: torch.device) -> None:
    if 90800 <= (torch.backends.cudnn.version() or 0) < 91500:
        warnings.warn("cuDNN 9.8 to 9.14 computes half-precision Conv3d wrongly or slowly; install another", stacklevel=3)
    if (error := half_precision_error(device)) > CANARY:
        warnings.warn(
            f"bfloat16 Conv3d is off by {error:.1%} here (below {CANARY:.0%} is usual); install another cuDNN", stacklevel=3
        )


def learning_rate(recipe, step: int, steps_per_epoch: int) -> float:
    """Cosine to 0 over all steps, or x 0.1 at each epoch of `recipe.steps`; scaled linearly where `base_batch` is given."""
    lr = recipe.lr * (recipe.batch / recipe.base_batch if recipe.base_batch else 1)
    if recipe.steps:
        return lr * 0.1 ** sum(step // steps_per_epoch >= e for e in recipe.steps)
    return lr * 0.5 * (1 + math.cos(math.pi * step / (steps_per_epoch * recipe.epochs)))


def make_optimizer(model: nn.Module, recipe) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=recipe.lr, betas=(recipe.momentum, 0.999), weight_decay=recipe.weight_decay)
    return torch.optim.SGD(trained, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def epoch_batches(length: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Whole batches of a permutation; a data set smaller than one batch is one batch."""
    order = np.random.default_rng([seed, epoch]).permutation(length).tolist()
    if length < batch:
        return [order]
    return [order[i : i + batch] for i in range(0, length - batch + 1, batch)]


def autocast(device: torch.device):
    """bf16 on a GPU, nothing on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def train_step(
    step: Step, batch: dict, optimizer: torch.optim.Optimizer, recipe, progress: float, seed: int, number: int
) -> dict:
    """Forward, backward, one move of the optimiser. `batch` holds this process's rows of the whole batch.

    Returns the means of the step's scalars over parts and processes, as floats. Raises TrainingError, before anything has
    moved, when one is not finite.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    own = len(next(iter(batch.values())))
    first = distributed.rank() * own
    step.begin(progress)
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for part, rows in enumerate(_parts(own, recipe.accumulate)):
        draws = Draws(seed, number, own * distributed.size(), slice(first + rows.start, first + rows.stop), part)
        share = (rows.stop - rows.start) / own
        with autocast(parameters[0].device):
            terms = step({name: value[rows] for name, value in batch.items()}, draws)
        (terms["loss"] * share).backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * share
    distributed.mean_gradients(parameters)
    values = dict(zip(sums, distributed.mean(list(sums.values()))))
    if not math.isfinite(values["loss"]):
        raise TrainingError(f"loss is not finite at step {number} ({', '.join(f'{k}={v:.4g}' for k, v in values.items())})")
    nn.utils.clip_grad_norm_(parameters, recipe.clip_grad)
    optimizer.step()
    step.end()
    return values


def _parts(own: int, count: int) -> Iterator[slice]:
    size = -(-own // count)
    return (slice(at, min(at + size, own)) for at in range(0, own, size))


class StopSignal:
    """Remembers SIGTERM or SIGUSR1, so that the loop can save before it leaves."""

    def __init__(self):
        self.number = 0
        for name in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, self._remember)

    def _remember(self, number: int, _frame) -> None:
        self.number = number


@dataclass(frozen=True)
class Machine:
    """What changes how fast a run goes and never what comes out."""

    workers: int = 0  # loader processes
    checkpoint_minutes: float = 10
    resume_anyway: bool = False  # from a checkpoint of other settings, code or data


DEFAULT = Machine()


@dataclass
class Progress:
    """Where a run stands: what a checkpoint holds beside the tensors."""

    step: int = 0
    history: list[dict] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0  # of the current epoch
    waited: float = 0.0  # of these, for the loader


class Run:
    """A model, its optimiser and its position; `fit` trains it to the end.

    `identity` names what the run is made from (settings, code, data); a checkpoint of another is refused.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, recipe, seed: int, identity: dict, checkpoint: Path, machine: Machine):
        self.model, self.dataset, self.recipe, self.seed = model, dataset, recipe, seed
        self.identity, self.checkpoint, self.machine = identity, checkpoint, machine
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(model, recipe)
        self.steps_per_epoch = len(epoch_batches(len(dataset), recipe.batch, 0, 0))
        self.total = self.steps_per_epoch * recipe.epochs
        self.at = Progress()
        self._saved = time.monotonic()

    def resume(self) -> None:
        state = load_checkpoint(self.checkpoint, self.identity, self.machine.resume_anyway)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.at = Progress(**state["at"])
        if distributed.rank() == 0:
            print(f"resuming at step {self.at.step} of {self.total} from {self.checkpoint}")

    def save(self) -> None:
        """Write a checkpoint (the first process does). A full disk costs no more than the checkpoint: the last one stays."""
        self._saved = time.monotonic()
        if distributed.rank() == 0:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "at": vars(self.at)}
            try:
                save_checkpoint(self.checkpoint, state, self.identity)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                kept = f"{self.checkpoint} of an earlier step stays" if self.checkpoint.exists() else "there is none yet"
                print(f"no space left for a checkpoint at step {self.at.step}; {kept}; make room", file=sys.stderr)
        distributed.wait()

    def done(self) -> None:
        """Remove the checkpoints: the results are written."""
        self.checkpoint.unlink(missing_ok=True)
        previous(self.checkpoint).unlink(missing_ok=True)

    def fit(self, step: Step, title: str, monitor: Callable[[int, bool], dict[str, float]] | None = None) -> pd.DataFrame:
        """Train from where the run stands; returns one row per epoch with mean losses and accuracies.

        `monitor(epoch, last)` is asked after every epoch for further columns of its row.
        """
        self.monitor = monitor
        self.resume()
        stop = StopSignal()
        self.model.train()
        quiet = distributed.rank() > 0
        with tqdm(total=self.total, initial=self.at.step, desc=title, unit="step", disable=quiet) as bar:
            while self.at.step < self.total:
                self._epoch(step, stop, bar)
        return pd.DataFrame(self.at.history)

    def _epoch(self, step: Step, stop: StopSignal, bar: tqdm) -> None:
        epoch, done = divmod(self.at.step, self.steps_per_epoch)
        self.dataset.set_epoch(epoch)
        batches = epoch_batches(len(self.dataset), self.recipe.batch, self.seed, epoch)[done:]
        own = [batch[distributed.rows(len(batch))] for batch in batches]
        loader = iter(
            DataLoader(self.dataset, batch_sampler=own, num_workers=self.machine.workers, pin_memory=self.device.type == "cuda")
        )
        before, waited, began = self.at.seconds, self.at.waited, time.monotonic()
        for _ in own:
            asked = time.monotonic()
            batch = {k: v.to(self.device, non_blocking=True) for k, v in next(loader).items()}
            waited += time.monotonic() - asked
            self._one(step, batch)
            self.at.seconds, self.at.waited = before + time.monotonic() - began, waited
            bar.update()
            bar.set_postfix_str(self._said(), refresh=False)
            due = time.monotonic() - self._saved > 60 * self.machine.checkpoint_minutes
            stopped_by, due = distributed.largest([stop.number, int(due)], self.device)
            if stopped_by or due:
                self.save()
            if stopped_by:
                raise SystemExit(128 + stopped_by)
        self._close_epoch(epoch)

    def _done_in_epoch(self) -> int:
        return (self.at.step - 1) % self.steps_per_epoch + 1

    def _rates(self) -> dict[str, float]:
        """Clips per second and the share of the time that the loader was waited for, in this epoch; memory in GB."""
        clips = self._done_in_epoch() * min(self.recipe.batch, len(self.dataset))
        seconds = max(self.at.seconds, 1e-9)
        return {"clips_per_second": clips / seconds, "data_wait": self.at.waited / seconds, "memory_gb": memory_gb(self.device)}

    def _said(self) -> str:
        n, rates = self._done_in_epoch(), self._rates()
        nearest = {
            k: v / n
            for k, v in self.at.sums.items()
            if k.startswith(("acc_rgb", "acc_lmcl", "acc_order", "train_")) and "_to_" not in k
        }
        words = [f"loss {self.at.sums['loss'] / n:.3f}", *(f"{k.removeprefix('acc_')} {v:.2f}" for k, v in nearest.items())]
        return ", ".join([*words, f"{rates['clips_per_second']:.0f} clips/s", f"{rates['data_wait']:.0%} waiting for data",
                          f"{rates['memory_gb']:.1f} GB"])  # fmt: skip

    def _one(self, step: Step, batch: dict) -> None:
        rate = learning_rate(self.recipe, self.at.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        try:
            values = train_step(step, batch, self.optimizer, self.recipe, self.at.step / self.total, self.seed, self.at.step)
        except TrainingError as error:
            raise TrainingError(f"{error}; last good checkpoint: {self.checkpoint}") from None
        for name, value in values.items():
            self.at.sums[name] = self.at.sums.get(name, 0.0) + value
        self.at.step += 1

    def _close_epoch(self, epoch: int) -> None:
        n = self.steps_per_epoch
        row = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {name: total / n for name, total in self.at.sums.items()} | self._rates()
        if self.monitor:
            row |= self.monitor(epoch + 1, epoch + 1 == self.recipe.epochs)
            distributed.wait()  # the first process measures
        self.at.history.append(row)
        self.at.sums, self.at.seconds, self.at.waited = {}, 0.0, 0.0


def memory_gb(device: torch.device) -> float:
    """Most memory used so far: of the GPU, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
