"""The table of the workflow's stages: one row each with its jobs, settings, inputs, outputs, code, time and memory.

The rules, the plan, run cards, `mscl verify`, the report and the test of dvc.yaml all read this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mscl.config.foreign import foreign_of
from mscl.config.schema import Config
from mscl.config.targets import Target
from mscl.stages import build, jobs
from mscl.stages.codehash import file_hashes
from mscl.stages.jobs import Job
from mscl.stages.layout import MADE, Layout

RUN = ("model", "method", "seed")
TESTED = ("target", *RUN)
Values = dict[str, Any]  # what identifies a job within its stage, such as {"model": "r18", "method": "mscl", "seed": 0}


def _nothing(config: Config, at: Layout, **values: Any) -> dict[str, list[str]]:
    return {}


@dataclass(frozen=True)
class Stage:
    """One stage of the workflow. `reads` and `makes` take the values of a job, or Snakemake's wildcards such as "{seed}"."""

    name: str
    per: tuple[str, ...]  # names of the values that identify a job, such as ("model", "method", "seed")
    jobs: Callable[[Config], Iterable[tuple]]  # config -> the values of all jobs, in the order of `per`
    kind: type[Job]  # class of its jobs
    job: Callable[..., Job]  # (config, *values of `settings_per`) -> the job
    makes: Callable[..., dict[str, str]]  # (layout, **values) -> output files by name
    code: str  # the module where its code starts
    settings_per: tuple[str, ...] | None = None  # the part of `per` that its settings depend on; None: all
    reads: Callable[..., dict[str, list[str]]] = _nothing  # (config, layout, **values) -> inputs that the settings do not name
    files: tuple[str, ...] = ()  # further files of the package that it uses: templates and tables
    hours: float = 0.5  # time limit to request from a cluster
    memory_mb: int = 4000
    carded: bool = False  # whether it writes a run card

    def settings(self, config: Config, values: Values) -> Job:
        """The job (the settings) for these values."""
        return self.job(config, *(values[name] for name in (self.per if self.settings_per is None else self.settings_per)))

    def inputs(self, config: Config, at: Layout, values: Values, job: Job) -> dict[str, list[str]]:
        """Every file that must exist before `job`, the job for these values, runs; by kind."""
        named = {kind: [str(p) for p in paths] for kind, paths in job.reads().items()}
        return named | self.reads(config, at, **values)

    def code_hashes(self, job: Job) -> dict[str, str]:
        """Path -> hash of each file of code that the stage uses for this job."""
        return self.hashes_with(job.modules())

    def hashes_with(self, modules: tuple[str, ...]) -> dict[str, str]:
        """Path -> hash of each file of code, for all jobs that name these modules."""
        return file_hashes(self.code, *modules, files=self.files)


@dataclass(frozen=True)
class Planned:
    """One job of the workflow."""

    stage: Stage
    values: Values


def planned(config: Config, *names: str) -> Iterator[Planned]:
    """Yield every job of a configuration, in the order of the workflow; with `names`, only the jobs of these stages."""
    for stage in STAGES.values():
        if not names or stage.name in names:
            for values in stage.jobs(config):
                yield Planned(stage, dict(zip(stage.per, values, strict=True)))


def outputs(config: Config, *names: str, dataset: str | None = None) -> list[str]:
    """All output files of the named stages; with `dataset`, of the stages of a data set, only those of this one."""
    at = Layout(config)
    mine = (p for p in planned(config, *names) if dataset in (None, p.values.get("dataset")))
    return [path for p in mine for path in p.stage.makes(at, **p.values).values()]


# The jobs of each stage.


def _once(config: Config) -> Iterator[tuple]:
    yield ()


def _datasets(config: Config) -> Iterator[tuple]:
    return ((d,) for d in build.used_datasets(config))


def _downloads(config: Config) -> Iterator[tuple]:
    return ((d,) for d in build.used_datasets(config) if config.datasets[d].download)


def _shards(config: Config, datasets: Iterable[str]) -> Iterator[tuple]:
    return ((d, f"{n:04d}") for d in datasets for n in range(config.datasets[d].shards))


def _pretrained(config: Config) -> Iterator[tuple]:
    return ((model, *run) for model in config.models for run in product(config.pretrained_of(model), config.seeds))


