"""The sections of a configuration: what each setting is, its type, its default, and what must hold within a section.

Lengths in time are in frames of the original video unless a comment says otherwise. `mscl.config.schema` joins the sections, and
`mscl.config.checks` checks what must hold between them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mscl.config.backbones import known_backbone
from mscl.config.datasets import Name, Positive, Share
from mscl.config.foreign import PerModel, check_alone
from mscl.config.limits import Place, Range, ShareRange
from mscl.config.methods import METHODS, Switches
from mscl.config.recipes import Finetune, FinetuneChanges, Optim, OptimChanges
from mscl.config.tracking import known_tracker
from mscl.config.validation import Strict, did_you_mean, partial


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
    groups: Literal["auto", "together", "one_by_one"] = "auto"  # batch-norm groups; auto: together on a CPU, one_by_one on a GPU
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
