"""The DVC stages of an experiment: `python -m mscl dvc config/mine.yaml` writes experiments/<name>/dvc.yaml.

They are the stages of dvc.yaml, which are those of config.yaml, with the paths and settings of another configuration. What is made of
videos is one stage for each data set: DVC allows one home for each output, so experiments with the same `paths.data` share the stages
of the experiment that was written first.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mscl.config.overlay import DEFAULT
from mscl.config.schema import Config, load_config
from mscl.config.validation import ConfigError, read_yaml
from mscl.machine.files import atomic_write
from mscl.stages import build
from mscl.stages.jobs import dumps
from mscl.stages.layout import Layout
from mscl.stages.table import STAGES, planned
from mscl.stages.verify import flat

MAIN = Path("dvc.yaml")
FOLDER = Path("experiments")
# Stage of DVC -> the rows of the stage table that its Snakemake target runs.
ROWS = {
    "data": ("download", "dataset", "manifest"),
    "frames": ("frames",),
    "flow": ("flow",),
    "pretrain": ("adopt", "pretrain"),
    "finetune": ("finetune", "linear", "embed", "frozen"),
    "report": ("data_health", "flow_error", "analysis", "report"),
}
PER_DATASET = ("data", "frames", "flow")
DATA, RESULTS = "${paths.data}/", "${paths.results}/"  # what paths begin with in dvc.yaml


def write_pipeline(path: Path) -> Path:
    """Write the DVC stages of the configuration `path`, and return their file. Raises ConfigError if DVC cannot version it."""
    file, text = pipeline(path)
    with atomic_write(file) as temporary:
        temporary.write_text(text)
    return file


def check_pipeline(path: Path) -> Path:
    """Return the file of the DVC stages of a configuration. Raises ConfigError if it is not what `write_pipeline` would write."""
    file, text = pipeline(path)
    if not file.is_file() or file.read_text() != text:
        raise ConfigError(f"{file}: not the stages of {path} as it is now; write them with `python -m mscl dvc {path}`")
    return file


def pipeline(path: Path) -> tuple[Path, str]:
    """(the file of the DVC stages of a configuration, its text). Paths are relative to the working folder, which is the root."""
    if not MAIN.is_file():
        raise ConfigError(f"{MAIN}: not in this folder; run this in the root of a checkout of the repository")
    mine = _read(path)
    file = FOLDER / mine.config.name / "dvc.yaml"
    if file.is_file() and (theirs := config_of(file)) != mine.path:
        raise ConfigError(f"{path}: name: {file} has the stages of {theirs}; give {path} another name, or delete {file.parent}")
    others = [other for other in (MAIN, *sorted(FOLDER.glob("*/dvc.yaml"))) if other != file]
    homes = {out: other for other in others for out in _outs_of(other)}
    main = yaml.safe_load(MAIN.read_text())
    found = list(_stages(mine, main["stages"], homes))
    stages = dict(found)
    if len(stages) < len(found):
        raise ConfigError(
            f"{path}: datasets: two names differ only in characters that DVC does not take in a stage's name; rename one"
        )
    text = yaml.safe_dump({"stages": stages} | {key: main[key] for key in ("metrics", "plots")}, sort_keys=False, width=200)
    text = text.replace(RESULTS, f"../../{mine.config.paths.results}/")  # what is left: metrics and plots, relative to their file
    head = f"# Written by `python -m mscl dvc {path}`. Run it again when the configuration has changed. See docs/dvc.md.\n"
    return file, head + text


def config_of(file: Path) -> Path:
    """The configuration whose stages a dvc.yaml has."""
    try:
        (one,) = yaml.safe_load(file.read_text())["stages"]["report"]["params"]
        return Path(next(iter(one)))
    except (OSError, ValueError, KeyError, TypeError, StopIteration, yaml.YAMLError):
        raise ConfigError(
            f"{file}: not the DVC stages of an experiment; delete it and write it with `python -m mscl dvc`"
        ) from None


def _outs_of(file: Path) -> Iterator[str]:
    """Every output of a dvc.yaml, relative to the root."""
    paths = read_yaml(config_of(file))["paths"]
    for stage in yaml.safe_load(file.read_text())["stages"].values():
        for text in _names(stage["outs"]):
            yield text.replace(DATA, f"{paths['data']}/").replace(RESULTS, f"{paths['results']}/")


def _names(outs: list) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in outs]


@dataclass(frozen=True)
class _Given:
    """A configuration, its file, and the sections that the file has."""

    path: Path
    config: Config
    sections: tuple[str, ...]

    @functools.cached_property
    def rows(self) -> set[str]:
        """The rows of the stage table that have jobs."""
        return {job.stage.name for job in planned(self.config)}

    def datasets(self, kind: str) -> list[str]:
        """The data sets of which there is something below <paths.data>/`kind`."""
        used = build.used_datasets(self.config)
        if kind == "flow":
            return [d for d in used if d in build.flow_datasets(self.config)]
        return [d for d in used if kind != "downloads" or self.config.datasets[d].download]

    def paths(self, text: str, datasets: list[str]) -> list[str]:
        """The files and folders for a path of dvc.yaml: one for each data set below `paths.data`, none where nothing is made."""
        at = Layout(self.config)
        if text.startswith(DATA):
            kind = text.removeprefix(DATA)
            path_of = {
                "downloads": at.download,
                "datasets": at.dataset,
                "manifests": at.manifest,
                "frames": at.frames,
                "flow": at.flow,
            }
            return [path_of[kind](d) for d in self.datasets(kind) if d in datasets]
        if text.startswith(RESULTS):
            name = text.removeprefix(RESULTS)
            row = name.removeprefix("cards/")
            made = self.rows | ({"analysis"} if name == "analysis" and "flow_error" in self.rows else set())
            return [] if row in STAGES and row not in made | {"report"} else [f"{at.results}/{name}"]
        return [text]


def _read(path: Path) -> _Given:
    """The configuration. Raises ConfigError with the reason if DVC cannot version its results."""
    root = Path.cwd().resolve()
    if not Path(path).resolve().is_relative_to(root):
        raise ConfigError(f"{path}: not below {root}; put it into the repository, so that others get it with the code")
    path = Path(path).resolve().relative_to(root)
    if path == DEFAULT:
        raise ConfigError(f"{path}: its stages are in {MAIN}, which takes names and paths from it; nothing has to be written")
    values = read_yaml(path)
    if not isinstance(values, dict) or "name" not in values:
        raise ConfigError(f"{path}: only a part of a configuration; under DVC it must be whole, with a name")
    config = load_config(values, str(path))
    for key, folder in (("data", config.paths.data), ("results", config.paths.results)):
        if folder.is_absolute() or ".." in folder.parts:
            raise ConfigError(
                f"{path}: paths.{key}: {folder} is not below the repository, as DVC requires; write {key}/{config.name}"
            )
    return _Given(path, config, tuple(values))


def _stages(mine: _Given, main: dict[str, Any], homes: dict[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, stage) for each DVC stage of the configuration that no other experiment has."""
    for name, row in main.items():
        if name not in PER_DATASET:
            stage = _stage(mine, name, row, mine.datasets(name))
            _check_results(mine, stage, homes)
            if stage["outs"]:
                yield name, stage
            continue
        for dataset in mine.datasets(name):
            stage = _stage(mine, name, row, [dataset])
            if not _shared(mine, name, dataset, stage, homes):
                yield re.sub(r"[^\w-]", "_", f"{name}-{dataset}"), stage  # DVC takes no other characters


