"""`python -m mscl publish`: weights as a folder that others can load and cite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def publish(
    results: Annotated[Path, typer.Argument(help="A pretraining: results/<name>/pretrain/<model>/<method>/seed<k>.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make: model.safetensors, config.json, README.md.")],
    licence: Annotated[
        str | None, typer.Option("--license", help="Of the weights, such as cc-by-nc-4.0; needed if they have seen real videos.")
    ] = None,
    given: Annotated[
        list[str],
        typer.Option(
            "--config", "--configfile", help="The configuration of the results (default: config.yaml), and key=value pairs."
        ),
    ] = [],  # noqa: B006
) -> None:
    """Make a folder of published weights: model.safetensors, config.json, and a model card with what was measured."""
    from mscl.config.overlay import read_words
    from mscl.config.schema import load_config
    from mscl.reporting.publish import publish as write

    path, values = read_words(given)
    print(write(results, out, load_config(values, str(path)), str(path), licence))
