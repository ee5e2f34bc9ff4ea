"""Typed, validated configuration.

One YAML file describes one whole experiment (`config.yaml` the demo, `config/paper.yaml` the paper).
`load_config` turns it into a `Config` or raises `ConfigError` with one sentence per mistake. Lengths
are in raw frames of the video unless a comment says otherwise. Imports only pydantic and PyYAML, so
that the Snakefile can validate at parse time without loading torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mscl.config.datasets import Dataset, Name, Positive, Share
from mscl.config.methods import METHODS, Switches
from mscl.config.validation import Strict, did_you_mean, parse, read_yaml


class Paths(Strict):
    data: Path
    results: Path


class FlowConfig(Strict):
    method: Literal["dis", "raft"] = "dis"
    gap: Positive = 8  # a field goes from frame i to frame i+gap
    size: tuple[Positive, Positive] = (384, 640)  # H, W at which flow is computed
    short_side: Positive = 128  # pixels, of the stored fields
    quality: Annotated[int, Field(ge=1, le=100)] = 95  # JPEG quality of the stored planes
    weights: Path | None = None  # RAFT: torchvision's raft_large state dict
    sha256: str | None = None
    iterations: Positive = 20
    batch: Positive = 16
    precision: Literal["float32", "bfloat16"] = "float32"  # RAFT's networks; bfloat16 only where it agrees with float32

    @model_validator(mode="after")
    def possible(self) -> FlowConfig:
        if self.method == "raft" and self.weights is None:
            raise ValueError("weights: RAFT needs a local file of torchvision's raft_large weights; set it, or method: dis")
        if self.method == "raft" and any(side % 8 or side < 128 for side in self.size):
            raise ValueError(f"size: RAFT needs sides that are multiples of 8 and at least 128, not {self.size}")
        return self


class MDSConfig(Strict):
    stride: Positive = 4  # in stored fields
    fields: Positive = 8  # terms per start
    pool: Positive = 28  # cells per side


class ClipConfig(Strict):
    frames: Positive = 8
    stride: Positive = 16
    max_shift: Annotated[int, Field(ge=0)] = 128  # of the key clip's start


class Augment(Strict):
    area: tuple[Share, Share] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: Share = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: Share = 0.8
    gray_p: Share = 0.2
    blur_p: Share = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)


class Contrast(Strict):
    dim: Positive = 128
    queue: Positive = 65536
    temperature: Annotated[float, Field(gt=0)] = 0.07
    momentum: Share = 0.994
    decay: Share = 0.99999
    bn_groups: Positive = 1  # batch norm in so many shuffled groups: shuffle-BN on one device


class Optim(Strict):
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)]
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1.0e-4
    batch: Annotated[int, Field(ge=2)]  # in all: over processes and parts of a step
    base_batch: Positive | None = None  # the batch that `lr` is meant for; with it lr is scaled linearly to `batch`
    accumulate: Positive = 1  # parts of a batch, one after the other, whose gradients add up to one step
    epochs: Positive
    steps: tuple[Positive, ...] = ()  # lr x 0.1 at these epochs; empty: cosine to 0
    clip_grad: Annotated[float, Field(gt=0)] = 40.0


class Finetune(Optim):
    frames: Positive = 16  # uniform over the video
    area: tuple[Share, Share] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False  # SSv2 labels tell left from right
    dropout: Share = 0.5
    test_size: Positive = 128  # short side and centre crop at test, pixels


class Model(Strict):
    """A backbone with its sizes and recipes."""

    backbone: Literal["r3d_18", "slow_r50"]
    width: Positive = 64  # channels of the first stage; torchvision's is 64
    flow_width: Positive = 16
    neck: Positive = 128  # channels
    neck_blocks: Positive = 2
    size: Annotated[int, Field(ge=16)] = 112  # pixels of a training crop
    pretrain: Optim
    finetune: Finetune


class Monitor(Strict):
    """A k-NN test of the query backbone during pretraining, on videos that it is not trained on."""

    dataset: Name
    split: str = "train"
    videos: Annotated[int, Field(ge=10)] = 500
    every: Positive = 1  # epochs


class Use(Strict):
    datasets: tuple[Name, ...] = Field(min_length=1)
    split: str = "train"
    monitor: Monitor | None = None


class Target(Strict):
    dataset: Name
    train: str = "train"
    test: str = "validation"


class Analysis(Strict):
    pairs: Positive = 3  # worst pairs listed per model
    gradcam: tuple[str, ...] = ()  # templates to draw; empty: the two pairs most helped
    probe: bool = True  # linear probe and retrieval on frozen features
    clips: Positive = 1  # uniform clips per video whose features are averaged


class Kernels(Strict):
    """How a training's kernels are chosen; they round differently, so they are part of the result's bits."""

    channels_last: bool = True  # memory format of clips and 3D weights
    compile: bool = False  # the backbones, by torch.compile
    cudnn_benchmark: bool = False  # on a GPU: try algorithms and keep the fastest; the choice may differ from run to run


class Compute(Strict):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Positive = 1  # of one training job: GPUs, or CPU processes, that share its batch
    threads: Positive = 1  # torch threads of a CPU training job (part of the result's bits)
    workers: Annotated[int, Field(ge=0)] = 0  # loader processes
    extract_workers: Positive = 1  # ffmpeg processes, or flow threads, in one job
    download_workers: Positive = 4  # archives at a time
    checkpoint_minutes: Positive = 10
    kernels: Kernels = Kernels()


class Config(Strict):
    name: Name
    kind: Literal["demo", "evidence", "real", "paper"]  # printed on every table
    paths: Paths
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    methods: tuple[Name, ...] = Field(min_length=1)
    method_switches: dict[Name, Switches] = {}  # further methods, by switch
    datasets: dict[Name, Dataset]
    flow: FlowConfig = FlowConfig()
    mds: MDSConfig = MDSConfig()
    clip: ClipConfig = ClipConfig()
    augment: Augment = Augment()
    contrast: Contrast = Contrast()
    pretrain: Use
    finetune: Target
    models: dict[Name, Model] = Field(min_length=1)
    analysis: Analysis = Analysis()
    compute: Compute = Compute()

    def switches(self, method: str) -> Switches:
        return self.method_switches.get(method) or METHODS[method]

    @model_validator(mode="after")
    def possible(self) -> Config:
        for name in set(METHODS) & set(self.method_switches):
            raise ValueError(f"method_switches: '{name}' is a built-in method; give yours another name")
        for key in ("seeds", "methods"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key}: {list(getattr(self, key))} holds the same one twice")
        known = [*METHODS, *self.method_switches]
        for method in self.methods:
            if method not in known:
                raise ValueError(f"methods: unknown method '{method}'{did_you_mean(method, known)}")
        watched = [self.pretrain.monitor.dataset] if self.pretrain.monitor else []
        for key, names in (
            ("pretrain.datasets", self.pretrain.datasets),
            ("pretrain.monitor.dataset", watched),
            ("finetune.dataset", [self.finetune.dataset]),
        ):
            for name in names:
                if name not in self.datasets:
                    raise ValueError(f"{key}: no data set '{name}' under datasets{did_you_mean(name, list(self.datasets))}")
        self._splits()
        self._strides()
        for name, model in self.models.items():
            if self.contrast.queue % model.pretrain.batch:
                raise ValueError(
                    f"contrast.queue: {self.contrast.queue} is not a multiple of models.{name}.pretrain.batch {model.pretrain.batch}"
                )
            for key, recipe in (("pretrain", model.pretrain), ("finetune", model.finetune)):
                if recipe.batch % (parts := self.compute.processes * recipe.accumulate):
                    raise ValueError(
                        f"models.{name}.{key}.batch: {recipe.batch} does not divide into {parts} (compute.processes x accumulate)"
                    )
            if self.contrast.bn_groups > 1 and self.contrast.bn_groups % self.compute.processes:
                raise ValueError(
                    f"contrast.bn_groups: {self.contrast.bn_groups} groups do not divide among {self.compute.processes} compute.processes"
                )
            if model.pretrain.batch % self.contrast.bn_groups:
                raise ValueError(
                    f"contrast.bn_groups: models.{name}.pretrain.batch {model.pretrain.batch} does not divide into {self.contrast.bn_groups} groups"
                )
            if any(self.switches(m).ordered for m in self.methods):
                self._corp(name, model)
            if self.clip.frames != 8 and any(self.switches(m).lmcl for m in self.methods):
                raise ValueError("clip.frames: LMCL pairs 4 times of the neck with 4 of the flow network; set 8")
        return self

    def _corp(self, name: str, model: Model) -> None:
        if self.contrast.dim % 8:
            raise ValueError(f"contrast.dim: {self.contrast.dim} does not divide into CORP's 8 heads")
        if model.pretrain.batch // model.pretrain.accumulate < 2:
            raise ValueError(
                f"models.{name}.pretrain.accumulate: CORP tells videos apart and needs 2 of them in each part of a batch"
            )

    def _splits(self) -> None:
        wanted = [(d, self.pretrain.split) for d in self.pretrain.datasets]
        wanted += [(self.finetune.dataset, s) for s in (self.finetune.train, self.finetune.test)]
        if self.pretrain.monitor:
            watched = (self.pretrain.monitor.dataset, self.pretrain.monitor.split)
            wanted.append(watched)
            if watched in [(d, self.pretrain.split) for d in self.pretrain.datasets]:
                raise ValueError(
                    f"pretrain.monitor: pretraining sees split '{watched[1]}' of '{watched[0]}'; name one that it does not see"
                )
        for name, split in wanted:
            if split not in self.datasets[name].splits:
                raise ValueError(
                    f"datasets.{name}.annotations: no split '{split}'; it has {', '.join(self.datasets[name].splits) or 'none'}"
                )

    def _strides(self) -> None:
        for name in self.pretrain.datasets:
            step = self.datasets[name].frames.step
            for key, value in (("clip.stride", self.clip.stride), ("flow.gap", self.flow.gap)):
                if value % step:
                    raise ValueError(
                        f"{key}: {value} is not a multiple of datasets.{name}.frames.step {step}, so its frames are not kept"
                    )


def load_config(source: str | Path | dict, where: str = "configuration") -> Config:
    """Load a whole configuration from a YAML path or from Snakemake's merged dict."""
    if isinstance(source, dict):
        return parse(Config, source, where)
    return parse(Config, read_yaml(source), str(source))
