"""What dvc.lock records of an experiment, and which of its stages are stale: `make lock-check`.

`python -m workflow.recorded` in the root compares code, settings and commands with those that dvc.lock recorded. It runs nothing and
needs neither data nor results. Exit code 1 if a stage is stale.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import PipelineStage

from mscl.stages.pipelines import check_pipeline

ROOT = Path(__file__).resolve().parents[1]


class RecordError(ValueError):
    """What is recorded cannot be used. The text gives the reason and what to do."""


def command(run: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Run a command of this folder in the root, for one experiment; an error is one sentence on stderr, with exit code 1."""
    parser.add_argument("--experiment", help="the folder below experiments/ (default: the demo, config.yaml)")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    for name in ("dvc", "dvc_objects", "dvc_data", "aiohttp_retry"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # their long warnings repeat the one-sentence errors
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # from s3fs, without credentials
    try:
        run(arguments)
    except ValueError as error:  # RecordError and ConfigError
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


class Recorded:
    """The DVC stages of one experiment, with the stages of other experiments that make its data.

    Use it as a context manager. Raises RecordError where there is no such experiment, no dvc.lock, or no DVC repository.
    """

    def __init__(self, experiment: str | None = None):
        self.file = f"experiments/{experiment}/dvc.yaml" if experiment else "dvc.yaml"
        self.lock = self.file.removesuffix("yaml") + "lock"
        if not Path(self.file).is_file():
            known = ", ".join(sorted(path.parent.name for path in Path("experiments").glob("*/dvc.yaml"))) or "none"
            raise RecordError(
                f"{self.file}: missing (experiments here: {known}); write it with `python -m mscl dvc config/{experiment}.yaml`"
            )
        if not Path(self.lock).exists():
            raise RecordError(
                f"{self.lock}: missing, so no results are recorded; run `{self.repro}` on the machine with the data and commit "
                f"{self.lock}, or check out a commit that has it"
            )
        try:
            self.repo = Repo(str(ROOT))
            mine = set(self.repo.stage.collect(self.file, with_deps=True))
            self.stages: list[PipelineStage] = [stage for stage in self.repo.index.stages if stage in mine]
        except DvcException as error:
            raise RecordError(f"{ROOT}: not a usable DVC repository ({line(error)}); clone it with git") from None

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        self.repo.close()

    @property
    def repro(self) -> str:
        """The command that runs the stale stages."""
        return "dvc repro" if self.file == "dvc.yaml" else f"dvc repro {self.file}"

    @property
    def config(self) -> Path:
        """The file with the settings of the experiment."""
        own = [stage for stage in self.stages if Path(stage.path) == ROOT / self.file]
        return Path(next(dep.def_path for stage in own for dep in stage.deps if isinstance(dep, ParamsDependency)))

    @property
    def files(self) -> list[str]:
        """Every dvc.yaml and dvc.lock of the stages."""
        found = {Path(stage.path).relative_to(ROOT).as_posix() for stage in self.stages}
        return sorted(name for path in found for name in (path, path.removesuffix("yaml") + "lock"))

    @property
    def outs(self) -> list[Output]:
        """Every output, of all stages."""
        return [out for stage in self.stages for out in stage.outs]

    def outs_below(self, folder: Path) -> list[Output]:
        """The outputs below a folder."""
        return [out for out in self.outs if out.def_path.startswith(f"{folder}/")]

    def stale(self) -> dict[str, list[str]]:
        """Stage -> what has changed since dvc.lock was written: code, settings, command, or the output of an earlier stage.

        A stage whose outputs are not recorded is stale, too. Files of data and results are not looked at.
        """
        made = {out.fs_path: out.hash_info for out in self.outs}
        found = {stage.addressing: _changes(stage, made) for stage in self.stages}
        return {name: changes for name, changes in found.items() if changes}


def _changes(stage: PipelineStage, made: dict) -> list[str]:
    if not all(out.hash_info for out in stage.outs):
        return ["not recorded"]
    found = ["its command"] if stage.cmd_changed else []
    for dep in stage.deps:
        if dep.fs_path in made:
            if dep.hash_info != made[dep.fs_path]:
                found.append(f"{dep.def_path} (recorded with another hash by its stage)")
        elif any(Path(out) in Path(dep.fs_path).parents for out in made):
            continue  # a part of another stage's output, whose hash is in the list of that output
        else:
            for path, how in dep.status().items():
                found += [f"{path}: {key}" for key in how] if isinstance(how, dict) else [path]
    return found


def line(error: BaseException) -> str:
    """The text of an error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def check(arguments: argparse.Namespace) -> None:
    """Print the stale stages and the command that mends them. Raises SystemExit with code 1 if there are any."""
    with Recorded(arguments.experiment) as recorded:
        if arguments.experiment:
            check_pipeline(recorded.config)
        stale, stages = recorded.stale(), len(recorded.stages)
        if not stale:
            print(f"{recorded.lock}: all {stages} stages have the code and the settings of this checkout")
            return
        print(f"{recorded.lock}: {len(stale)} of {stages} stages are stale. Changed since it was written:")
        width = max(map(len, stale))
        for name, changes in stale.items():
            print(f"  {name:{width}}  {', '.join(changes)}")
        locks = [file for file in recorded.files if file.endswith(".lock")]
        print(
            f"To mend it: {recorded.repro} && git add {' '.join(locks)}\n"
            "Snakemake runs only the jobs that a change concerns (for comments, none). Later stages run if their inputs change."
        )
        raise SystemExit(1)


if __name__ == "__main__":
    command(check, argparse.ArgumentParser(prog="python -m workflow.recorded", description=__doc__.split("\n")[0]))
