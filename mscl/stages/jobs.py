"""The job of each stage: exactly the settings that it uses. A job also tells which files and named modules the stage reads.

A rule passes the job as JSON (`--job`). So a stage cannot use a setting that its rule did not declare, and a changed setting
reruns exactly the stages whose jobs contain it. `mscl.stages.build` makes the jobs from a configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mscl.config.backbones import backbone_path
from mscl.config.datasets import Dataset, Download, Embedded, FramesConfig, Name
from mscl.config.measures import measure
from mscl.config.methods import Switches
from mscl.config.module_path import module_of
from mscl.config.recipes import Finetune, Optim
from mscl.config.schema import Config
from mscl.config.settings import Analysis, Augment, ClipConfig, Contrast, FlowConfig, Kernels, MDSConfig
from mscl.config.targets import Few
from mscl.config.validation import ConfigError, Strict, parse
from mscl.machine.files import sha256
from mscl.stages.layout import PREDICTIONS, WEIGHTS, shard_paths

GROUP = "group"  # the manifest's column of recordings; absent where every clip is a recording of its own
FOLD = "split_fold"  # with a number: the manifest's column of splits of an official fold that is not the data set's own


class Source(Strict):
    """A prepared data set: its manifest, and the folders of its shards of frames and flow (`flow` is None without flow)."""

    name: Name
    manifest: Path
    frames: Path
    flow: Path | None = None
    shards: int
    fold: int | None = None  # take the splits from the manifest's column of this fold; None: the column `split`

    def frame_indexes(self) -> list[Path]:
        """The index files (parquet) of the frames, one per shard."""
        return shard_paths(self.frames, self.shards)

    def flow_indexes(self) -> list[Path]:
        """The index files (parquet) of the flow, one per shard; empty without flow."""
        return shard_paths(self.flow, self.shards) if self.flow else []

    def indexes(self) -> list[Path]:
        """The index files of frames and flow."""
        return [*self.frame_indexes(), *self.flow_indexes()]


class Job(Strict):
    """The settings of one stage."""

    def reads(self) -> dict[str, list[Path]]:
        """The files that the stage reads, by kind. The kind "tars" needs no hash of its own: the index of a shard holds it."""
        return {}

    def modules(self) -> tuple[str, ...]:
        """The modules named by the settings, in addition to those that the stage always imports."""
        return ()


def reads_of(*sources: Source) -> dict[str, list[Path]]:
    """The manifests, indexes and tars of data sets, without duplicates."""
    found = {"manifests": [s.manifest for s in sources], "indexes": [i for s in sources for i in s.indexes()]}
    found = {kind: list(dict.fromkeys(paths)) for kind, paths in found.items()}
    return found | {"tars": [index.with_suffix(".tar") for index in found["indexes"]]}


class DownloadJob(Job):
    """Downloads a data set and unpacks its videos."""

    name: Name
    root: Path
    splits: tuple[Name, ...]
    download: Download


class DatasetJob(Job):
    """Generates a data set, or prepares its annotation files."""

    name: Name
    dataset: Dataset

    def modules(self) -> tuple[str, ...]:
        return (self.dataset.row.module,)


class ManifestJob(DatasetJob):
    """Lists the videos of a data set, one row per video; `folds` are further official splits, each in a column of its own."""

    folds: tuple[int, ...] = ()


class FramesJob(Job):
    """Extracts the frames of one shard."""

    frames: FramesConfig
    shards: int = 0  # number of shards of the data set, 0 if unknown; stored in each shard, so that a missing shard is detected


class FlowJob(Job):
    """Computes the optical flow and motion scores of one shard."""

    flow: FlowConfig
    mds: MDSConfig
    device: str
    program: dict[str, str] = {}  # file that `flow.command` names -> its sha256, so that another program reruns the flow


class DataJob(Job):
    """Counts the videos of the data sets by status; includes flow for the data sets that have it."""

    sources: tuple[Source, ...]

    def reads(self) -> dict[str, list[Path]]:
        return {kind: paths for kind, paths in reads_of(*self.sources).items() if kind != "tars"}


class FlowErrorJob(Job):
    """Compares the stored flow with the exact flow of the renderer."""

    source: Source
    dataset: Dataset
    embedded: Embedded
    flow: FlowConfig

    def reads(self) -> dict[str, list[Path]]:
        indexes = self.source.flow_indexes()
        return {"indexes": indexes, "tars": [i.with_suffix(".tar") for i in indexes]}


class RGBNet(Strict):
    """An RGB backbone: the settings that its weights depend on."""

    backbone: str
    width: int
    size: int

    def modules(self) -> tuple[str, ...]:
        return (module_of(backbone_path(self.backbone)),)


class Net(RGBNet):
    """The networks of a pretraining: the backbone and, for a method with flow, the flow network and LMCL's neck (else 0)."""

    flow_width: int
    neck: int
    neck_blocks: int


