"""The typed, validated configuration.

One YAML file describes one whole experiment (`config.yaml`: the demo; `config/paper.yaml`: the paper). `load_config` returns a
`Config`, or raises `ConfigError` with one sentence per mistake. Lengths in time are in frames of the original video unless a
comment says otherwise. This module imports only pydantic and PyYAML, so that the Snakefile can validate without loading torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mscl.config.backbones import known_backbone
from mscl.config.datasets import Dataset, Name, Positive, Share
from mscl.config.foreign import ForeignWeights, PerModel, check_alone, check_foreign
from mscl.config.limits import Place, Range, ShareRange, check_limits
from mscl.config.methods import METHODS, Switches
from mscl.config.recipes import LINEAR, Finetune, FinetuneChanges, Optim, OptimChanges
from mscl.config.targets import Target, expanded
from mscl.config.tracking import known_tracker
from mscl.config.validation import Strict, did_you_mean, parse, partial, read_yaml


class Paths(Strict):
    """Where files are written."""

    data: Place
    results: Place

    @model_validator(mode="after")
    def folders(self) -> Paths:
        for key in ("data", "results"):
            if (path := getattr(self, key)).is_file():
                raise ValueError(f"{key}: {path} is a file; give a folder")
        return self


class FlowConfig(Strict):
    """How optical flow is computed and stored."""

    method: Literal["dis", "raft", "raft-small", "command"] = "dis"
    gap: Positive = 8  # flow is computed from frame i to frame i+gap
    step: Positive = 1  # in kept frames: a field starts at every step-th of them, and clips with flow start at these
    size: tuple[Positive, Positive] = (384, 640)  # H, W at which flow is computed
    short_side: Positive = 128  # pixels; short side of the stored fields
    quality: Annotated[int, Field(ge=1, le=100)] = 95  # JPEG quality of the stored planes
    command: tuple[str, ...] = ()  # method command: the program and its arguments, which answers as docs/flow-programs.md says
    weights: Place | None = None  # RAFT: file with the state dict of torchvision's raft_large, or raft_small
    sha256: str | None = None
    iterations: Positive = 20
    batch: Positive = 16
    # RAFT: of its networks. tf32 (a GPU rounds the inputs of products to 10 bits) and bfloat16 are used only where they agree with float32.
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def possible(self) -> FlowConfig:
        if self.network and self.weights is None:
            raise ValueError(f"weights: RAFT needs a local file of torchvision's {self.network} weights; set it, or method: dis")
        if self.network and any(side % 8 or side < 128 for side in self.size):
            raise ValueError(f"size: RAFT needs sides that are multiples of 8 and at least 128, not {self.size}")
        if (self.method == "command") != bool(self.command):
            raise ValueError(
                "command: method: command needs the program and its arguments, such as [python, my_flow.py]; set it"
                if self.method == "command"
                else "command: only with method: command; set that, or remove it"
            )
        return self

    @property
    def network(self) -> str | None:
        """torchvision's name of RAFT's network; None for other methods."""
        return {"raft": "raft_large", "raft-small": "raft_small"}.get(self.method)

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU where `compute.device` allows: RAFT, and programs. DIS always runs on the CPU."""
        return self.method != "dis"


class MDSConfig(Strict):
    """Motion Differential Sampling."""

    stride: Positive = 4  # in kept frames: a multiple of flow.step
    fields: Positive = 8  # terms per start
    pool: Positive = 28  # pixels; side and stride of the pooling kernel of the motion attention, for a field of 384 x 640


class ClipConfig(Strict):
    """A pretraining clip."""

    frames: Positive = 8
    stride: Positive = 16
    max_shift: Annotated[int, Field(ge=0)] = 128  # largest distance between the starts of query and key clip


