"""Typed, validated configuration.

One YAML file describes one whole experiment (`config.yaml` the demo, `config/paper.yaml` the paper).
`load_config` turns it into a `Config` or raises `ConfigError` with one sentence per mistake. Lengths
are in raw frames of the video unless a comment says otherwise. Imports only pydantic and PyYAML, so
that the Snakefile can validate at parse time without loading torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mscl.config.backbones import known_backbone
from mscl.config.datasets import Dataset, Name, Positive, Share
from mscl.config.measures import known_measure
from mscl.config.methods import METHODS, Switches
from mscl.config.validation import Strict, did_you_mean, parse, partial, read_yaml


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
    colours: Literal["clip", "frame"] = "clip"  # whether jitter draws its factors once for a clip, or for each of its frames


class Contrast(Strict):
    dim: Positive = 128
    queue: Positive = 65536
    temperature: Annotated[float, Field(gt=0)] = 0.07
    momentum: Share = 0.994
    decay: Share = 0.99999
    bn_groups: Positive = 1  # number of shuffled batch-norm groups: shuffle-BN on one device


class Optim(Strict):
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)]
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1.0e-4
    batch: Annotated[int, Field(ge=2)]  # in all: over processes and parts of a step
    base_batch: Positive | None = None  # the batch that `lr` is meant for; with it lr is scaled linearly to `batch`
    accumulate: Positive = 1  # parts of a batch, one after the other, whose gradients add up to one step
    epochs: Positive
    warmup: Annotated[float, Field(ge=0)] = 0  # epochs, or a part of one, over which the rate rises linearly to the schedule's
    steps: tuple[Positive, ...] = ()  # lr x 0.1 at these epochs; empty: cosine to 0
    clip_grad: Annotated[float, Field(gt=0)] = 40.0


class Finetune(Optim):
    frames: Positive = 16  # uniform over the video
    area: tuple[Share, Share] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False  # SSv2 labels tell left from right
    dropout: Share = 0.5
    test_size: Positive = 128  # short side and centre crop at test, pixels


# The same keys, none of them required: what a model or a method changes of the settings that all share.
ContrastChanges = partial(Contrast)
OptimChanges = partial(Optim)
AugmentChanges = partial(Augment)


class Model(Strict):
    """A backbone with its sizes and recipes."""

    backbone: Annotated[str, AfterValidator(known_backbone)]
    width: Positive = 64  # channels of the first stage; torchvision's is 64
    flow_width: Positive = 16
    neck: Positive = 128  # channels
    neck_blocks: Positive = 2
    size: Annotated[int, Field(ge=16)] = 112  # pixels of a training crop
    pretrain: Optim
    finetune: Finetune
    contrast: ContrastChanges = ContrastChanges()  # what is other for this model, such as bn_groups


class MethodSettings(Strict):
    """A method of your own, or what is other for a method than for all: its switches, contrast, recipe, title."""

    like: Name | None = None  # a named method, whose switches it takes
    switches: Switches | None = None
    title: str = ""  # in tables and figures; its name where empty
    contrast: ContrastChanges = ContrastChanges()
    pretrain: OptimChanges = OptimChanges()
    augment: AugmentChanges = AugmentChanges()

    @model_validator(mode="after")
    def possible(self) -> MethodSettings:
        if self.like is not None and self.like not in METHODS:
            raise ValueError(f"like: no method '{self.like}'{did_you_mean(self.like, list(METHODS))}")
        if self.like and self.switches:
            raise ValueError("switches: remove it, or remove like: a method takes the switches of another or has its own")
        return self


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
    measures: tuple[Annotated[str, AfterValidator(known_measure)], ...] = ("probe", "retrieval")  # of the frozen features
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
    method_settings: dict[Name, MethodSettings] = {}  # further methods, and what is other for one
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
        """What a method is made of."""
        own = self.method_settings.get(method)
        if own is None or method in METHODS:
            return METHODS[method].switches
        return METHODS[own.like].switches if own.like else own.switches

    def title(self, method: str) -> str:
        """The name of a method in tables and figures."""
        own = self.method_settings.get(method)
        return own.title if own and own.title else METHODS[method].title or method if method in METHODS else method

    def contrast_of(self, model: str, method: str) -> Contrast:
        """The contrast of a method on a model: `contrast`, as the model and then the method change it."""
        own = self.method_settings.get(method, MethodSettings())
        return changed(changed(self.contrast, self.models[model].contrast), own.contrast)

    def augment_of(self, method: str) -> Augment:
        """The augmentation of a method: `augment`, as the named method (a released variant has its own) and then the settings change it."""
        named = METHODS[method].augment if method in METHODS else {}
        own = self.method_settings.get(method, MethodSettings())
        return changed(self.augment.model_copy(update=named), own.augment)

    def pretrain_of(self, model: str, method: str) -> Optim:
        """The recipe of a pretraining: the model's, as the method changes it."""
        own = self.method_settings.get(method, MethodSettings())
        return changed(self.models[model].pretrain, own.pretrain)

    @property
    def pretrained_methods(self) -> list[str]:
        """The methods that have a pretraining, in order."""
        return [m for m in self.methods if self.switches(m).pretrain]

    @model_validator(mode="after")
    def possible(self) -> Config:
        for key in ("seeds", "methods"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key}: {list(getattr(self, key))} holds the same one twice")
        self._check_methods()
        self._check_datasets()
        self._check_splits()
        self._check_strides()
        for name in self.models:
            self._check_batches(name)
        return self

    def _check_methods(self) -> None:
        for name, own in self.method_settings.items():
            if name in METHODS and (own.switches or own.like):
                raise ValueError(f"method_settings: '{name}' is a built-in method; give yours another name")
            if name not in METHODS and not (own.switches or own.like):
                raise ValueError(f"method_settings.{name}: no method of this name; give it switches, or like: a named method")
        known = [*METHODS, *self.method_settings]
        for method in self.methods:
            if method not in known:
                raise ValueError(f"methods: unknown method '{method}'{did_you_mean(method, known)}")

    def _check_datasets(self) -> None:
        watched = [self.pretrain.monitor.dataset] if self.pretrain.monitor else []
        for key, names in (
            ("pretrain.datasets", self.pretrain.datasets),
            ("pretrain.monitor.dataset", watched),
            ("finetune.dataset", [self.finetune.dataset]),
        ):
            for name in names:
                if name not in self.datasets:
                    raise ValueError(f"{key}: no data set '{name}' under datasets{did_you_mean(name, list(self.datasets))}")

    def _check_batches(self, name: str) -> None:
        """Batches divide among processes, parts and batch-norm groups, and the queue into batches."""
        processes = self.compute.processes
        for method in self.pretrained_methods:
            recipe, contrast = self.pretrain_of(name, method), self.contrast_of(name, method)
            if contrast.queue % recipe.batch:
                raise ValueError(
                    f"contrast.queue: {contrast.queue} is not a multiple of models.{name}.pretrain.batch {recipe.batch}"
                )
            self._check_parts(f"models.{name}.pretrain", recipe)
            if contrast.bn_groups > 1 and contrast.bn_groups % processes:
                raise ValueError(
                    f"contrast.bn_groups: {contrast.bn_groups} groups do not divide among {processes} compute.processes;"
                    f" set a multiple, for this model alone under models.{name}.contrast"
                )
            if recipe.batch % contrast.bn_groups:
                raise ValueError(
                    f"contrast.bn_groups: models.{name}.pretrain.batch {recipe.batch} does not divide into {contrast.bn_groups} groups"
                )
            self._check_accumulate(name, method, recipe, contrast)
            if self.switches(method).family in ("corp-m", "corp-f"):
                _check_corp(name, recipe, contrast)
            if self.clip.frames != 8 and self.switches(method).lmcl:
                raise ValueError("clip.frames: LMCL pairs 4 times of the neck with 4 of the flow network; set 8")
        self._check_parts(f"models.{name}.finetune", self.models[name].finetune)

    def _check_accumulate(self, name: str, method: str, recipe: Optim, contrast: Contrast) -> None:
        """A batch that comes in parts keeps its batch-norm groups: each part holds whole ones, and keys are shuffled among them."""
        if recipe.accumulate == 1:
            return
        key, parts = f"models.{name}.pretrain.accumulate", self.compute.processes * recipe.accumulate
        if contrast.bn_groups % parts or contrast.bn_groups // recipe.accumulate < 2:
            raise ValueError(
                f"{key}: contrast.bn_groups {contrast.bn_groups} must be a multiple of {parts} (compute.processes x accumulate), at least"
                f" {2 * recipe.accumulate}, so that each part of a batch holds whole batch-norm groups to shuffle its keys among"
            )
        if self.switches(method).fra == "released":
            raise ValueError(f"{key}: fra: released puts keys into the queue within a step; set accumulate to 1")

    def _check_parts(self, key: str, recipe: Optim) -> None:
        if recipe.batch % (parts := self.compute.processes * recipe.accumulate):
            raise ValueError(f"{key}.batch: {recipe.batch} does not divide into {parts} (compute.processes x accumulate)")

    def _check_splits(self) -> None:
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

    def _check_strides(self) -> None:
        for name in self.pretrain.datasets:
            step = self.datasets[name].frames.step
            for key, value in (("clip.stride", self.clip.stride), ("flow.gap", self.flow.gap)):
                if value % step:
                    raise ValueError(
                        f"{key}: {value} is not a multiple of datasets.{name}.frames.step {step}, so its frames are not kept"
                    )


def changed(settings: Strict, changes: Strict) -> Strict:
    """`settings` with what is given in `changes`."""
    return settings.model_copy(update={key: value for key, value in changes if value is not None})


def _check_corp(name: str, recipe: Optim, contrast: Contrast) -> None:
    if contrast.dim % 8:
        raise ValueError(f"contrast.dim: {contrast.dim} does not divide into CORP's 8 heads")
    if recipe.batch // recipe.accumulate < 2:
        raise ValueError(
            f"models.{name}.pretrain.accumulate: CORP tells videos apart and needs 2 of them in each part of a batch"
        )


def load_config(source: str | Path | dict, where: str = "configuration") -> Config:
    """Load a whole configuration from a YAML path or from Snakemake's merged dict."""
    if isinstance(source, dict):
        return parse(Config, source, where)
    return parse(Config, read_yaml(source), str(source))
