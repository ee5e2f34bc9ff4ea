"""The table of experiment trackers that can get the curves of a training, beside TensorBoard."""

from __future__ import annotations

from mscl.config.module_path import refuse_unknown

# name -> function (project, run) -> what gets the points; `mscl.watch.tracking.Tracker` says what it must have.
TRACKERS: dict[str, str] = {
    "trackio": "mscl.watch.tracking:trackio",
    "wandb": "mscl.watch.tracking:wandb",
    "mlflow": "mscl.watch.tracking:mlflow",
}


def known_tracker(name: str) -> str:
    """Return `name` if it is a known tracker or a module path that exists; else raise ValueError."""
    refuse_unknown("tracker", name, list(TRACKERS))
    return name
