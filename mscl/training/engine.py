"""One training loop for pretraining and finetuning, to be read from top to bottom: a run, its epochs, its steps.

It runs on one process or, under torchrun, on several. Deterministic: the order of an epoch comes from (seed, epoch), every random
choice of a step from (seed, step), so that a run which is killed and started again continues as if it had never stopped.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import pandas as pd
from torch import nn

from mscl.config.recipes import Optim
from mscl.machine.files import remove_leftovers
from mscl.machine.signals import StopSignal
from mscl.models import distributed
from mscl.models.finite import non_finite
from mscl.training.checkpoint import CheckpointError, load_checkpoint, previous, save_checkpoint
from mscl.training.loader import loading
from mscl.training.recipe import epoch_batches, learning_rate, load_moments, make_optimizer
from mscl.training.step import Batch, Scalars, Step, TrainingError, begin_step
from mscl.watch.curves import Watch

Monitor = Callable[[int, bool], dict[str, float]]  # (epoch, is it the last) -> further columns of its row


class Clips(Protocol):
    """A data set whose random choices depend on the epoch."""

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict: ...


@dataclass(frozen=True)
class Machine:
    """How a run is executed; not part of its identity."""

    workers: int = 0  # loader processes
    checkpoint_minutes: float = 10
    resume_anyway: bool = False  # from a checkpoint of other settings, code or data
    curves: Path | None = None  # folder for TensorBoard


DEFAULT = Machine()


@dataclass
class Progress:
    """Where a run stands: what a checkpoint holds beside the tensors."""

    step: int = 0
    history: list[dict] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)  # of the current epoch


@dataclass(frozen=True)
class Started:
    """A step whose scalars have not been looked at: how many clips it has, and how many seconds it waited for them."""

    scalars: Scalars
    clips: int
    waited: float


class Run:
    """A model, its optimiser and its position; `fit` trains it to the end.

    `identity` names what the run is made from (settings, code, data); a checkpoint of another is refused.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Clips,
        recipe: Optim,
        seed: int,
        identity: dict[str, str],
        checkpoint: Path,
        machine: Machine,
    ):
        self.model, self.dataset, self.recipe, self.seed = model, dataset, recipe, seed
        self.identity, self.checkpoint, self.machine = identity, checkpoint, machine
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(model, recipe)
        self.steps_per_epoch = len(epoch_batches(len(dataset), recipe.batch, 0, 0))
        self.total = self.steps_per_epoch * recipe.epochs
        self.at = Progress()
        self._saved = time.monotonic()
        self._started: Started | None = None
        self._called = False  # by a process that wants a checkpoint or is told to stop

    def fit(self, step: Step, monitor: Monitor | None = None, gpu_share: Callable[[float], float] | None = None) -> pd.DataFrame:
        """Train from where the run stands; returns one row per epoch with mean losses and accuracies.

        `monitor` is asked after every epoch; `gpu_share` goes to `Watch`.
        """
        self.monitor = monitor
        self.resume()
        stop = StopSignal()
        self.model.train()
        quiet = distributed.rank() > 0
        self.watch = watch = Watch(self.total, self.at.step, self.device, self.machine.curves, gpu_share, quiet)
        try:
            epochs, within = divmod(self.at.step, self.steps_per_epoch)
            if self.at.sums and not within:  # the checkpoint was written between an epoch's last step and its row
                watch.epoch(self.at.step, self._close_epoch(epochs - 1))
            while self.at.step < self.total:
                self._epoch(step, stop)
        finally:
            watch.close()
        self.save()  # what comes after the training may be interrupted, too
        stop.release()
        return pd.DataFrame(self.at.history)

    def _epoch(self, step: Step, stop: StopSignal) -> None:
        """The steps of an epoch that are still to be done; a checkpoint now and then, and when the process is told to stop."""
        epoch, done = divmod(self.at.step, self.steps_per_epoch)
        self.dataset.set_epoch(epoch)
        batches = epoch_batches(len(self.dataset), self.recipe.batch, self.seed, epoch)[done:]
        own = [batch[distributed.rows(len(batch))] for batch in batches]
        with loading(self.dataset, own, self.machine.workers, pin=self.device.type == "cuda") as loader:
            for clips in map(len, batches):
                asked = time.monotonic()
                batch = {k: v.to(self.device, non_blocking=True) for k, v in next(loader).items()}
                waited = time.monotonic() - asked
                self._step(step, batch, clips, waited, stop)
                self._save_if_called(stop)
        self._settle()
        self._called = bool(distributed.largest([int(self._wants_to_save(stop))], self.device)[0])  # before the monitor's minutes
        self._save_if_called(stop)
        self.watch.epoch(self.at.step, self._close_epoch(epoch))

    def _wants_to_save(self, stop: StopSignal) -> bool:
        """Whether this process is told to stop, or its last checkpoint is old."""
        return bool(stop.number) or time.monotonic() - self._saved > 60 * self.machine.checkpoint_minutes

    def _save_if_called(self, stop: StopSignal) -> None:
        """A checkpoint now and then; and when any process is told to stop, after which all leave.

        Several processes know it of each other from the scalars of a step, since to ask in every step would wait for the GPU.
        """
        if not (self._called if distributed.size() > 1 else self._wants_to_save(stop)):
            return
        self.save()
        self._called = False
        if stopped_by := max(distributed.largest([stop.number], self.device)):
            raise SystemExit(128 + stopped_by)

    def _step(self, step: Step, batch: Batch, clips: int, waited: float, stop: StopSignal) -> None:
        """One step at the rate that the recipe has for it. Its scalars are looked at when the next one runs, on a CPU at once."""
        rate = learning_rate(self.recipe, self.at.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        try:
            call = partial(self._wants_to_save, stop)
            scalars = begin_step(step, batch, self.optimizer, self.recipe, self.seed, self.at.step, self.total, call)
        except TrainingError as error:
            raise self._failed(str(error)) from None
        self.at.step += 1
        self._settle()
        self._started = Started(scalars, clips, waited)
        if self.device.type == "cpu":
            self._settle()

    def _settle(self) -> None:
        """Let the scalars of the last step enter the sums of the epoch; raise TrainingError where they are not finite."""
        started, self._started = self._started, None
        if started is None:
            return
        try:
            values = started.scalars.values()
        except TrainingError as error:
            raise self._failed(str(error)) from None
        self._called |= started.scalars.called()
        for name, value in values.items():
            self.at.sums[name] = self.at.sums.get(name, 0.0) + value
        self.watch.step(started.scalars.number + 1, values, started.clips, started.waited)

    def _close_epoch(self, epoch: int) -> dict[str, float]:
        """The row of the history of an epoch whose last step is done."""
        n = self.steps_per_epoch
        row = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {name: total / n for name, total in self.at.sums.items()}
        if self.monitor:
            row |= self.monitor(epoch + 1, epoch + 1 == self.recipe.epochs)
            distributed.wait()  # the first process measures
        self.at.history.append(row)
        self.at.sums = {}
        return row

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one. Raises CheckpointError where it cannot be used."""
        if distributed.rank() == 0:
            remove_leftovers(self.checkpoint.parent)
        state = load_checkpoint(self.checkpoint, self.identity, self.machine.resume_anyway)
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            load_moments(self.optimizer, state["optimizer"])
            self.at = Progress(**state["at"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            first = " ".join(str(error).split(":")[-1].split())[:160]
            raise CheckpointError(
                f"{self.checkpoint}: holds another network or optimiser than this job trains ({first}), which --resume-anyway cannot "
                "change; restore method, backbone, width and optimiser, or delete the file to start again"
            ) from None
        if distributed.rank() == 0:
            print(f"resuming at step {self.at.step} of {self.total} from {self.checkpoint}")

    def save(self) -> None:
        """Write a checkpoint (the first process does). A full disk costs no more than the checkpoint: the last one stays.

        Raises TrainingError, and writes nothing, when a weight or a moment of the optimiser is not finite.
        """
        self._saved = time.monotonic()
        self._settle()
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "at": vars(self.at)}
        name = non_finite(state)
        if any(distributed.largest([int(bool(name))], self.device)):
            raise self._failed(f"{name or 'a tensor of another process'} is not finite after step {self.at.step}")
        if distributed.rank() == 0:
            try:
                save_checkpoint(self.checkpoint, state, self.identity)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                kept = f"{self.checkpoint} of an earlier step stays" if self.checkpoint.exists() else "there is none yet"
                print(f"no space left for a checkpoint at step {self.at.step}; {kept}; make room", file=sys.stderr)
        distributed.wait()

    def _failed(self, why: str) -> TrainingError:
        """What is said when the training itself fails: `why`, and from where it can go on."""
        good = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint.exists() else "there is no checkpoint yet"
        return TrainingError(f"{why}; {good}; lower lr or clip_grad in the recipe of this model")

    def done(self) -> None:
        """Remove the checkpoints: the results are written."""
        self.checkpoint.unlink(missing_ok=True)
        previous(self.checkpoint).unlink(missing_ok=True)