def _stage(mine: _Given, name: str, row: dict[str, Any], datasets: list[str]) -> dict[str, Any]:
    """A stage of dvc.yaml for another configuration, which looks at these data sets."""
    target, (sections,), config = row["cmd"].rpartition(" -- ")[2], row["params"][0].values(), shlex.quote(str(mine.path))
    if name in PER_DATASET:
        target = f"{target}_{datasets[0]}"
        if "." not in datasets[0]:  # which DVC takes for the next level
            sections = [f"datasets.{datasets[0]}" if section == "datasets" else section for section in sections]
    given = [path for text in row["deps"] for path in mine.paths(text, datasets) if path != str(mine.path)]
    return {
        "desc": row["desc"],
        "wdir": "../..",
        "cmd": f"python -m mscl dvc --check {config} && snakemake --cores all --configfile {config} $SNAKEMAKE_ARGS -- {shlex.quote(target)}",
        "deps": given + _own_code(mine, name, given),
        "params": [{str(mine.path): sections and [section for section in sections if section.split(".")[0] in mine.sections]}],
        "outs": [{path: {"persist": True}} for text in _names(row["outs"]) for path in mine.paths(text, datasets)],
    }


def _own_code(mine: _Given, name: str, listed: list[str]) -> list[str]:
    """The user's own files of code that the jobs of a DVC stage run, if they are in the repository."""
    row_modules = {
        (job.stage.name, job.stage.settings(mine.config, job.values).modules()) for job in planned(mine.config, *ROWS[name])
    }
    files = {file for row, modules in row_modules for file in STAGES[row].hashes_with(modules)}
    return sorted(
        f for f in files if not Path(f).is_absolute() and not any(f == dep or f.startswith(f"{dep}/") for dep in listed)
    )


def _shared(mine: _Given, name: str, dataset: str, stage: dict[str, Any], homes: dict[str, Path]) -> bool:
    """Whether another experiment has this stage of a data set. Raises ConfigError if it makes it with other settings."""
    for out in _names(stage["outs"]):
        home = next((homes[str(path)] for path in (Path(out), *Path(out).parents) if str(path) in homes), None)
        if home is None:
            continue
        theirs = config_of(home)
        before, now = (_settings(config, name, dataset) for config in (load_config(theirs), mine.config))
        if not before:
            raise ConfigError(
                f"{mine.path}: paths.data: {out} would lie in an output of {home}, and {theirs} makes no such data set there; give "
                f"{mine.path} another folder"
            )
        if before != now:
            key = next(key for key in sorted({*before, *now}) if before.get(key, "missing") != now.get(key, "missing"))
            raise ConfigError(
                f"{mine.path}: paths.data: {theirs} makes {out} with other settings ({key}: {before.get(key, 'missing')}, here "
                f"{now.get(key, 'missing')}); set the same, or give {mine.path} another folder"
            )
        return True
    return False


def _settings(config: Config, name: str, dataset: str) -> dict[str, Any]:
    """Everything that the jobs of a data set depend on, in one DVC stage: "row.setting" -> value."""
    jobs = {
        job.stage.name: job.stage.settings(config, job.values)
        for job in planned(config, *ROWS[name])
        if job.values["dataset"] == dataset
    }
    return {f"{row}.{key}": value for row, job in jobs.items() for key, value in flat(json.loads(dumps(job)))}


def _check_results(mine: _Given, stage: dict[str, Any], homes: dict[str, Path]) -> None:
    """Raise ConfigError if an output of a stage lies in an output of another experiment, or around it."""
    for out in map(Path, _names(stage["outs"])):
        for theirs, home in homes.items():
            if out.is_relative_to(theirs) or Path(theirs).is_relative_to(out):
                cure = "give each experiment a folder of its own" + (f", or delete {home.parent}" if home != MAIN else "")
                raise ConfigError(f"{mine.path}: paths.results: {theirs} is an output of {home}; {cure}")