def _tested(config: Config, targets: Iterable[Target]) -> Iterator[tuple]:
    return ((*one, *run) for one in _models(config, targets) for run in product(config.methods_of(one[1]), config.seeds))


def _models(config: Config, targets: Iterable[Target]) -> Iterator[tuple]:
    """(target, model) for each model that is tested on a target."""
    return ((target.name, model) for target in targets for model in config.models if target in config.targets_of(model))


def _embedded(config: Config) -> Iterator[tuple]:
    runs = _tested(config, [target for target in config.targets if target.frozen])
    return (run for run in runs if build.features_of(config, *run[:2]) == run[0])


# Inputs that the settings do not name, and outputs.


def _annotations(config: Config, at: Layout, dataset: str) -> dict[str, list[str]]:
    """The annotation files that the user provides: an edit of one reruns the stages that depend on it.

    Files that the workflow makes itself (generated, downloaded, unpacked) are left out: the inputs of a job must not change
    because the job ran.
    """
    data = config.datasets[dataset]
    if data.embedded:
        return {}
    every = [data, *(data.of_fold(fold) for fold in config.folds(dataset))]
    brought = dict.fromkeys(str(path) for one in every for path in one.brought_files())
    return {"downloaded": [at.download(dataset)] if data.download else [], "brought": list(brought)}


def _shard(folder: str, shard: str) -> dict[str, str]:
    return {"index": f"{folder}/{shard}.parquet", "tar": f"{folder}/{shard}.tar"}


def _flow_inputs(config: Config, at: Layout, dataset: str, shard: str) -> dict[str, list[str]]:
    """The frames, and RAFT's weights if the file exists. If it does not, the job fails and tells where to get it."""
    weights = config.flow.weights if config.flow.network else None
    return {kind: [path] for kind, path in _shard(at.frames(dataset), shard).items()} | {
        "weights": [str(weights)] if weights and Path(weights).exists() else []
    }


def _foreign_file(config: Config, at: Layout, model: str, method: str) -> dict[str, list[str]]:
    """The file of others' weights if it exists. If it does not, the workflow or the job says where the configuration names it."""
    given = config.foreign(model, method)
    return {"file": [str(given.file)] if given and given.file.exists() else []}


def _results(stage: str) -> Callable[..., dict[str, str]]:
    """The outputs of a stage with a run card: the files in its folder, and the card in its own folder."""

    def makes(at: Layout, **values: Any) -> dict[str, str]:
        folder = getattr(at, stage)(**values)
        return {name: f"{folder}/{file}" for name, file in MADE[stage].items()} | {"card": at.card(folder)}

    return makes


