"""Curves for an experiment tracker, if `compute.tracking` asks for one: trackio, Weights & Biases, MLflow, or a function of the user's own.

Curves are no result, so a tracker is never a reason to fail or to wait: it is imported and called in a thread of its own, and its first error is said once
and ends it.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
from pathlib import Path
from typing import Protocol

from mscl.config.module_path import load
from mscl.config.tracking import TRACKERS
from mscl.stages.layout import run_of_curves

ASKED = (
    "MSCL_TRACKING"  # environment variable of the stage: the value of `compute.tracking`. No setting of a job, so it reruns none
)
LEAVE_AFTER = 10.0  # seconds at the end of a training for the points that a tracker still has to take; torchrun gives 30 to all


class Tracker(Protocol):
    """What gets the points. Made by a function (project, run); a run that resumes is made again under the same name."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Points of several curves after a step."""

    def finish(self) -> None:
        """No more points follow."""


class Tracking:
    """The tracker `name` for the run whose TensorBoard curves are in `folder`."""

    def __init__(self, name: str, folder: Path):
        self.name, self._points, self._over = name, queue.SimpleQueue(), False
        self._thread = threading.Thread(target=self._work, args=run_of_curves(folder), daemon=True)
        self._thread.start()

    def add(self, values: dict[str, float], number: int) -> None:
        """Points of several curves after step `number`."""
        if not self._over:
            self._points.put((values, number))

    def close(self) -> None:
        """Let the tracker take what it has been given, for a while."""
        self._points.put(None)
        self._thread.join(LEAVE_AFTER)
        if self._thread.is_alive():
            self._give_up(f"it has not taken all points {LEAVE_AFTER:g} s after the training")

    def _work(self, project: str, run: str) -> None:
        try:
            tracker: Tracker = load(TRACKERS.get(self.name, self.name))(project, run)
            while (point := self._points.get()) is not None:
                tracker.log(*point)
            tracker.finish()
        except (Exception, SystemExit) as error:  # noqa: BLE001 trackers have errors of their own, and some call exit
            self._give_up(str(error) or type(error).__name__)

    def _give_up(self, why: str) -> None:
        self._over = True
        warnings.warn(f"compute.tracking: {self.name} gets no more points ({why}); training goes on without it", stacklevel=3)


def asked_for(folder: Path) -> list[Tracking]:
    """The tracker that the stage is asked to use; empty without one."""
    name = os.environ.get(ASKED)
    return [Tracking(name, folder)] if name else []
