"""The inputs, outputs, settings and code of a stage as the rule files need them: as functions of Snakemake's wildcards.

Nothing here imports Snakemake.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from mscl.config.schema import Config
from mscl.stages import rerun
from mscl.stages.jobs import dumps
from mscl.stages.layout import Layout
from mscl.stages.table import STAGES, Values, planned

OfWildcards = Callable[[Mapping[str, str]], Any]


class Rules:
    """The stages of one configuration, for the rule files. Every method takes the name of a stage."""

    def __init__(self, config: Config):
        self.config, self.at = config, Layout(config)
        # Hundreds of jobs share the same settings, so these are cached by the values that they depend on.
        self._job = functools.cache(lambda stage, *values: STAGES[stage].job(config, *values))
        self._lines = functools.cache(lambda stage, *values: rerun.lines(self._job(stage, *values)))
        self._json = functools.cache(lambda stage, *values: dumps(self._job(stage, *values)))
        self._hashes = functools.cache(lambda stage, *values: STAGES[stage].code_hashes(self._job(stage, *values)))
        self._inputs = functools.cache(lambda stage, *values: STAGES[stage].inputs(config, self.at, dict(values)))

    def reads(self, stage: str) -> OfWildcards:
        """The input files, for `input: unpack(...)`."""
        return lambda wildcards: self._inputs(stage, *_values(stage, wildcards).items())

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
        """The JSON of the job: exactly the settings that the stage uses.

        Snakemake does not compare a parameter whose function takes `output`. It compares the parameters of `settings` instead,
        which contain the same values one by one.
        """
        return lambda wildcards, output: self._json(stage, *self._key(stage, wildcards))

    def settings(self, stage: str) -> list[OfWildcards]:
        """One rule parameter per setting of the job, so that a dry run names the setting that changed."""

        def one(name: str) -> OfWildcards:
            return lambda wildcards: self._lines(stage, *self._key(stage, wildcards))[name]

        return [one(name) for name in rerun.names(STAGES[stage].kind)]

    def code(self, stage: str) -> list[OfWildcards]:
        """One rule parameter per file of code that any job of the stage uses: "path = hash", or "" for a job that does not use it."""

        def one(path: str) -> OfWildcards:
            def of(wildcards: Mapping[str, str]) -> str:
                found = self._hashes(stage, *self._key(stage, wildcards))
                return f"{path} = {found[path]}" if path in found else ""

            return of

        keys = dict.fromkeys(self._key(stage, job.values) for job in planned(self.config, stage))
        paths = {path for key in keys for path in self._hashes(stage, *key)}
        return [one(path) for path in sorted(paths)]

    @staticmethod
    def runtime(stage: str) -> int:
        """The time limit to request from a cluster, in minutes."""
        return int(60 * STAGES[stage].hours)

    @staticmethod
    def memory(stage: str) -> int:
        """The memory to request from a cluster, in MB."""
        return STAGES[stage].memory_mb

    @staticmethod
    def wildcards(stage: str) -> dict[str, str]:
        """Each wildcard of the stage in braces, such as {"seed": "{seed}"}."""
        return {name: f"{{{name}}}" for name in STAGES[stage].per}

    @staticmethod
    def _key(stage: str, wildcards: Mapping[str, str]) -> tuple:
        """The values that the settings of a job depend on."""
        row = STAGES[stage]
        values = _values(stage, wildcards)
        return tuple(values[name] for name in (row.per if row.settings_per is None else row.settings_per))


def _values(stage: str, wildcards: Any) -> Values:
    """The values of a stage from Snakemake's wildcards or from a plain dict."""
    get = wildcards.get if isinstance(wildcards, dict) else functools.partial(getattr, wildcards)
    return {name: int(get(name)) if name == "seed" else str(get(name)) for name in STAGES[stage].per}
