"""What each stage uses of the configuration, and nothing else.

A rule passes its stage's job as JSON (`--job`): the stage cannot read a setting that its rule did not
declare, and a changed setting reruns exactly the stages whose jobs hold it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mscl.config.datasets import Dataset, Download, Embedded, FramesConfig, Name, Subset
from mscl.config.schema import (
    Analysis,
    Augment,
    ClipConfig,
    Compute,
    Config,
    Contrast,
    Finetune,
    FlowConfig,
    Kernels,
    MDSConfig,
    Model,
    Optim,
    Switches,
)
from mscl.config.validation import ConfigError, Strict, parse
from mscl.stages.layout import Layout, shard_paths


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


class DatasetJob(Strict):
    name: Name
    dataset: Dataset


class DownloadJob(Strict):
    name: Name
    root: Path
    splits: tuple[Name, ...]
    download: Download


class DataJob(Strict):
    """Which data sets the data-health table covers; `flow` only where flow is computed."""

    sources: tuple[Source, ...]


class ManifestJob(Strict):
    name: Name
    dataset: Dataset


class FramesJob(Strict):
    frames: FramesConfig
    shards: int = 0  # of the store, 0 unknown; written into each, so that a missing one is missed


class FlowJob(Strict):
    flow: FlowConfig
    mds: MDSConfig
    device: str


class FlowErrorJob(Strict):
    """Compares stored flow with the renderer's exact flow."""

    source: Source
    dataset: Dataset
    embedded: Embedded
    flow: FlowConfig


class RGBNet(Strict):
    """A backbone without its recipes: what its weights depend on."""

    backbone: str
    width: int
    size: int


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


class PretrainJob(Strict):
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


class FinetuneJob(Strict):
    method: Name
    seed: int
    net: RGBNet
    finetune: Finetune
    source: Source
    train: str
    test: str
    device: str
    threads: int
    kernels: Kernels = Kernels()


class FrozenJob(Strict):
    """Linear probe and retrieval on the frozen pretrained backbone."""

    method: Name
    seed: int
    net: RGBNet
    frames: int
    test_size: int
    clips: int
    source: Source
    train: str
    test: str
    device: str
    threads: int


class AnalysisJob(Strict):
    net: RGBNet
    finetune: Finetune
    analysis: Analysis
    source: Source
    methods: tuple[Name, ...]  # left and right column of Table 2: baseline, mscl
    seeds: tuple[int, ...]
    test: str
    device: str
    threads: int


class ReportJob(Strict):
    config: Config


def rgb_net(model: Model) -> RGBNet:
    return RGBNet(**model.model_dump(include=set(RGBNet.model_fields)))


def net(model: Model, switches: Switches) -> Net:
    whole = Net(**model.model_dump(include=set(Net.model_fields)))
    return whole if switches.flow else whole.model_copy(update={"flow_width": 0, "neck": 0, "neck_blocks": 0})


def _machine(config: Config) -> dict:
    """What of the machine is part of the result; numbers of processes are not, and stay out of the jobs."""
    return {"device": config.compute.device, "threads": config.compute.threads}


def source(config: Config, dataset: str, *, flow: bool = False) -> Source:
    at = Layout(config)
    return Source(
        name=dataset,
        manifest=at.manifest(dataset),
        frames=at.frames(dataset),
        flow=at.flow(dataset) if flow else None,
        shards=config.datasets[dataset].shards,
    )


def dataset_job(config: Config, dataset: str) -> DatasetJob:
    """Where the files lie and how they are made; not which part of them is used, nor how frames are stored."""
    data = config.datasets[dataset]
    unused = {"frames": FramesConfig(), "shards": 1, "subset": Subset(), "download": None}
    unused |= {"holdout": {}, "holdout_from": data.annotated[0]}
    return DatasetJob(name=dataset, dataset=data.model_copy(update=unused))


def download_job(config: Config, dataset: str) -> DownloadJob:
    data = config.datasets[dataset]
    return DownloadJob(name=dataset, root=data.root, splits=tuple(data.annotated), download=data.download)


def manifest_job(config: Config, dataset: str) -> ManifestJob:
    unused = {"frames": FramesConfig(), "download": None, "embedded": None}
    return ManifestJob(name=dataset, dataset=config.datasets[dataset].model_copy(update=unused))


def used_datasets(config: Config) -> list[str]:
    """Every data set that a stage reads, in the configuration's order."""
    named = {*config.pretrain.datasets, config.finetune.dataset}
    if config.pretrain.monitor:
        named.add(config.pretrain.monitor.dataset)
    return [d for d in config.datasets if d in named]


