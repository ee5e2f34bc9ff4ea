"""Builds the job of each stage from a configuration: the settings that the stage uses, and no others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from mscl.config.datasets import FramesConfig, Subset
from mscl.config.methods import Switches
from mscl.config.schema import Config
from mscl.config.settings import Compute, Model
from mscl.config.targets import Target
from mscl.machine.files import sha256
from mscl.stages.jobs import (
    AdoptJob,
    AnalysisJob,
    DataJob,
    DatasetJob,
    DownloadJob,
    EmbedJob,
    FinetuneJob,
    FlowErrorJob,
    FlowJob,
    FramesJob,
    FrozenJob,
    LinearJob,
    ManifestJob,
    Net,
    PretrainJob,
    ReportJob,
    RGBNet,
    Source,
    Watched,
)
from mscl.stages.layout import FEATURES, WEIGHTS, Layout


def rgb_net(model: Model) -> RGBNet:
    """The RGB backbone of a model."""
    return RGBNet(**model.model_dump(include=set(RGBNet.model_fields)))


def net(model: Model, switches: Switches) -> Net:
    """The networks of a method; the sizes of parts that the method does not build are 0."""
    whole = Net(**model.model_dump(include=set(Net.model_fields)))
    return whole if switches.flow else whole.model_copy(update={"flow_width": 0, "neck": 0, "neck_blocks": 0})


def _machine(config: Config) -> dict[str, Any]:
    """The settings of `compute` that change the last bits of a result. The numbers of processes do not, so jobs leave them out."""
    return {"device": config.compute.device, "threads": config.compute.threads}


def source(config: Config, dataset: str, *, flow: bool = False, fold: int | None = None) -> Source:
    """The paths of a prepared data set; with `flow`, also those of its optical flow. `fold` as in `Target`."""
    at = Layout(config)
    return Source(
        name=dataset,
        manifest=at.manifest(dataset),
        frames=at.frames(dataset),
        flow=at.flow(dataset) if flow else None,
        shards=config.datasets[dataset].shards,
        fold=fold if fold in config.folds(dataset) else None,
    )


def used_datasets(config: Config) -> list[str]:
    """Every data set that a stage reads, in the configuration's order."""
    named = {target.dataset for target in config.targets}
    named.update(config.pretraining_datasets)
    if config.pretraining_datasets and config.pretrain.monitor:
        named.add(config.pretrain.monitor.dataset)
    return [d for d in config.datasets if d in named]


def given_datasets(config: Config) -> list[str]:
    """The data sets that the user must provide: neither generated nor downloaded."""
    return [d for d in used_datasets(config) if not config.datasets[d].download and not config.datasets[d].embedded]


def flow_datasets(config: Config) -> list[str]:
    """The data sets that need optical flow: those of pretraining, when at least one method uses flow."""
    return list(config.pretrain.datasets) if any(config.switches(m).flow for m in config.methods) else []


def exact_flow_datasets(config: Config) -> list[str]:
    """The generated data set whose stored flow is compared with its exact flow: a list of one name, or empty."""
    return [d for d in flow_datasets(config) if config.datasets[d].embedded][:1]


def download_job(config: Config, dataset: str) -> DownloadJob:
    """What to download, and where to."""
    data = config.datasets[dataset]
    return DownloadJob(name=dataset, root=data.root, splits=tuple(data.annotated), download=data.download)


def dataset_job(config: Config, dataset: str) -> DatasetJob:
    """Where the files are and how they are generated; not which part of them is used, nor how frames are stored."""
    data = config.datasets[dataset]
    unused = {"frames": FramesConfig(), "shards": 1, "subset": Subset(), "download": None}
    unused |= {"holdout": {}, "holdout_from": data.annotated[0], "group": None}
    return DatasetJob(name=dataset, dataset=data.model_copy(update=unused))


def manifest_job(config: Config, dataset: str) -> ManifestJob:
    """The data set and which part of it is used; not how frames are stored."""
    unused = {"frames": FramesConfig(), "download": None, "embedded": None}
    return ManifestJob(name=dataset, dataset=config.datasets[dataset].model_copy(update=unused), folds=config.folds(dataset))


