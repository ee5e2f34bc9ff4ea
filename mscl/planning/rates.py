"""Rates: the cost of a unit of work, and its origin: measured, given in a file, published or assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from mscl.config.datasets import Name
from mscl.config.schema import Config
from mscl.config.validation import Strict, parse, read_yaml
from mscl.machine.files import atomic_write

Origin = Literal["measured here", "given", "published", "assumed"]
TFLOPS = 40.0  # assumed sustained TFLOP/s of one GPU in training
TFLOPS_NOTE = (
    "about 1/8 of the published bf16 peak of an A100 (312 TFLOP/s); small 3D convolutions and batch norm are far below the peak"
)
CPU_TFLOPS = 0.05  # assumed TFLOP/s of one CPU core
# How many times as fast as RAFT-large RAFT-small was on an H200, by precision: it has a quarter of the operations, in smaller layers.
RAFT_SMALL = {"float32": 2.65, "tf32": 2.0, "bfloat16": 1.67}
RAFT_SHARE = 0.5  # assumed speed of float32 RAFT relative to bfloat16 training


class Rate(Strict):
    """A value and its origin; a plain number in a file has the origin `given`."""

    value: float = Field(ge=0)
    origin: Origin = "given"
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def bare(cls, value: Any) -> Any:
        """Accept a plain number."""
        return {"value": value} if isinstance(value, int | float) else value


class VideoRates(Strict):
    """The rates of one data set. A field is one flow field."""

    raw_frames: Rate | None = None  # mean number of frames per video
    extract_seconds: Rate | None = None  # CPU seconds per video
    frame_bytes: Rate | None = None  # bytes per stored frame, including tar headers
    field_seconds: Rate | None = None  # seconds per field: CPU seconds for DIS, GPU seconds for RAFT
    field_bytes: Rate | None = None  # bytes per stored field, including tar headers
    measured_with: dict[str, Any] | None = None  # the settings that the rates were measured with


class Rates(Strict):
    """The content of a rates file. Missing rates are assumed and marked as such."""

    machine: str = ""  # name of the CPU
    device: Literal["cpu", "gpu"] | None = None  # the device of `steps` and `tflops`
    videos: dict[Name, dict[Name, int]] = {}  # {data set: {split: number of videos}}, if they cannot be counted
    datasets: dict[Name, VideoRates] = {}
    steps: dict[str, Rate] = {}  # {"<model>/<method>" or "<model>/finetune/<target>": device seconds per trained video}
    loading: dict[str, Rate] = {}  # the same keys: CPU seconds to load one video
    tflops: Rate | None = None  # sustained TFLOP/s of the training device


def measured_settings(config: Config, name: str) -> dict[str, Any]:
    """The settings that the rates of data set `name` depend on, as plain values."""
    flow = config.flow.model_dump(
        mode="json",
        include={"method", "gap", "size", "short_side", "quality", "iterations", "precision"}
        | ({"command"} if config.flow.command else set()),
    )
    frames = config.datasets[name].frames.model_dump(mode="json", include={"step", "short_side", "quality"})
    return {"frames": frames, "flow": flow}


def load_rates(path: Path, config: Config) -> Rates:
    """Read a rates file for `config`. Measured values get the origin `given`.

    Raises ValueError that names the file and the field if it cannot be used or was measured with other settings.
    """
    values = read_yaml(path)
    rates = parse(Rates, {} if values is None else values, str(path))
    for name, found in rates.datasets.items():
        if name not in config.datasets:
            raise ValueError(f"{path}: datasets.{name}: the configuration has no such data set; remove it or correct the name")
        now = measured_settings(config, name)
        uncoded = {"flow.quality"} if found.field_bytes is None else set()  # how a field is coded does not change its time
        if found.measured_with is not None and (other := _difference(found.measured_with, now, uncoded)):
            raise ValueError(f"{path}: datasets.{name}: measured with {other}; measure again with --save-rates")
    for name in rates.videos:
        if name not in config.datasets:
            raise ValueError(f"{path}: videos.{name}: the configuration has no such data set; correct the name")
    return _as_given(rates)


def _difference(then: dict, now: dict, ignored: set[str]) -> str:
    """The first setting that differs, in words; "" if none does."""
    for section, values in now.items():
        for key, value in values.items():
            had = (then.get(section) or {}).get(key) if isinstance(then.get(section), dict) else None
            if had != value and f"{section}.{key}" not in ignored:
                return f"{section}.{key} {json.dumps(had)}, but the configuration has {json.dumps(value)}"
    return ""


def _as_given(rates: Rates) -> Rates:
    """`rates` with the origin `given` for every measured value."""
    where = f"measured on {rates.machine}" if rates.machine else ""

    def given(rate: Rate | None) -> Rate | None:
        if rate is None or rate.origin in ("assumed", "published"):
            return rate
        return Rate(value=rate.value, origin="given", note=rate.note or (where if rate.origin == "measured here" else ""))

    datasets = {
        name: found.model_copy(update={k: given(getattr(found, k)) for k in VideoRates.model_fields if k != "measured_with"})
        for name, found in rates.datasets.items()
    }
    steps, loading = ({key: given(rate) for key, rate in found.items()} for found in (rates.steps, rates.loading))
    return rates.model_copy(update={"datasets": datasets, "steps": steps, "loading": loading, "tflops": given(rates.tflops)})


def save_rates(rates: Rates, path: Path) -> None:
    """Write a rates file for `load_rates`, atomically."""
    with atomic_write(path) as draft:
        draft.write_text(yaml.safe_dump(rates.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True))