def _everything(config: Config, at: Layout) -> dict[str, list[str]]:
    """All results that the report reads."""
    found: dict[str, list[str]] = {"data": [], "weights": [], "metrics": [], "pairs": [], "gradcam": [], "flow_error": []}
    stages = ("data_health", "flow_error", "adopt", "pretrain", "finetune", "linear", "frozen", "analysis")
    for job in planned(config, *stages):
        for name, path in job.stage.makes(at, **job.values).items():
            if name in found and (name != "weights" or job.stage.name in ("adopt", "pretrain")):
                found[name].append(path)
    return found


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "download",
            per=("dataset",),
            jobs=_downloads,
            kind=jobs.DownloadJob,
            job=build.download_job,
            makes=lambda at, dataset: {"list": at.download(dataset)},
            code="mscl.datasets.acquire.download",
            files=("mscl/datasets/acquire/sources.csv",),
            hours=7 * 24,
        ),
        Stage(
            "dataset",
            per=("dataset",),
            jobs=_datasets,
            kind=jobs.DatasetJob,
            job=build.dataset_job,
            reads=_annotations,
            makes=lambda at, dataset: {"list": at.dataset(dataset)},
            code="mscl.datasets.prepare",
            hours=4,
            memory_mb=2000,
        ),
        Stage(
            "manifest",
            per=("dataset",),
            jobs=_datasets,
            kind=jobs.ManifestJob,
            job=build.manifest_job,
            reads=lambda config, at, dataset: {"list": [at.dataset(dataset)]},
            makes=lambda at, dataset: {"manifest": at.manifest(dataset)},
            code="mscl.datasets.manifest",
        ),
        Stage(
            "frames",
            per=("dataset", "shard"),
            settings_per=("dataset",),
            jobs=lambda config: _shards(config, build.used_datasets(config)),
            kind=jobs.FramesJob,
            job=build.frames_job,
            reads=lambda config, at, dataset, shard: {"manifest": [at.manifest(dataset)]},
            makes=lambda at, dataset, shard: _shard(at.frames(dataset), shard),
            code="mscl.video.extract",
            hours=4,
        ),
        Stage(
            "flow",
            per=("dataset", "shard"),
            settings_per=(),
            jobs=lambda config: _shards(config, build.flow_datasets(config)),
            kind=jobs.FlowJob,
            job=build.flow_job,
            reads=_flow_inputs,
            makes=lambda at, dataset, shard: _shard(at.flow(dataset), shard),
            code="mscl.flow.shard",
            hours=8,
            memory_mb=8000,
        ),
        Stage(
            "data_health",
            per=(),
            jobs=_once,
            kind=jobs.DataJob,
            job=build.data_job,
            makes=lambda at: {"data": at.data_health()},
            code="mscl.datasets.health",
        ),
        Stage(
            "flow_error",
            per=(),
            jobs=lambda config: [()] if build.exact_flow_datasets(config) else [],
            kind=jobs.FlowErrorJob,
            job=build.flow_error_job,
            makes=lambda at: {"flow_error": at.flow_error()},
            code="mscl.flow.error",
        ),
        Stage(
            "adopt",
            per=("model", "method"),
            jobs=lambda config: ((model, method) for model, method, _ in foreign_of(config)),
            kind=jobs.AdoptJob,
            job=build.adopt_job,
            reads=_foreign_file,
            makes=_results("adopt"),
            code="mscl.models.adopt",
            carded=True,
        ),
        Stage(
            "pretrain",
            per=RUN,
            jobs=_pretrained,
            kind=jobs.PretrainJob,
            job=build.pretrain_job,
            makes=_results("pretrain"),
            code="mscl.training.pretrain",
            hours=48,
            memory_mb=16000,
            carded=True,
        ),
        Stage(
            "finetune",
            per=TESTED,
            jobs=lambda config: _tested(config, config.finetuned_targets),
            kind=jobs.FinetuneJob,
            job=build.finetune_job,
            makes=_results("finetune"),
            code="mscl.training.finetune",
            hours=24,
            memory_mb=16000,
            carded=True,
        ),
        Stage(
            "linear",
            per=TESTED,
            jobs=lambda config: _tested(config, config.linear_targets),
            kind=jobs.LinearJob,
            job=build.linear_job,
            makes=_results("linear"),
            code="mscl.training.linear",
            hours=24,
            memory_mb=16000,
            carded=True,
        ),
        Stage(
            "embed",
            per=TESTED,
            jobs=_embedded,
            kind=jobs.EmbedJob,
            job=build.embed_job,
            makes=_results("embed"),
            code="mscl.evaluation.embed",
            hours=4,
            memory_mb=16000,
            carded=True,
        ),
        Stage(
            "frozen",
            per=TESTED,
            jobs=lambda config: _tested(config, [target for target in config.targets if target.frozen]),
            kind=jobs.FrozenJob,
            job=build.frozen_job,
            makes=_results("frozen"),
            code="mscl.evaluation.frozen",
            hours=4,
            memory_mb=16000,
            carded=True,
        ),
        Stage(
            "analysis",
            per=("target", "model"),
            jobs=lambda config: _models(config, config.analysed_targets),
            kind=jobs.AnalysisJob,
            job=build.analysis_job,
            makes=_results("analysis"),
            code="mscl.evaluation.analysis",
            hours=2,
            memory_mb=8000,
            carded=True,
        ),
        Stage(
            "report",
            per=(),
            jobs=_once,
            kind=jobs.ReportJob,
            job=build.report_job,
            reads=_everything,
            makes=lambda at: {"html": f"{at.report()}/index.html"},
            code="mscl.reporting.report",
            files=("config/paper.yaml", "mscl/reporting/published.csv", "mscl/reporting/templates/report.html.j2"),
        ),
    )
}
