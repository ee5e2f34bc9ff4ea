"""From a configuration to the job of each stage: what a stage uses of it, and nothing else."""

from __future__ import annotations

from typing import Any

from mscl.config.datasets import FramesConfig, Subset
from mscl.config.methods import Switches
from mscl.config.schema import Compute, Config, Model
from mscl.stages.jobs import (
    AnalysisJob,
    DataJob,
    DatasetJob,
    DownloadJob,
    FinetuneJob,
    FlowErrorJob,
    FlowJob,
    FramesJob,
    FrozenJob,
    ManifestJob,
    Net,
    PretrainJob,
    ReportJob,
    RGBNet,
    Source,
    Watched,
)
from mscl.stages.layout import WEIGHTS, Layout


def rgb_net(model: Model) -> RGBNet:
    return RGBNet(**model.model_dump(include=set(RGBNet.model_fields)))


def net(model: Model, switches: Switches) -> Net:
    """The networks of a method; what it does not build is 0."""
    whole = Net(**model.model_dump(include=set(Net.model_fields)))
    return whole if switches.flow else whole.model_copy(update={"flow_width": 0, "neck": 0, "neck_blocks": 0})


def _machine(config: Config) -> dict[str, Any]:
    """What of the machine is part of the result; numbers of processes are not, and stay out of the jobs."""
    return {"device": config.compute.device, "threads": config.compute.threads}


def source(config: Config, dataset: str, *, flow: bool = False) -> Source:
    """Where a prepared data set lies; with `flow`, that of its flow too."""
    at = Layout(config)
    return Source(
        name=dataset,
        manifest=at.manifest(dataset),
        frames=at.frames(dataset),
        flow=at.flow(dataset) if flow else None,
        shards=config.datasets[dataset].shards,
    )


def used_datasets(config: Config) -> list[str]:
    """Every data set that a stage reads, in the configuration's order."""
    named = {*config.pretrain.datasets, config.finetune.dataset}
    if config.pretrain.monitor:
        named.add(config.pretrain.monitor.dataset)
    return [d for d in config.datasets if d in named]


def given_datasets(config: Config) -> list[str]:
    """The data sets that only a person can get: neither generated nor downloaded."""
    return [d for d in used_datasets(config) if not config.datasets[d].download and not config.datasets[d].embedded]


def flow_datasets(config: Config) -> list[str]:
    """The data sets that need flow: those of pretraining, when some method looks at flow."""
    return list(config.pretrain.datasets) if any(config.switches(m).flow for m in config.methods) else []


def exact_flow_datasets(config: Config) -> list[str]:
    """The data set, if there is one, whose exact flow is known and is compared with the stored flow."""
    return [d for d in flow_datasets(config) if config.datasets[d].embedded][:1]


def download_job(config: Config, dataset: str) -> DownloadJob:
    data = config.datasets[dataset]
    return DownloadJob(name=dataset, root=data.root, splits=tuple(data.annotated), download=data.download)


def dataset_job(config: Config, dataset: str) -> DatasetJob:
    """Where the files lie and how they are made; not which part of them is used, nor how frames are stored."""
    data = config.datasets[dataset]
    unused = {"frames": FramesConfig(), "shards": 1, "subset": Subset(), "download": None}
    unused |= {"holdout": {}, "holdout_from": data.annotated[0]}
    return DatasetJob(name=dataset, dataset=data.model_copy(update=unused))


def manifest_job(config: Config, dataset: str) -> ManifestJob:
    unused = {"frames": FramesConfig(), "download": None, "embedded": None}
    return ManifestJob(name=dataset, dataset=config.datasets[dataset].model_copy(update=unused))


def frames_job(config: Config, dataset: str) -> FramesJob:
    return FramesJob(frames=config.datasets[dataset].frames, shards=config.datasets[dataset].shards)


def flow_job(config: Config) -> FlowJob:
    return FlowJob(flow=config.flow, mds=config.mds, device=config.compute.device if config.flow.method == "raft" else "cpu")


def data_job(config: Config) -> DataJob:
    with_flow = flow_datasets(config)
    return DataJob(sources=tuple(source(config, d, flow=d in with_flow) for d in used_datasets(config)))


def flow_error_job(config: Config) -> FlowErrorJob:
    (dataset,) = exact_flow_datasets(config)
    data = config.datasets[dataset]
    return FlowErrorJob(source=source(config, dataset, flow=True), dataset=data, embedded=data.embedded, flow=config.flow)


def watched(config: Config) -> Watched | None:
    if (m := config.pretrain.monitor) is None:
        return None
    return Watched(source=source(config, m.dataset), split=m.split, videos=m.videos, every=m.every)


def pretrain_job(config: Config, model: str, method: str, seed: int) -> PretrainJob:
    switches, optim = config.switches(method), config.pretrain_of(model, method)
    contrast = config.contrast_of(model, method)
    # Batch-norm groups are counted in the whole batch, and the networks see a part of it at a time.
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


def _tested(config: Config, model: str, method: str, seed: int) -> dict[str, Any]:
    """What finetuning and the frozen tests share."""
    pretrained = config.switches(method).pretrain
    return {
        "method": method,
        "seed": seed,
        "net": rgb_net(config.models[model]),
        "weights": f"{Layout(config).pretrain(model, method, seed)}/{WEIGHTS}" if pretrained else None,
        "source": source(config, config.finetune.dataset),
        "train": config.finetune.train,
        "test": config.finetune.test,
        **_machine(config),
    }


def finetune_job(config: Config, model: str, method: str, seed: int) -> FinetuneJob:
    return FinetuneJob(
        finetune=config.models[model].finetune, kernels=config.compute.kernels, **_tested(config, model, method, seed)
    )


def frozen_job(config: Config, model: str, method: str, seed: int) -> FrozenJob:
    recipe = config.models[model].finetune
    return FrozenJob(
        measures=config.analysis.measures,
        frames=recipe.frames,
        test_size=recipe.test_size,
        clips=config.analysis.clips,
        **_tested(config, model, method, seed),
    )


def compared(config: Config) -> tuple[str, str]:
    """The two methods that Table 2 and the figures compare: the baseline (or the nearest there is) and the last method."""
    last = "mscl" if "mscl" in config.methods else config.methods[-1]
    rivals = [m for m in ("baseline", "moco", *config.methods) if m in config.methods and m != last]
    return (rivals[0] if rivals else last, last)


def analysis_job(config: Config, model: str) -> AnalysisJob:
    unused = {"measures": (), "clips": 1}  # of the frozen tests
    methods = compared(config)
    return AnalysisJob(
        net=rgb_net(config.models[model]),
        finetune=config.models[model].finetune,
        analysis=config.analysis.model_copy(update=unused),
        runs={m: tuple(Layout(config).finetune(model, m, s) for s in config.seeds) for m in methods},
        methods=methods,
        source=source(config, config.finetune.dataset),
        seeds=config.seeds,
        test=config.finetune.test,
        **_machine(config),
    )


def report_job(config: Config) -> ReportJob:
    """What the report shows; how the work was spread over a machine is read from the run cards, so it is left out."""
    return ReportJob(config=config.model_copy(update={"compute": Compute()}))