def frames_job(config: Config, dataset: str) -> FramesJob:
    """How frames are extracted, the same for all shards of a data set."""
    return FramesJob(frames=config.datasets[dataset].frames, shards=config.datasets[dataset].shards)


def flow_job(config: Config) -> FlowJob:
    """How flow and motion scores are computed, the same for all data sets. DIS always runs on the CPU."""
    device = config.compute.device if config.flow.on_gpu else "cpu"
    return FlowJob(flow=config.flow, mds=config.mds, device=device, program=named_files(config.flow.command))


def named_files(command: Sequence[str]) -> dict[str, str]:
    """File -> sha256 of each file that the arguments name: the program, scripts, weights; also as --weights=FILE. Folders are not read."""
    found = [shutil.which(command[0]) or command[0], *command[1:]] if command else []
    paths = (part for argument in found for part in (argument, argument.partition("=")[2]) if part)
    return {path: sha256(path) for path in paths if os.path.isfile(path)}


def data_job(config: Config) -> DataJob:
    """The data sets whose videos are counted by status."""
    with_flow = flow_datasets(config)
    return DataJob(sources=tuple(source(config, d, flow=d in with_flow) for d in used_datasets(config)))


def flow_error_job(config: Config) -> FlowErrorJob:
    """The generated data set whose stored flow is compared; raises ValueError without one (see `exact_flow_datasets`)."""
    (dataset,) = exact_flow_datasets(config)
    data = config.datasets[dataset]
    return FlowErrorJob(source=source(config, dataset, flow=True), dataset=data, embedded=data.embedded, flow=config.flow)


def watched(config: Config) -> Watched | None:
    """The videos of the k-NN test during pretraining; None when there is no test."""
    if (m := config.pretrain.monitor) is None:
        return None
    return Watched(source=source(config, m.dataset), split=m.split, videos=m.videos, every=m.every)


