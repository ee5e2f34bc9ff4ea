"""`python -m mscl dvc`: the DVC stages of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dvc(
    config: Annotated[Path, typer.Argument(help="A configuration in this repository, such as config/mine.yaml.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if the file is not up to date.")] = False,
) -> None:
    """Write the DVC stages of a configuration to experiments/<name>/dvc.yaml; docs/dvc.md says how to run and restore them."""
    from mscl.stages.pipelines import check_pipeline, write_pipeline

    if check:
        check_pipeline(config)
        return
    file = write_pipeline(config)
    print(f"{file}: written. Run it with `dvc repro {file}`; results that are there already: `dvc commit --force {file}`")
