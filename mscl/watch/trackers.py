"""The known trackers, each with the library's own start of a run. Loaded by name alone, so that training imports none of these libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mscl.watch.tracking import Tracker


class _Calls(NamedTuple):
    """A tracker made of two functions."""

    log: Callable[..., None]
    finish: Callable[[], None]


def trackio(project: str, run: str) -> Tracker:
    """Hugging Face's trackio; it writes to TRACKIO_DIR, by default in the user's cache."""
    import trackio as library

    library.init(project=project, name=run, resume="allow")
    return _Calls(library.log, library.finish)


def wandb(project: str, run: str) -> Tracker:
    """Weights & Biases, as its environment variables say (WANDB_MODE=offline: a folder, no account)."""
    import wandb as library

    made = library.init(project=project, name=run, id=run.replace("/", "-"), resume="allow")
    return _Calls(made.log, made.finish)


def mlflow(project: str, run: str) -> Tracker:
    """MLflow, as its environment variables say (MLFLOW_TRACKING_URI)."""
    import mlflow as library

    experiment = library.set_experiment(project).experiment_id
    earlier = library.MlflowClient().search_runs([experiment], f"attributes.run_name = '{run}'", max_results=1)
    library.start_run(run_id=earlier[0].info.run_id if earlier else None, run_name=run)
    return _Calls(library.log_metrics, library.end_run)
