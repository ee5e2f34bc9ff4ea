"""The recipes of training: what pretraining, finetuning and linear evaluation are told of optimiser, schedule, clips and test views."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mscl.config.datasets import Positive, Share
from mscl.config.limits import Range, ShareRange
from mscl.config.validation import Strict, partial


class Optim(Strict):
    """A training recipe."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)]
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1.0e-4
    batch: Annotated[int, Field(ge=2)]  # videos per step, in total over processes and parts
    base_batch: Positive | None = None  # the batch that `lr` is given for; lr is then scaled linearly to `batch`
    accumulate: Positive = 1  # gradient accumulation: number of parts of a batch
    epochs: Positive
    warmup: Annotated[float, Field(ge=0)] = 0  # epochs, may be a fraction: lr rises linearly to the value of the schedule
    steps: tuple[Positive, ...] = ()  # multiply lr by 0.1 at these epochs; empty: cosine schedule to 0
    clip_grad: Annotated[float, Field(gt=0)] = 40.0


class Finetune(Optim):
    """The recipe of finetuning and its test."""

    frames: Positive = 16  # uniform over the video
    area: ShareRange = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip: bool = False  # off by default: SSv2 has classes that differ in left and right
    dropout: Share = 0.5
    stride: Positive | None = None  # frames apart, as stored frames allow; default: uniform over the video
    test_size: Positive = 128  # pixels; short side and centre crop at test time
    test_clips: Positive = 1  # clips of a video whose softmax is averaged in the test
    test_crops: Literal[1, 3] = 1  # of each clip: the centre, or both ends of the longer side as well


# The same keys, all optional: what a model, a method or a target changes.
OptimChanges = partial(Optim)
FinetuneChanges = partial(Finetune)

# What linear evaluation changes in the finetuning recipe where nothing else is said: the recipe of Feichtenhofer et al. (CVPR 2021,
# arXiv 2104.14558) as released, configs/contrastive_ssl/linear_k400_Slow_8x8_R50_syn0.yaml of facebookresearch/SlowFast. Clips and
# test views stay those of finetuning; features are not normalised.
LINEAR = {
    "optimizer": "sgd",
    "lr": 0.5,
    "base_batch": 64,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "epochs": 60,
    "warmup": 8,
    "steps": (),
    "dropout": 0.0,
}