def flow_datasets(config: Config) -> list[str]:
    """The data sets that need flow: those of pretraining, when some method looks at flow."""
    return list(config.pretrain.datasets) if any(config.switches(m).flow for m in config.methods) else []


def data_job(config: Config) -> DataJob:
    with_flow = flow_datasets(config)
    return DataJob(sources=tuple(source(config, d, flow=d in with_flow) for d in used_datasets(config)))


def frames_job(config: Config, dataset: str) -> FramesJob:
    return FramesJob(frames=config.datasets[dataset].frames, shards=config.datasets[dataset].shards)


def flow_job(config: Config) -> FlowJob:
    return FlowJob(flow=config.flow, mds=config.mds, device=config.compute.device if config.flow.method == "raft" else "cpu")


def flow_error_job(config: Config, dataset: str) -> FlowErrorJob:
    data = config.datasets[dataset]
    return FlowErrorJob(source=source(config, dataset, flow=True), dataset=data, embedded=data.embedded, flow=config.flow)


def watched(config: Config) -> Watched | None:
    if (m := config.pretrain.monitor) is None:
        return None
    return Watched(source=source(config, m.dataset), split=m.split, videos=m.videos, every=m.every)


def pretrain_job(config: Config, model: str, method: str, seed: int) -> PretrainJob:
    recipe, switches = config.models[model], config.switches(method)
    return PretrainJob(
        method=method,
        seed=seed,
        switches=switches,
        net=net(recipe, switches),
        optim=recipe.pretrain,
        sources=tuple(source(config, d, flow=switches.flow) for d in config.pretrain.datasets),
        split=config.pretrain.split,
        monitor=watched(config),
        clip=config.clip,
        augment=config.augment,
        contrast=config.contrast,
        kernels=config.compute.kernels,
        **_machine(config),
    )


def finetune_job(config: Config, model: str, method: str, seed: int) -> FinetuneJob:
    recipe = config.models[model]
    return FinetuneJob(
        method=method,
        seed=seed,
        net=rgb_net(recipe),
        finetune=recipe.finetune,
        source=source(config, config.finetune.dataset),
        train=config.finetune.train,
        test=config.finetune.test,
        kernels=config.compute.kernels,
        **_machine(config),
    )


def frozen_job(config: Config, model: str, method: str, seed: int) -> FrozenJob:
    recipe = config.models[model]
    return FrozenJob(
        method=method,
        seed=seed,
        net=rgb_net(recipe),
        frames=recipe.finetune.frames,
        test_size=recipe.finetune.test_size,
        clips=config.analysis.clips,
        source=source(config, config.finetune.dataset),
        train=config.finetune.train,
        test=config.finetune.test,
        **_machine(config),
    )


def compared(config: Config) -> tuple[str, str]:
    """The two methods that Table 2 and the figures compare: the baseline (or the nearest there is) and the last method."""
    last = "mscl" if "mscl" in config.methods else config.methods[-1]
    rivals = [m for m in ("baseline", "moco", *config.methods) if m in config.methods and m != last]
    return (rivals[0] if rivals else last, last)


def analysis_job(config: Config, model: str) -> AnalysisJob:
    recipe = config.models[model]
    unused = {"probe": True, "clips": 1}  # of the frozen tests
    return AnalysisJob(
        net=rgb_net(recipe),
        finetune=recipe.finetune,
        analysis=config.analysis.model_copy(update=unused),
        methods=compared(config),
        source=source(config, config.finetune.dataset),
        seeds=config.seeds,
        test=config.finetune.test,
        **_machine(config),
    )


def report_job(config: Config) -> ReportJob:
    """What the report shows; how the work was spread over a machine is read from the run cards, so it is left out."""
    return ReportJob(config=config.model_copy(update={"compute": Compute()}))


def by_hand(config: Config, at: Layout, stage: str, model: str, method: str, seed: int) -> tuple[str, str, str]:
    """Where the results of a training run belong, and its run card, and its settings; ValueError for a run that `config` has not."""
    builders = {"pretrain": (at.pretrain, pretrain_job), "finetune": (at.finetune, finetune_job)}
    if stage not in builders:
        raise ValueError(f"no training stage '{stage}'; there are {' and '.join(builders)}")
    for key, value in (("models", model), ("methods", method), ("seeds", seed)):
        if value not in getattr(config, key):
            raise ValueError(f"{key}: the configuration has no '{value}', it has {', '.join(map(str, getattr(config, key)))}")
    if stage == "pretrain" and not config.switches(method).pretrain:
        raise ValueError(f"methods: '{method}' has no pretraining")
    (folder, build), run = builders[stage], (model, method, seed)
    return folder(*run), at.records(folder(*run)), dumps(build(config, *run))


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
