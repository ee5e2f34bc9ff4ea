"""The table of experiment trackers that can get the curves of a training, beside TensorBoard."""

from __future__ import annotations

from mscl.config.module_path import refuse_unknown

# name -> function (project, run) -> what gets the points; `mscl.watch.tracking.Tracker` says what it must have.
TRACKERS: dict[str, str] = {
    "trackio": "mscl.watch.trackers:trackio",
    "wandb": "mscl.watch.trackers:wandb",
    "mlflow": "mscl.watch.trackers:mlflow",
}


def known_tracker(name: str) -> str:
    """Return `name` if it is a known tracker or a module path that exists; else raise ValueError."""
    refuse_unknown("tracker", name, list(TRACKERS))
    return name