class AdoptJob(Job):
    """Takes others' weights for one model: the network that they must fit, and the colours that they want."""

    model: Name
    method: Name
    file: Path
    sha256: str | None = None
    trained_on: str
    backbone: str
    width: int
    mean: tuple[float, float, float] | None = None  # None: as the file says
    std: tuple[float, float, float] | None = None

    @property
    def key(self) -> str:
        """Where the configuration names the file."""
        return f"method_settings.{self.method}.weights.{self.model}"

    def reads(self) -> dict[str, list[Path]]:
        return {"file": [self.file]}

    def check_file(self) -> None:
        """Raise ValueError, one sentence that begins with the key, unless the file is there and is the one meant."""
        if not self.file.is_file():
            raise ValueError(f"{self.key}.file: no file {self.file}; put it there, or correct the path")
        if self.sha256 and (found := sha256(self.file)) != self.sha256:
            raise ValueError(
                f"{self.key}.sha256: {self.file} has {found}, not {self.sha256}; get the file again, or correct the key"
            )

    def modules(self) -> tuple[str, ...]:
        return (module_of(backbone_path(self.backbone)),)


class Watched(Strict):
    """The held-out videos for the k-NN test during pretraining; `every` is in epochs."""

    source: Source
    split: str
    videos: int
    every: int


class PretrainJob(Job):
    """One pretraining run: a model, a method and a seed."""

    method: Name
    seed: int
    switches: Switches
    net: Net
    optim: Optim
    sources: tuple[Source, ...]
    split: str
    monitor: Watched | None = None
    clip: ClipConfig
    augment: Augment
    contrast: Contrast
    device: str
    threads: int
    kernels: Kernels = Kernels()

    def reads(self) -> dict[str, list[Path]]:
        return reads_of(*self.sources, *([self.monitor.source] if self.monitor else []))

    def modules(self) -> tuple[str, ...]:
        return (*self.net.modules(), module_of(self.switches.network))


class TestedJob(Job):
    """The part shared by finetuning and the frozen tests: a backbone, its weights, and the target data set.

    `weights` is the weights file of the pretraining run, or others' weights under our names, or None for random initialisation; the
    stage reads the path from here. `few` are the training videos to draw, or None for all.
    """

    method: Name
    seed: int
    net: RGBNet
    weights: Path | None
    source: Source
    train: str
    test: str
    few: Few | None = None
    device: str
    threads: int
    kernels: Kernels = Kernels()

    def reads(self) -> dict[str, list[Path]]:
        return reads_of(self.source) | {"weights": [self.weights] if self.weights else []}

    def modules(self) -> tuple[str, ...]:
        return self.net.modules()


class FinetuneJob(TestedJob):
    """Finetunes a backbone with a linear classifier, and tests it."""

    finetune: Finetune


class LinearJob(FinetuneJob):
    """Trains a linear classifier on clips, on a frozen backbone, and tests it; `finetune` is its recipe."""


class EmbedJob(TestedJob):
    """Extracts the features of the frozen backbone; `clips` per video are averaged, of `frames` frames and `test_size` pixels."""

    frames: int
    stride: int | None = None
    test_size: int
    clips: int


class FrozenJob(EmbedJob):
    """Measures the features of the frozen backbone: those in the file `features`, or, if it is None, it extracts them itself."""

    measures: tuple[str, ...]
    features: Path | None = None

    def reads(self) -> dict[str, list[Path]]:
        return {"features": [self.features]} if self.features else super().reads()

    def modules(self) -> tuple[str, ...]:
        return (*self.net.modules(), *(module_of(measure(name).function) for name in self.measures))


class AnalysisJob(Job):
    """The confused pairs and GradCAM figures of one model, for two methods."""

    net: RGBNet
    finetune: Finetune
    analysis: Analysis
    source: Source
    runs: dict[Name, tuple[Path, ...]]  # method -> folders of its finetuning runs, one per seed
    methods: tuple[Name, ...]  # (left, right) column of Table 2, such as baseline and mscl
    seeds: tuple[int, ...]
    test: str
    device: str
    threads: int

    def predictions(self) -> dict[str, list[Path]]:
        """method -> predictions files, one per seed."""
        return {method: [run / PREDICTIONS for run in runs] for method, runs in self.runs.items()}

    def weights(self) -> dict[str, Path]:
        """method -> weights of the classifier of the first seed."""
        return {method: runs[0] / WEIGHTS for method, runs in self.runs.items()}

    def reads(self) -> dict[str, list[Path]]:
        predictions = [path for paths in self.predictions().values() for path in paths]
        return reads_of(self.source) | {"predictions": predictions, "weights": list(self.weights().values())}

    def modules(self) -> tuple[str, ...]:
        return self.net.modules()


class ReportJob(Job):
    """Writes the report of a configuration."""

    config: Config


def dumps(job: Strict) -> str:
    """Canonical JSON of a job: the same settings give the same text."""
    return json.dumps(job.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def loads(kind: type[Strict], text: str) -> Any:
    """Read a job of class `kind` from JSON text, or from the JSON file at the path `text`. Raises `ConfigError` if it does not fit."""
    source = "--job" if text.lstrip().startswith("{") else text
    try:
        raw = json.loads(text if source == "--job" else Path(text).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{source}: this job cannot be read: {error}") from None
    return parse(kind, raw, source)
