"""What each stage is called with: its settings, nothing else, and from them the files it reads and the modules it loads by name.

A rule passes its stage's job as JSON (`--job`): the stage cannot read a setting that its rule did not
declare, and a changed setting reruns exactly the stages whose jobs hold it. `mscl.stages.build` makes them.
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
from mscl.config.schema import Analysis, Augment, ClipConfig, Config, Contrast, Finetune, FlowConfig, Kernels, MDSConfig, Optim
from mscl.config.validation import ConfigError, Strict, parse
from mscl.stages.layout import PREDICTIONS, WEIGHTS, shard_paths


class Source(Strict):
    """A prepared data set: its manifest and the folders of its shards."""

    name: Name
    manifest: Path
    frames: Path
    flow: Path | None = None
    shards: int

    def frame_indexes(self) -> list[Path]:
        return shard_paths(self.frames, self.shards)

    def flow_indexes(self) -> list[Path]:
        return shard_paths(self.flow, self.shards) if self.flow else []

    def indexes(self) -> list[Path]:
        return [*self.frame_indexes(), *self.flow_indexes()]


class Job(Strict):
    """The settings of one stage."""

    def reads(self) -> dict[str, list[Path]]:
        """The files that the stage reads, by kind. A tar (`tars`) belongs to its index, which holds its hash."""
        return {}

    def modules(self) -> tuple[str, ...]:
        """Modules that the settings name, beside those that the stage always loads."""
        return ()


def reads_of(*sources: Source) -> dict[str, list[Path]]:
    """Manifests, indexes and tars of data sets, each once."""
    found = {"manifests": [s.manifest for s in sources], "indexes": [i for s in sources for i in s.indexes()]}
    found = {kind: list(dict.fromkeys(paths)) for kind, paths in found.items()}
    return found | {"tars": [index.with_suffix(".tar") for index in found["indexes"]]}


class DownloadJob(Job):
    name: Name
    root: Path
    splits: tuple[Name, ...]
    download: Download


class DatasetJob(Job):
    name: Name
    dataset: Dataset

    def modules(self) -> tuple[str, ...]:
        return (self.dataset.row.module,)


class ManifestJob(DatasetJob):
    pass


class FramesJob(Job):
    frames: FramesConfig
    shards: int = 0  # of the store, 0 unknown; written into each, so that a missing one is missed


class FlowJob(Job):
    flow: FlowConfig
    mds: MDSConfig
    device: str


class DataJob(Job):
    """Which data sets the data-health table covers; `flow` only where flow is computed."""

    sources: tuple[Source, ...]

    def reads(self) -> dict[str, list[Path]]:
        return {kind: paths for kind, paths in reads_of(*self.sources).items() if kind != "tars"}


class FlowErrorJob(Job):
    """Compares stored flow with the renderer's exact flow."""

    source: Source
    dataset: Dataset
    embedded: Embedded
    flow: FlowConfig

    def reads(self) -> dict[str, list[Path]]:
        indexes = self.source.flow_indexes()
        return {"indexes": indexes, "tars": [i.with_suffix(".tar") for i in indexes]}


class RGBNet(Strict):
    """A backbone without its recipes: what its weights depend on."""

    backbone: str
    width: int
    size: int

    def modules(self) -> tuple[str, ...]:
        return (module_of(backbone_path(self.backbone)),)


class Net(RGBNet):
    """What pretraining builds: the backbone and, for a method that looks at flow, the flow network and LMCL's neck (else 0)."""

    flow_width: int
    neck: int
    neck_blocks: int


class Watched(Strict):
    """Held-out videos on which the backbone is tested during pretraining."""

    source: Source
    split: str
    videos: int
    every: int


class PretrainJob(Job):
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
    """What finetuning and the frozen tests share: a backbone, from `weights` or untrained, and its target."""

    method: Name
    seed: int
    net: RGBNet
    weights: Path | None  # of a pretraining
    source: Source
    train: str
    test: str
    device: str
    threads: int

    def reads(self) -> dict[str, list[Path]]:
        return reads_of(self.source) | {"weights": [self.weights] if self.weights else []}

    def modules(self) -> tuple[str, ...]:
        return self.net.modules()


class FinetuneJob(TestedJob):
    finetune: Finetune
    kernels: Kernels = Kernels()


class FrozenJob(TestedJob):
    """Measures of the frozen pretrained backbone."""

    measures: tuple[str, ...]
    frames: int
    test_size: int
    clips: int

    def modules(self) -> tuple[str, ...]:
        return (*self.net.modules(), *(module_of(measure(name).function) for name in self.measures))


class AnalysisJob(Job):
    net: RGBNet
    finetune: Finetune
    analysis: Analysis
    source: Source
    runs: dict[Name, tuple[Path, ...]]  # method -> folders of its finetunings, by seed: left and right column of Table 2
    methods: tuple[Name, ...]  # in this order: baseline, mscl
    seeds: tuple[int, ...]
    test: str
    device: str
    threads: int

    def predictions(self) -> dict[str, list[Path]]:
        """method -> predictions of its runs, by seed."""
        return {method: [run / PREDICTIONS for run in runs] for method, runs in self.runs.items()}

    def weights(self) -> dict[str, Path]:
        """method -> the classifier of its first seed."""
        return {method: runs[0] / WEIGHTS for method, runs in self.runs.items()}

    def reads(self) -> dict[str, list[Path]]:
        predictions = [path for paths in self.predictions().values() for path in paths]
        return reads_of(self.source) | {"predictions": predictions, "weights": list(self.weights().values())}

    def modules(self) -> tuple[str, ...]:
        return self.net.modules()


class ReportJob(Job):
    config: Config


def dumps(job: Strict) -> str:
    """Canonical JSON of a job: the same settings give the same text."""
    return json.dumps(job.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def loads(kind: type[Strict], text: str) -> Any:
    """Read a job from JSON text or from a JSON file; raise `ConfigError` when it does not fit `kind`."""
    source = "--job" if text.lstrip().startswith("{") else text
    try:
        raw = json.loads(text if source == "--job" else Path(text).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{source}: not a readable job: {error}") from None
    return parse(kind, raw, source)