def pretrain_job(config: Config, model: str, method: str, seed: int) -> PretrainJob:
    """One pretraining run."""
    switches, optim = config.switches(method), config.pretrain_of(model, method)
    contrast = config.contrast_of(model, method)
    # The configuration counts batch-norm groups in the whole batch; the networks see one part of it at a time.
    contrast = contrast.model_copy(update={"bn_groups": max(1, contrast.bn_groups // optim.accumulate)})
    return PretrainJob(
        method=method,
        seed=seed,
        switches=switches,
        net=net(config.models[model], switches),
        optim=optim,
        sources=tuple(source(config, d, flow=switches.flow) for d in config.pretrain.datasets),
        split=config.pretrain.split,
        monitor=watched(config),
        clip=config.clip,
        augment=config.augment_of(method),
        contrast=contrast,
        kernels=config.compute.kernels,
        **_machine(config),
    )


def adopt_job(config: Config, model: str, method: str) -> AdoptJob:
    """Others' weights for one model."""
    given, net = config.foreign(model, method), config.models[model]
    return AdoptJob(
        model=model,
        method=method,
        file=given.file,
        sha256=given.sha256,
        trained_on=given.trained_on,
        backbone=net.backbone,
        width=net.width,
        mean=given.mean,
        std=given.std,
    )


def _weights(config: Config, model: str, method: str, seed: int) -> str | None:
    """The file that finetuning and the frozen tests start from; None: random initialisation."""
    at = Layout(config)
    if config.foreign(model, method):
        return f"{at.adopt(model, method)}/{WEIGHTS}"
    return f"{at.pretrain(model, method, seed)}/{WEIGHTS}" if config.switches(method).pretrain else None


def _tested(config: Config, target: str, model: str, method: str, seed: int) -> dict[str, Any]:
    """The settings that finetuning and the frozen tests share."""
    tested = config.target(target)
    return {
        "method": method,
        "seed": seed,
        "net": rgb_net(config.models[model]),
        "weights": _weights(config, model, method, seed),
        "source": source(config, tested.dataset, fold=tested.fold),
        "train": tested.train,
        "test": tested.test,
        "kernels": config.compute.kernels,
        "few": tested.few,
        **_machine(config),
    }


def finetune_job(config: Config, target: str, model: str, method: str, seed: int) -> FinetuneJob:
    """One finetuning run with its test."""
    recipe = config.finetune_of(target, model)
    return FinetuneJob(finetune=recipe, **_tested(config, target, model, method, seed))


def linear_job(config: Config, target: str, model: str, method: str, seed: int) -> LinearJob:
    """One linear evaluation by SGD with its test."""
    recipe = config.linear_of(target, model)
    return LinearJob(finetune=recipe, **_tested(config, target, model, method, seed))


def embed_job(config: Config, target: str, model: str, method: str, seed: int) -> EmbedJob:
    """The features of all videos of a target, which its draws of few videos share."""
    return EmbedJob(**_embedded(config, target, model, method, seed) | {"few": None})


def frozen_job(config: Config, target: str, model: str, method: str, seed: int) -> FrozenJob:
    """The frozen tests of one pretraining run."""
    first = features_of(config, target, model)
    features = f"{Layout(config).embed(first, model, method, seed)}/{FEATURES}" if first else None
    run = _embedded(config, target, model, method, seed)
    return FrozenJob(measures=config.target(target).frozen, features=features, **run)


def _embedded(config: Config, target: str, model: str, method: str, seed: int) -> dict[str, Any]:
    """The settings of features of frozen backbones. Clips are read as in the test after finetuning."""
    recipe = config.finetune_of(target, model)
    clips = {
        "frames": recipe.frames,
        "stride": recipe.stride,
        "test_size": recipe.test_size,
        "clips": config.target(target).clips,
    }
    return clips | _tested(config, target, model, method, seed)


def features_of(config: Config, target: str, model: str) -> str | None:
    """The target under whose name the features for `target` are stored; None if its frozen tests extract their own.

    Features are stored where a target of few training videos needs them: all its draws, and all targets with the same videos and
    clips, read the same file, named after the first of them.
    """
    wanted = _view(config, config.target(target), model)
    same = [other for other in config.targets_of(model) if other.frozen and _view(config, other, model) == wanted]
    return same[0].name if any(other.few for other in same) else None


def _view(config: Config, target: Target, model: str) -> tuple:
    """Which videos and clips the features of frozen backbones are extracted from."""
    recipe, fold = config.finetune_of(target.name, model), target.fold if target.fold in config.folds(target.dataset) else None
    videos = target.dataset, fold, target.train, target.test
    return *videos, recipe.frames, recipe.stride, recipe.test_size, target.clips


def compared(config: Config, model: str) -> tuple[str, str]:
    """The two methods of a model that are compared in Table 2 and the GradCAM figures, as (left, right).

    Right is mscl, else the last method. Left is baseline, else moco, else the first other method. Both are the same when there is
    only one method.
    """
    run = config.methods_of(model)
    last = "mscl" if "mscl" in run else run[-1]
    rivals = [m for m in ("baseline", "moco", *run) if m in run and m != last]
    return (rivals[0] if rivals else last, last)


def analysis_job(config: Config, target: str, model: str) -> AnalysisJob:
    """The analysis of one model on a target: confused pairs and GradCAM of the two compared methods."""
    methods, tested = compared(config, model), config.target(target)
    return AnalysisJob(
        net=rgb_net(config.models[model]),
        finetune=config.finetune_of(target, model),
        analysis=config.analysis,
        runs={m: tuple(Layout(config).finetune(target, model, m, s) for s in config.seeds) for m in methods},
        methods=methods,
        source=source(config, tested.dataset, fold=tested.fold),
        seeds=config.seeds,
        test=tested.test,
        **_machine(config),
    )


def report_job(config: Config) -> ReportJob:
    """Everything that the report shows. `compute` is left out: the report takes the hardware from the run cards."""
    return ReportJob(config=config.model_copy(update={"compute": Compute()}))
