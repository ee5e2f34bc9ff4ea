"""The inputs, outputs, settings and code of a stage as the rule files need them: as functions of Snakemake's wildcards.

Nothing here imports Snakemake.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mscl.config.schema import Config
from mscl.machine.files import atomic_write
from mscl.stages import rerun
from mscl.stages.jobs import dumps
from mscl.stages.layout import Layout
from mscl.stages.table import STAGES, Values, planned

Wildcards = Any  # Snakemake's, or a dict of plain values
OfWildcards = Callable[[Wildcards], Any]
WILDCARD = re.compile(r"\{\s*\w")


class Rules:
    """The stages of one configuration, for the rule files. Every method takes the name of a stage.

    `running` says whether jobs are run, and not only looked at: then files are written.
    """

    def __init__(self, config: Config, running: Callable[[], bool] = lambda: False):
        self.config, self.at, self.running = config, Layout(config), running
        # Hundreds of jobs share the same settings, so these are cached by the values that they depend on.
        self._job = functools.cache(lambda stage, *values: STAGES[stage].job(config, *values))
        self._lines = functools.cache(lambda stage, *values: rerun.lines(self._job(stage, *values)))
        self._json = functools.cache(lambda stage, *values: dumps(self._job(stage, *values)))
        self._hashes = functools.cache(lambda stage, modules: STAGES[stage].hashes_with(modules))

    def reads(self, stage: str) -> OfWildcards:
        """The input files, for `input: unpack(...)`.

        Of a shard that is read whole, its tar alone stands for both its files, which one job makes: half the files to look at.
        """

        def of(wildcards: Wildcards) -> dict[str, list[str]]:
            job = self._job(stage, *_key(stage, wildcards))
            found = STAGES[stage].inputs(self.config, self.at, _values(STAGES[stage].per, wildcards), job)
            return {kind: paths for kind, paths in found.items() if kind != "indexes" or "tars" not in found}

        return of

    def makes(self, stage: str) -> dict[str, str]:
        """The output files, for `output: **...`: paths with wildcards."""
        return STAGES[stage].makes(self.at, **self.wildcards(stage))

    def folder(self, stage: str) -> str:
        """The folder of the results, for a stage with run cards."""
        return getattr(self.at, stage)(**self.wildcards(stage))

    def records(self, stage: str) -> str:
        """The folder of the run card."""
        return self.at.records(self.folder(stage))

    def log(self, stage: str) -> str:
        """The log of a job."""
        return self.at.log(stage, self.wildcards(stage))

    def benchmark(self, stage: str) -> str:
        """The file for Snakemake's measurements of a job."""
        return self.at.benchmark(stage, self.wildcards(stage))

    def curves(self, stage: str) -> str:
        """The folder for TensorBoard curves."""
        return self.at.curves(stage, self.wildcards(stage))

    def job(self, stage: str) -> Callable[..., str]:
        """The JSON file of the job: exactly the settings that the stage uses. It is written when a job is about to run.

        Snakemake does not compare a parameter whose function takes `output`. It compares the parameters of `settings` instead,
        which contain the same values one by one.
        """

        def of(wildcards: Wildcards, output: Any) -> str:
            row, text = STAGES[stage], self._json(stage, *_key(stage, wildcards))
            path = Path(
                self.at.settings(stage, _values(row.per if row.settings_per is None else row.settings_per, wildcards), text)
            )
            if self.running() and not path.exists():
                with atomic_write(path) as temporary:
                    temporary.write_text(text)
            return str(path)

        return of

    @staticmethod
    def label(stage: str) -> Callable[..., str]:
        """What every line of a job's output on the console begins with, such as r18/mscl/s0 pretrain. Not compared, as `job`."""

        def of(wildcards: Wildcards, output: Any) -> str:
            run = [f"s{v}" if name == "seed" else str(v) for name, v in _values(STAGES[stage].per, wildcards).items()]
            return f"{'/'.join(run)} {stage}".strip()

        return of

    def settings(self, stage: str) -> list[str | OfWildcards]:
        """One rule parameter per setting of the job, so that a dry run names the setting that changed."""
        lines = {key: self._lines(stage, *key) for key in self._keys(stage)}
        return [_parameter(stage, {key: found[name] for key, found in lines.items()}) for name in rerun.names(STAGES[stage].kind)]

    def code(self, stage: str) -> list[str | OfWildcards]:
        """One rule parameter per file of code that any job of the stage uses: "path = hash"; "" for a job that does not use it.

        Snakemake compares the set of them, so "" is always one: a first file that one job alone uses reruns no other job.
        """
        hashes = {key: self._hashes(stage, self._job(stage, *key).modules()) for key in self._keys(stage)}
        paths = sorted({path for files in hashes.values() for path in files})
        return [""] + [
            _parameter(stage, {key: f"{path} = {files[path]}" if path in files else "" for key, files in hashes.items()})
            for path in paths
        ]

    def _keys(self, stage: str) -> list[tuple]:
        """The sets of values that the settings of the stage's jobs depend on, without duplicates."""
        return list(dict.fromkeys(_key(stage, job.values) for job in planned(self.config, stage)))

    @staticmethod
    def runtime(stage: str) -> int:
        """The time limit to request from a cluster, in minutes."""
        return int(60 * STAGES[stage].hours)

    @staticmethod
    def memory(stage: str) -> Callable[..., int]:
        """The memory to request from a cluster, in MB: the same again with each attempt, since the last may have had too little."""

        def of(wildcards: Wildcards, attempt: int) -> int:
            return STAGES[stage].memory_mb * attempt

        return of

    @staticmethod
    def wildcards(stage: str) -> dict[str, str]:
        """Each wildcard of the stage in braces, such as {"seed": "{seed}"}."""
        return {name: f"{{{name}}}" for name in STAGES[stage].per}


def _parameter(stage: str, lines: dict[tuple, str]) -> str | OfWildcards:
    """A rule parameter: its line of text for each set of values that it depends on.

    If all jobs have the same line, it is a plain text, so that Snakemake need not call a function for each job. A text in which
    Snakemake would find a wildcard stays a function.
    """
    same = set(lines.values())
    if len(same) == 1 and not WILDCARD.search(line := same.pop()):
        return line
    return lambda wildcards: lines[_key(stage, wildcards)]


def _key(stage: str, wildcards: Wildcards) -> tuple:
    """The values that the settings of a job depend on."""
    row = STAGES[stage]
    return tuple(_values(row.per if row.settings_per is None else row.settings_per, wildcards).values())


def _values(names: tuple[str, ...], wildcards: Wildcards) -> Values:
    """The named values, from Snakemake's wildcards or from a plain dict."""
    get = wildcards.get if isinstance(wildcards, dict) else functools.partial(getattr, wildcards)
    return {name: int(get(name)) if name == "seed" else str(get(name)) for name in names}
