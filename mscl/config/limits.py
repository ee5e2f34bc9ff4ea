"""Limits that settings have together: ranges, schedules, sizes that the networks and OpenCV can take, folders that must differ."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

if TYPE_CHECKING:
    from mscl.config.recipes import Optim
    from mscl.config.schema import Config

LONGEST_NAME = 255  # bytes of one file or folder, on the usual file systems
SMALLEST_FLOW = 16  # pixels; on a smaller side OpenCV's DIS has no whole patch at its coarsest scale, and crashes
# Backbone -> (strides over time, over space) of its last stage. Your own backbone is not checked.
STRIDES = {"r3d_18": (8, 16), "r2plus1d_18": (8, 16), "slow_r50": (2, 32), "slowonly_r50": (1, 32)}
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expanded(path: Any) -> Any:
    """A path with `~` and `$NAME` replaced as a shell does. Raises ValueError for a user or a variable that does not exist."""
    if not isinstance(path, str):
        return path
    found = os.path.expanduser(os.path.expandvars(path))
    if "\0" in found or any(len(os.fsencode(part)) > LONGEST_NAME for part in found.split("/")):
        raise ValueError(f"'{found[:40]}…' is no path: a name in it is longer than {LONGEST_NAME} bytes, or has a NUL byte")
    if match := _VARIABLE.search(found):
        raise ValueError(f"'{path}': the environment variable {match[0]} is not set; set it or write the folder itself")
    if found.startswith("~"):
        raise ValueError(f"'{path}': the home folder of {found.split('/')[0]} is not known; write the folder itself")
    return found


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"[{pair[0]:g}, {pair[1]:g}] is reversed; give the smaller number first")
    return pair


Place = Annotated[Path, BeforeValidator(expanded)]
Above0 = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[Above0, Above0], AfterValidator(_ordered)]
ShareRange = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], AfterValidator(_ordered)]


def check_limits(config: Config) -> None:
    """Raise ValueError that names the setting, for the first setting that contradicts another one."""
    if os.path.realpath(config.paths.data) == os.path.realpath(config.paths.results):
        raise ValueError(f"paths.results: {config.paths.results} is also paths.data; give each its own folder")
    if config.flow.method == "dis" and min(config.flow.size) < SMALLEST_FLOW:
        height, width = config.flow.size
        raise ValueError(
            f"flow.size: [{height}, {width}] is too small for OpenCV's DIS; use at least {SMALLEST_FLOW} pixels per side"
        )
    for name, model in config.models.items():
        for method in config.pretrained_of(name):
            recipe, groups = config.pretrain_of(name, method), config.contrast_of(name, method).bn_groups
            _check_steps(f"models.{name}.pretrain", recipe)
            parts = max(groups, recipe.accumulate * config.processes_of(name, method))
            _check_values(f"models.{name}.pretrain", model.backbone, recipe.batch // parts, config.clip.frames, model.size)
        for target in (target for target in config.targets_of(name) if target.finetuned):
            recipe = config.finetune_of(target.name, name)
            _check_steps(f"models.{name}.finetune", recipe)
            videos = recipe.batch // (recipe.accumulate * config.compute.processes)
            _check_values(f"models.{name}.finetune", model.backbone, videos, recipe.frames, model.size)
        for target in (target for target in config.targets_of(name) if target.linear_evaluated):
            _check_linear(f"models.{name}.linear", config.linear_of(target.name, name))


def _check_linear(key: str, recipe: Optim) -> None:
    _check_steps(key, recipe)
    if recipe.warmup >= recipe.epochs:  # 8 epochs by default, so a short recipe must say it
        raise ValueError(
            f"{key}.warmup: {recipe.warmup:g} epochs of {recipe.epochs}; set a smaller warmup, such as 0, or more epochs"
        )


def _check_steps(key: str, recipe: Optim) -> None:
    steps = list(recipe.steps)
    if steps != sorted(set(steps)):
        raise ValueError(f"{key}.steps: {steps} must increase; sort them and give each epoch once")
    if steps and steps[-1] >= recipe.epochs:
        raise ValueError(
            f"{key}.steps: {steps[-1]} is not before the end of {recipe.epochs} epochs; give earlier steps or more epochs"
        )


def _check_values(key: str, backbone: str, videos: int, frames: int, size: int) -> None:
    """Batch norm needs at least 2 values per channel: `videos` in a group x positions of time and space in the last stage."""
    if backbone not in STRIDES:
        return
    time, space = STRIDES[backbone]
    if videos * math.ceil(frames / time) * math.ceil(size / space) ** 2 < 2:
        raise ValueError(
            f"{key}.batch: a batch-norm group has {videos} video, of which {backbone} keeps one position at {frames} frames of {size} pixels,"
            f" and batch norm needs 2 values; increase batch, or size to more than {space}"
        )
