"""`python -m mscl <command>`: commands on configurations, weights and results, and one per stage, which the workflow calls."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from mscl.cli import configured, stages
from mscl.cli.dvc import dvc
from mscl.cli.features import features
from mscl.cli.publish import publish
from mscl.cli.store import store
from mscl.machine.errors import sentence
from mscl.machine.slurm import requeue_when_time_is_up

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

# Exit codes of a stage that a cluster stopped; the same command resumes it.
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGUSR1)


def show_version(asked: bool) -> None:
    """Print the version of the package, and the commit of its checkout."""
    if not asked:
        return
    from mscl import __version__
    from mscl.stages.codehash import ROOT
    from mscl.stages.runcard import commit_of

    commit, why = commit_of(ROOT)
    print(f"mscl {__version__} ({f'commit {commit}' if commit else f'no commit: {why}'})")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def export(
    weights: Annotated[str, typer.Argument(help="Weights of mscl or of another library: a file, a published folder, or hf://….")],
    to: Annotated[str, typer.Option("--to", help="Target library: torchvision, mmaction2 or pyslowfast.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .safetensors, .pth, .pt or .pyth.")],
) -> None:
    """Write a backbone, and its classifier if there is one, with the parameter names of another library."""
    from mscl.models.export import export_weights
    from mscl.models.published import weights_file

    print(export_weights(weights_file(weights), to, out))


def tables(out: Annotated[Path, typer.Argument(help="The folder of a report.")]) -> None:
    """Print the tables of a report and the path of its HTML page."""
    from mscl.reporting.report import print_tables

    print_tables(out)


app.add_typer(store, name="store")
for command in (configured.check, configured.plan, configured.verify, features, publish, dvc, export, tables, configured.schema):
    app.command()(command)
app.command("job")(configured.show_job)
for command in stages.STAGES:
    app.command()(command)


def main() -> None:
    """Run a command. An error that mscl detects is printed as one sentence on stderr, with exit code 1.

    Any other error keeps its traceback; with MSCL_TRACE set, every error does.
    """
    try:
        app()
    except SystemExit as stop:
        if stop.code in STOPPED and not int(os.environ.get("RANK", 0)):  # only the first of several processes
            requeue_when_time_is_up()
        if stop.code in (*STOPPED, 128 + signal.SIGINT):
            _leave_threads(stop.code)
        raise
    except Exception as error:
        said = sentence(error)
        if said is None or os.environ.get("MSCL_TRACE"):
            raise
        print(f"error: {said}", file=sys.stderr)
        raise SystemExit(1) from None


def _leave_threads(code: int) -> None:
    """End this process where threads still work, as they do on a video or its flow: Python would wait for them."""
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