class Augment(Strict):
    """Augmentation of pretraining clips, drawn once per clip."""

    area: ShareRange = (0.2, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip: Share = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: Share = 0.8
    gray_p: Share = 0.2
    blur_p: Share = 0.5
    blur_sigma: Range = (0.1, 2.0)
    colours: Literal["clip", "frame"] = "clip"  # whether the factors of the jitter are drawn once per clip or for each frame


class Contrast(Strict):
    """The contrastive losses, MoCo and LMCL."""

    dim: Positive = 128
    queue: Positive = 65536
    temperature: Annotated[float, Field(gt=0)] = 0.07
    momentum: Share = 0.994
    decay: Share = 0.99999
    bn_groups: Positive = 1  # number of shuffled batch-norm groups: shuffle-BN on one device


# The same keys, all optional: what a model or a method changes in the shared settings.
ContrastChanges = partial(Contrast)
AugmentChanges = partial(Augment)


class Model(Strict):
    """A backbone with its sizes and training recipes."""

    backbone: Annotated[str, AfterValidator(known_backbone)]
    width: Positive = 64  # channels of the first stage; torchvision's is 64
    flow_width: Positive = 16
    neck: Positive = 128  # channels
    neck_blocks: Positive = 2
    size: Annotated[int, Field(ge=16)] = 112  # pixels of a training crop
    pretrain: Optim
    finetune: Finetune
    linear: FinetuneChanges = FinetuneChanges()  # changes to the recipe of linear evaluation
    contrast: ContrastChanges = ContrastChanges()  # changes to `contrast` for this model, such as bn_groups
    methods: tuple[Name, ...] = ()  # the methods that run with this model; default: all
    targets: tuple[Name, ...] = ()  # the targets that it is tested on, folds and draws by their common name; default: all


class MethodSettings(Strict):
    """A method of your own, others' weights, or changes for a built-in method: switches, contrast, recipe, title."""

    like: Name | None = None  # a built-in method whose switches it copies
    switches: Switches | None = None
    weights: PerModel | None = None  # model -> others' weights, instead of a pretraining
    title: str = ""  # in tables and figures; empty: its name
    contrast: ContrastChanges = ContrastChanges()
    pretrain: OptimChanges = OptimChanges()
    augment: AugmentChanges = AugmentChanges()

    @model_validator(mode="after")
    def possible(self) -> MethodSettings:
        if self.like is not None and self.like not in METHODS:
            raise ValueError(f"like: no method '{self.like}'{did_you_mean(self.like, list(METHODS))}")
        if self.like and self.switches:
            raise ValueError("switches: a method has either its own switches or like; remove one of the two")
        check_alone(self)
        return self


class Monitor(Strict):
    """A k-NN test of the query backbone during pretraining, on videos that are not used for pretraining."""

    dataset: Name
    split: str = "train"
    videos: Annotated[int, Field(ge=10)] = 500
    every: Positive = 1  # epochs


class Use(Strict):
    """The data for pretraining."""

    datasets: tuple[Name, ...] = Field(min_length=1)
    split: str = "train"
    monitor: Monitor | None = None


class Analysis(Strict):
    """The confused pairs and GradCAM."""

    pairs: Positive = 3  # most confused pairs listed per compared method
    gradcam: tuple[str, ...] = ()  # classes to draw; empty: one of each of the two pairs improved most


class Kernels(Strict):
    """Which kernels the networks use. Kernels round differently, so these settings change the last bits of a result."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of the networks; auto: bfloat16 on a GPU, float32 on a CPU
    channels_last: bool = True  # memory format of clips and 3D weights
    compile: bool = False  # compile the backbones with torch.compile
    cudnn_benchmark: bool = False  # on a GPU: try all algorithms and keep the fastest; the choice may differ from run to run


class Compute(Strict):
    """How jobs use the machine."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Positive = 1  # per training job: GPUs, or CPU processes, that share its batch
    threads: Positive = 1  # torch threads of a CPU training job; changes the last bits of a result
    workers: Annotated[int, Field(ge=0)] = 0  # loader processes per training process
    extract_workers: Positive = 1  # ffmpeg processes, or flow threads, per job
    download_workers: Positive = 4  # archives downloaded at the same time
    checkpoint_minutes: Positive = 10
    tracking: Annotated[str, AfterValidator(known_tracker)] | None = None  # a tracker that also gets the curves of trainings
    kernels: Kernels = Kernels()


class Config(Strict):
    """The configuration of one experiment."""

    name: Name
    kind: Literal["demo", "evidence", "real", "paper"]  # printed on every table
    paths: Paths
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(min_length=1)
    methods: tuple[Name, ...] = Field(min_length=1)
    method_settings: dict[Name, MethodSettings] = {}  # further methods, and changes for built-in ones
    datasets: dict[Name, Dataset]
    flow: FlowConfig = FlowConfig()
    mds: MDSConfig = MDSConfig()
    clip: ClipConfig = ClipConfig()
    augment: Augment = Augment()
    contrast: Contrast = Contrast()
    pretrain: Use
    targets: tuple[Target, ...] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)
    analysis: Analysis = Analysis()
    compute: Compute = Compute()

    def switches(self, method: str) -> Switches:
        """The switches of a method."""
        own = self.method_settings.get(method)
        if own is None or method in METHODS:
            return METHODS[method].switches
        if own.weights:
            return Switches(pretrain=False)
        return METHODS[own.like].switches if own.like else own.switches

    def foreign(self, model: str, method: str) -> ForeignWeights | None:
        """Others' weights that a method takes for a model; None for a method of this pipeline."""
        own = self.method_settings.get(method)
        return own.weights[model] if own and own.weights else None

    def title(self, method: str) -> str:
        """The name of a method in tables and figures."""
        own = self.method_settings.get(method)
        if own and own.title:
            return own.title
        if method in METHODS and METHODS[method].title:
            return METHODS[method].title
        return method

    def contrast_of(self, model: str, method: str) -> Contrast:
        """The settings `contrast` of a method on a model: with the changes of the model, then those of the method."""
        own = self.method_settings.get(method, MethodSettings())
        return changed(changed(self.contrast, self.models[model].contrast), own.contrast)

    def augment_of(self, method: str) -> Augment:
        """The settings `augment` of a method: with the changes of the built-in method, then those of `method_settings`."""
        named = METHODS[method].augment if method in METHODS else {}
        own = self.method_settings.get(method, MethodSettings())
        return changed(self.augment.model_copy(update=named), own.augment)

    def pretrain_of(self, model: str, method: str) -> Optim:
        """The pretraining recipe of a method on a model: that of the model, with the changes of the method."""
        own = self.method_settings.get(method, MethodSettings())
        return changed(self.models[model].pretrain, own.pretrain)

    def folds(self, dataset: str) -> tuple[int, ...]:
        """The folds of a data set that targets ask for, besides its own."""
        asked = {target.fold for target in self.targets if target.dataset == dataset and target.fold}
        return tuple(sorted(asked - {self.datasets[dataset].fold}))

    def target(self, name: str) -> Target:
        """The target of this name."""
        return next(target for target in self.targets if target.name == name)

    @property
    def finetuned_targets(self) -> list[Target]:
        """The targets on which backbones are finetuned."""
        return [target for target in self.targets if target.finetuned]

    def draws_of(self, target: Target) -> list[Target]:
        """A target with the other draws of its few training videos; alone if it is no draw of several."""
        return [other for other in self.targets if other.shown == target.shown and other.draws_of == target.draws_of]

    def finetune_of(self, target: str, model: str) -> Finetune:
        """The recipe of finetuning a model on a target: that of the model, with the changes of the target."""
        own = self.target(target)
        return changed(changed(self.models[model].finetune, own.finetune), own.models.get(model, FinetuneChanges()))

    @property
    def analysed_targets(self) -> list[Target]:
        """The targets with confused pairs and GradCAM: those of finetuning; of several draws of few training videos the first."""
        return [target for target in self.finetuned_targets if target.draw == 1 or not target.draws_of]

    @property
    def linear_targets(self) -> list[Target]:
        """The targets on which linear classifiers are trained on clips, on frozen backbones."""
        return [target for target in self.targets if target.linear_evaluated]

    def linear_of(self, target: str, model: str) -> Finetune:
        """The recipe of linear evaluation: that of finetuning with the changes of `LINEAR`, then of the model, then of the target."""
        usual = self.finetune_of(target, model).model_copy(update=LINEAR)
        return changed(changed(usual, self.models[model].linear), self.target(target).linear)

    def processes_of(self, model: str, method: str) -> int:
        """Processes of a pretraining: `compute.processes`, or fewer if the batch-norm groups cannot be divided among that number.

        A process holds whole groups, so 4 groups use 4 of 8 GPUs, and another training can use the rest. With one group, each
        process is a group.
        """
        groups = self.contrast_of(model, method).bn_groups
        return self.compute.processes if groups == 1 else max(n for n in range(1, self.compute.processes + 1) if groups % n == 0)

    @property
    def pretrained_methods(self) -> list[str]:
        """The methods with pretraining, in the order of the configuration."""
        return [m for m in self.methods if self.switches(m).pretrain]

    @property
    def pretraining_datasets(self) -> tuple[str, ...]:
        """The data sets that pretraining reads: none where no method is pretrained here."""
        return self.pretrain.datasets if self.pretrained_methods else ()

    def methods_of(self, model: str) -> list[str]:
        """The methods that run with a model, in the order of the configuration."""
        chosen = self.models[model].methods
        return [method for method in self.methods if not chosen or method in chosen]

    def pretrained_of(self, model: str) -> list[str]:
        """The methods of a model that have a pretraining."""
        return [method for method in self.methods_of(model) if self.switches(method).pretrain]

    def targets_of(self, model: str) -> list[Target]:
        """The targets on which a model is tested, in the order of the configuration."""
        chosen = self.models[model].targets
        return [target for target in self.targets if not chosen or set(target.names) & set(chosen)]

    @model_validator(mode="before")
    @classmethod
    def renamed(cls, values: Any) -> Any:
        """Say how settings of an earlier version are written now."""
        if isinstance(values, dict) and "finetune" in values:
            old = values["finetune"] if isinstance(values["finetune"], dict) else {}
            now = ", ".join(f"{key}: {old[key]}" for key in ("dataset", "train", "test") if key in old)
            raise ValueError(f"finetune: there may be several targets now; write targets: [{{{now}}}] instead")
        if isinstance(values, dict) and isinstance(values.get("targets"), list | tuple):
            values = values | {"targets": [one for target in values["targets"] for one in expanded(target)]}
        analysis = values.get("analysis") if isinstance(values, dict) else None
        for key in ("measures", "clips") if isinstance(analysis, dict) else ():
            if key in analysis:
                raise ValueError(
                    f"analysis.{key}: belongs to a target now; write it under targets (measures also lists finetune)"
                )
        return values

    @model_validator(mode="after")
    def possible(self) -> Config:
        for key in ("seeds", "methods"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key}: {list(getattr(self, key))} contains a duplicate")
        self._check_methods()
        self._check_targets()
        self._check_models()
        self._check_datasets()
        self._check_splits()
        self._check_strides()
        check_foreign(self, METHODS)
        for name in self.models:
            self._check_batches(name)
        check_limits(self)
        return self

    def _check_methods(self) -> None:
        for name, own in self.method_settings.items():
            if name in METHODS and (own.switches or own.like):
                raise ValueError(f"method_settings: '{name}' is a built-in method; give yours another name")
            if name not in METHODS and not (own.switches or own.like or own.weights):
                raise ValueError(
                    f"method_settings.{name}: not a built-in method; add switches, like with the name of a built-in method, or weights"
                )
        known = [*METHODS, *self.method_settings]
        for method in self.methods:
            if method not in known:
                raise ValueError(f"methods: unknown method '{method}'{did_you_mean(method, known)}")

    def _check_targets(self) -> None:
        names = [target.name for target in self.targets]
        common = {name for target in self.targets for name in (target.draws_of, target.folds_of)}
        for n, target in enumerate(self.targets):
            if target.name in names[:n] or target.name in common:
                raise ValueError(
                    f"targets.{n}.name: '{target.name}' is the name of another target; give this one a name of its own"
                )
            data = self.datasets.get(target.dataset)
            if target.fold and data and not data.row.folds:
                raise ValueError(f"targets.{n}.fold: the {data.format} format has no folds; remove this key")
            for model in target.models:
                if model not in self.models:
                    raise ValueError(f"targets.{n}.models: no model '{model}'{did_you_mean(model, list(self.models))}")

    def _check_models(self) -> None:
        """Check the methods and targets that models choose: each exists, and each one of the configuration is used."""
        methods = [*METHODS, *self.method_settings]
        targets = list(dict.fromkeys(name for target in self.targets for name in target.names))
        for name, model in self.models.items():
            for key, chosen, known in (("methods", model.methods, methods), ("targets", model.targets, targets)):
                for one in chosen:
                    if one not in known:
                        raise ValueError(f"models.{name}.{key}: no '{one}'{did_you_mean(one, known)}")
            if not self.methods_of(name):
                raise ValueError(f"models.{name}.methods: none of them is under methods; add one there, or remove this model")
        for method in self.methods:
            if not any(method in self.methods_of(name) for name in self.models):
                raise ValueError(f"methods: no model runs '{method}'; add it to models.*.methods, or remove it here")
        for n, target in enumerate(self.targets):
            if not any(target in self.targets_of(name) for name in self.models):
                raise ValueError(
                    f"targets.{n}: no model is tested on '{target.name}'; add it to models.*.targets, or remove it here"
                )

    def _check_datasets(self) -> None:
        watched = [self.pretrain.monitor.dataset] if self.pretrain.monitor else []
        for key, names in (
            ("pretrain.datasets", self.pretrain.datasets),
            ("pretrain.monitor.dataset", watched),
            *((f"targets.{n}.dataset", [target.dataset]) for n, target in enumerate(self.targets)),
        ):
            for name in names:
                if name not in self.datasets:
                    raise ValueError(f"{key}: no data set '{name}' under datasets{did_you_mean(name, list(self.datasets))}")
        for name in self.pretraining_datasets:
            if self.datasets[name].frames.keep == "none":
                raise ValueError(
                    f"datasets.{name}.frames.keep: none is for targets; pretraining on '{name}' computes flow and reads random clips"
                    " in every epoch, which needs stored frames: remove this key, or take the data set out of pretrain.datasets"
                )

    def _check_batches(self, name: str) -> None:
        """Check that batches can be divided among processes, parts and batch-norm groups, and the queue into batches."""
        for method in self.pretrained_of(name):
            recipe, contrast = self.pretrain_of(name, method), self.contrast_of(name, method)
            if contrast.queue % recipe.batch:
                raise ValueError(
                    f"contrast.queue: {contrast.queue} is not a multiple of models.{name}.pretrain.batch {recipe.batch}"
                )
            self._check_parts(f"models.{name}.pretrain", recipe, self.processes_of(name, method))
            if recipe.batch % contrast.bn_groups:
                raise ValueError(
                    f"contrast.bn_groups: models.{name}.pretrain.batch {recipe.batch} is not a multiple of {contrast.bn_groups} groups"
                )
            self._check_accumulate(name, method, recipe, contrast)
            if self.switches(method).family in ("corp-m", "corp-f"):
                _check_corp(name, recipe, contrast)
            if self.clip.frames != 8 and self.switches(method).lmcl:
                raise ValueError(
                    "clip.frames: LMCL needs 8 frames, since it pairs 4 time steps of the neck with 4 of the flow network; set 8"
                )
        for target in (target for target in self.targets_of(name) if target.finetuned):
            self._check_parts(f"models.{name}.finetune", self.finetune_of(target.name, name), self.compute.processes)
        for target in (target for target in self.targets_of(name) if target.linear_evaluated):
            self._check_parts(f"models.{name}.linear", self.linear_of(target.name, name), self.compute.processes)

    def _check_accumulate(self, name: str, method: str, recipe: Optim, contrast: Contrast) -> None:
        """Check that each part of a batch contains at least 2 whole batch-norm groups, among which its keys are shuffled."""
        if recipe.accumulate == 1:
            return
        key, parts = f"models.{name}.pretrain.accumulate", self.processes_of(name, method) * recipe.accumulate
        if contrast.bn_groups % parts or contrast.bn_groups // recipe.accumulate < 2:
            raise ValueError(
                f"{key}: contrast.bn_groups {contrast.bn_groups} must be a multiple of {parts} (processes of this run x accumulate), at least"
                f" {2 * recipe.accumulate}, so that each part of a batch contains whole batch-norm groups to shuffle its keys among"
            )
        if self.switches(method).fra == "released":
            raise ValueError(f"{key}: fra: released puts keys into the queue within a step; set accumulate to 1")

    def _check_parts(self, key: str, recipe: Optim, processes: int) -> None:
        if recipe.batch % (parts := processes * recipe.accumulate):
            raise ValueError(f"{key}.batch: {recipe.batch} is not a multiple of {parts} (processes of this run x accumulate)")

    def _check_splits(self) -> None:
        wanted = [(d, self.pretrain.split) for d in self.pretrain.datasets]
        wanted += [(target.dataset, split) for target in self.targets for split in (target.train, target.test)]
        if self.pretrain.monitor:
            watched = (self.pretrain.monitor.dataset, self.pretrain.monitor.split)
            wanted.append(watched)
            if watched in [(d, self.pretrain.split) for d in self.pretrain.datasets]:
                raise ValueError(
                    f"pretrain.monitor: split '{watched[1]}' of '{watched[0]}' is used for pretraining; give another split"
                )
        if self.pretrain.monitor and watched in [(target.dataset, target.test) for target in self.targets]:
            raise ValueError(
                f"pretrain.monitor: split '{watched[1]}' of '{watched[0]}' is the test split of a target, and the monitor uses its labels"
                " during pretraining; give another split"
            )
        for name, split in wanted:
            if split not in self.datasets[name].splits:
                raise ValueError(
                    f"datasets.{name}.annotations: no split '{split}'; it has {', '.join(self.datasets[name].splits) or 'none'}"
                )

    def _check_strides(self) -> None:
        if self.mds.stride % self.flow.step:
            raise ValueError(
                f"mds.stride: {self.mds.stride} is not a multiple of flow.step {self.flow.step}, so there are no fields that far apart"
            )
        for name in self.pretrain.datasets:
            step = self.datasets[name].frames.step
            for key, value in (("clip.stride", self.clip.stride), ("flow.gap", self.flow.gap)):
                if value % step:
                    raise ValueError(
                        f"{key}: {value} is not a multiple of datasets.{name}.frames.step {step}, so these frames are not stored"
                    )
            if self.clip.stride % (step * self.flow.step):
                raise ValueError(
                    f"clip.stride: {self.clip.stride} is not a multiple of {step * self.flow.step} (flow.step {self.flow.step} x"
                    f" datasets.{name}.frames.step {step}), so not every frame of a clip has a field"
                )


def changed(settings: Strict, changes: Strict) -> Strict:
    """A copy of `settings` with the values given in `changes`."""
    return settings.model_copy(update={key: value for key, value in changes if value is not None})


def _check_corp(name: str, recipe: Optim, contrast: Contrast) -> None:
    """Check what CORP needs. Raises ValueError."""
    if contrast.dim % 8:
        raise ValueError(f"contrast.dim: {contrast.dim} is not a multiple of CORP's 8 heads")
    if recipe.batch // recipe.accumulate < 2:
        raise ValueError(
            f"models.{name}.pretrain.accumulate: CORP compares different videos and needs at least 2 videos in each part of a batch"
        )


def load_config(source: str | Path | dict, where: str = "configuration") -> Config:
    """Load a whole configuration from the path of a YAML file or from Snakemake's merged dict.

    Raises `ConfigError` with one sentence per mistake; `where` names the source of a dict in these sentences.
    """
    if isinstance(source, dict):
        return parse(Config, source, where)
    return parse(Config, read_yaml(source), str(source))
