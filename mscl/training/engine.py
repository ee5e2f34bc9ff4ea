"""One training loop for pretraining and finetuning, read from top to bottom.

Deterministic: the order of an epoch comes from (seed, epoch), every random choice of a step from
(seed, step), so that a run which is killed and started again continues as if it had never stopped.
"""

from __future__ import annotations

import math
import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mscl.device import pick_device
from mscl.progress import tqdm
from mscl.training.checkpoint import load_checkpoint, save_checkpoint

Step = Callable[[dict, float, torch.Generator], dict[str, Tensor]]


class TrainingError(ValueError):
    """Training cannot go on; the text names the step and the terms."""


def prepare_device(device: str, threads: int) -> torch.device:
    """The device of a training job, set up to be deterministic; on a CPU the thread count is part of the result's bits."""
    chosen = pick_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(threads)
    elif 90800 <= (torch.backends.cudnn.version() or 0) < 91500:
        warnings.warn("cuDNN 9.8 to 9.14 computes half-precision Conv3d wrongly or slowly; install another", stacklevel=2)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products on a GPU need
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    return chosen


def learning_rate(recipe, step: int, steps_per_epoch: int) -> float:
    """Cosine to 0 over all steps, or x 0.1 at each epoch of `recipe.steps`."""
    if recipe.steps:
        return recipe.lr * 0.1 ** sum(step // steps_per_epoch >= e for e in recipe.steps)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * step / (steps_per_epoch * recipe.epochs)))


def make_optimizer(model: nn.Module, recipe) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=recipe.lr, betas=(recipe.momentum, 0.999), weight_decay=recipe.weight_decay)
    return torch.optim.SGD(trained, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step; dropout draws from the global one, seeded alike."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def epoch_batches(length: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Whole batches of a permutation; a data set smaller than one batch is one batch."""
    order = np.random.default_rng([seed, epoch]).permutation(length).tolist()
    if length < batch:
        return [order]
    return [order[i : i + batch] for i in range(0, length - batch + 1, batch)]


def autocast(device: torch.device):
    """bf16 on a GPU, nothing on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


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


DEFAULT = Machine()


@dataclass
class Progress:
    """Where a run stands: what a checkpoint holds beside the tensors."""

    step: int = 0
    history: list[dict] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0  # of the current epoch


class Run:
    """A model, its optimiser and its position; `fit` trains it to the end."""

    def __init__(self, model: nn.Module, dataset: Dataset, recipe, seed: int, settings: str, checkpoint: Path, machine: Machine):
        self.model, self.dataset, self.recipe, self.seed = model, dataset, recipe, seed
        self.settings, self.checkpoint, self.machine = settings, checkpoint, machine
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(model, recipe)
        self.steps_per_epoch = len(epoch_batches(len(dataset), recipe.batch, 0, 0))
        self.total = self.steps_per_epoch * recipe.epochs
        self.at = Progress()
        self._saved = time.monotonic()

    def resume(self) -> None:
        state = load_checkpoint(self.checkpoint, self.settings)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.at = Progress(**state["at"])
        print(f"resuming at step {self.at.step} of {self.total} from {self.checkpoint}")

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "at": vars(self.at)}
        save_checkpoint(self.checkpoint, state, self.settings)
        self._saved = time.monotonic()

    def fit(self, step: Step, title: str) -> pd.DataFrame:
        """Train from where the run stands; returns one row per epoch with mean losses and accuracies."""
        self.resume()
        stop = StopSignal()
        self.model.train()
        with tqdm(total=self.total, initial=self.at.step, desc=title, unit="step") as bar:
            while self.at.step < self.total:
                self._epoch(step, stop, bar)
        return pd.DataFrame(self.at.history)

    def _epoch(self, step: Step, stop: StopSignal, bar: tqdm) -> None:
        epoch, done = divmod(self.at.step, self.steps_per_epoch)
        self.dataset.set_epoch(epoch)
        batches = epoch_batches(len(self.dataset), self.recipe.batch, self.seed, epoch)
        loader = DataLoader(
            self.dataset, batch_sampler=batches[done:], num_workers=self.machine.workers, pin_memory=self.device.type == "cuda"
        )
        before, began = self.at.seconds, time.monotonic()
        for batch in loader:
            self._one(step, {k: v.to(self.device, non_blocking=True) for k, v in batch.items()})
            self.at.seconds = before + time.monotonic() - began
            bar.update()
            bar.set_postfix_str(f"loss {self.at.sums['loss'] / self._done_in_epoch():.3f}", refresh=False)
            if stop.number:
                self.save()
                raise SystemExit(128 + stop.number)
            if time.monotonic() - self._saved > 60 * self.machine.checkpoint_minutes:
                self.save()
        self._close_epoch(epoch)

    def _done_in_epoch(self) -> int:
        return (self.at.step - 1) % self.steps_per_epoch + 1

    def _one(self, step: Step, batch: dict) -> None:
        rate = learning_rate(self.recipe, self.at.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = step_generator(self.seed, self.at.step)
        with autocast(self.device):
            terms = step(batch, self.at.step / self.total, generator)
        loss = terms["loss"]
        if not torch.isfinite(loss):
            values = ", ".join(f"{k}={v.item():.4g}" for k, v in terms.items())
            raise TrainingError(f"loss is not finite at step {self.at.step} ({values}); last good checkpoint: {self.checkpoint}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        for name, value in terms.items():
            self.at.sums[name] = self.at.sums.get(name, 0.0) + value.item()
        self.at.step += 1

    def _close_epoch(self, epoch: int) -> None:
        n = self.steps_per_epoch
        row = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {name: total / n for name, total in self.at.sums.items()}
        row["clips_per_second"] = n * min(self.recipe.batch, len(self.dataset)) / max(self.at.seconds, 1e-9)
        self.at.history.append(row)
        self.at.sums, self.at.seconds = {}, 0.0
