"""What a unit of work costs, and how we know: measured, given in a file, or assumed."""

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
TFLOPS = 40.0
TFLOPS_NOTE = (
    "about an eighth of an A100's peak in bf16 (312 TFLOP/s, published); small 3D convolutions and batch norm stay far below it"
)
CPU_TFLOPS = 0.05  # one core
RAFT_SHARE = 0.5  # of the training's TFLOP/s: float32 in place of bfloat16


class Rate(Strict):
    """A figure and its origin; a bare number in a file is `given`."""

    value: float = Field(ge=0)
    origin: Origin = "given"
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def bare(cls, value: Any) -> Any:
        return {"value": value} if isinstance(value, int | float) else value


class VideoRates(Strict):
    """Of one data set. A field is one flow field; its seconds are a CPU's with DIS and a GPU's with RAFT."""

    raw_frames: Rate | None = None  # a video, mean
    extract_seconds: Rate | None = None  # CPU seconds a video
    frame_bytes: Rate | None = None  # a stored frame, with its share of the tar
    field_seconds: Rate | None = None
    field_bytes: Rate | None = None  # a stored field, with its share of the tar
    measured_with: dict[str, Any] | None = None  # the settings that the figures hold for


class Rates(Strict):
    """The content of a rates file; what it leaves out is assumed, and said so."""

    machine: str = ""
    device: Literal["cpu", "gpu"] | None = None  # that `steps` and `tflops` are of
    videos: dict[Name, dict[Name, int]] = {}  # data set -> split -> number, where they cannot be counted
    datasets: dict[Name, VideoRates] = {}
    steps: dict[str, Rate] = {}  # "<model>/<method>", "<model>/finetune" -> device seconds a trained video
    loading: dict[str, Rate] = {}  # the same keys -> CPU seconds to read a video for the network
    tflops: Rate | None = None  # sustained in training, of the device that trains


def measured_settings(config: Config, name: str) -> dict[str, Any]:
    """The settings that a data set's rates depend on, as plain values."""
    flow = config.flow.model_dump(
        mode="json", include={"method", "gap", "size", "short_side", "quality", "iterations", "precision"}
    )
    frames = config.datasets[name].frames.model_dump(mode="json", include={"step", "short_side", "quality"})
    return {"frames": frames, "flow": flow}


def load_rates(path: Path, config: Config) -> Rates:
    """Read a rates file for `config`; every figure becomes `given`.

    Raises ValueError naming file and field when it cannot be used, or was measured under other settings.
    """
    values = read_yaml(path)
    rates = parse(Rates, {} if values is None else values, str(path))
    for name, found in rates.datasets.items():
        if name not in config.datasets:
            raise ValueError(f"{path}: datasets.{name}: the configuration has no such data set; remove it, or give its own rates")
        now = measured_settings(config, name)
        if found.measured_with is not None and (other := _difference(found.measured_with, now)):
            raise ValueError(f"{path}: datasets.{name}: measured with {other}; probe again with --save-rates")
    for name in rates.videos:
        if name not in config.datasets:
            raise ValueError(f"{path}: videos.{name}: the configuration has no such data set; correct the name")
    return _as_given(rates)


def _difference(then: dict, now: dict) -> str:
    """The first setting that is not what it was, in words; "" when all are."""
    for section, values in now.items():
        for key, value in values.items():
            had = (then.get(section) or {}).get(key) if isinstance(then.get(section), dict) else None
            if had != value:
                return f"{section}.{key} {json.dumps(had)}, the configuration says {json.dumps(value)}"
    return ""


def _as_given(rates: Rates) -> Rates:
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
    """Write a rates file that `load_rates` reads, whole or not at all."""
    with atomic_write(path) as draft:
        draft.write_text(yaml.safe_dump(rates.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True))
