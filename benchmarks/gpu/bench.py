"""What the sections share: the device, sizes, a clock that waits for the device, results by section."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mscl.config.schema import Config, load_config
from mscl.config.settings import Kernels, Model
from mscl.machine.device import memory_gb
from mscl.stages import build, jobs

TINY = {"width": 8, "flow_width": 4, "neck": 8, "neck_blocks": 1, "size": 32}  # networks of a run on a CPU


@dataclass
class Bench:
    """One acceptance run. `rows` are the results: section -> table rows; `rates` goes to the rates file."""

    config: Config
    device: torch.device
    folder: Path  # for temporary files
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)
    until: float = 0.0  # time.monotonic() at which the current section should end

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def add(self, section: str, **row: Any) -> None:
        """A row of the section's table, printed as well."""
        self.rows.setdefault(section, []).append(row)
        print(f"{section}: " + ", ".join(f"{k} {shown(v)}" for k, v in row.items()), flush=True)

    def note(self, section: str, text: str) -> None:
        self.notes.setdefault(section, []).append(text)
        print(f"{section}: {text}", flush=True)

    def left(self) -> float:
        """Seconds left of the current section."""
        return self.until - time.monotonic()

    def sync(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def fresh_memory(self) -> None:
        """Forget the peak of memory, and give back what is cached."""
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> float:
        """Peak memory in GB since `fresh_memory`; on a CPU since the start."""
        return memory_gb(self.device)

    def seconds(self, way: Callable[[], object], least: float = 1.0, warm: int = 3) -> float:
        """Median seconds of one call, over blocks of calls that fill the device's queue: a step need not wait for the one before."""
        for _ in range(warm if self.gpu else 1):
            way()
        self.sync()
        began = time.perf_counter()
        way()
        self.sync()
        block = max(1, min(20, int(0.2 / max(time.perf_counter() - began, 1e-6)))) if self.gpu else 1
        found, end = [], time.perf_counter() + (least if self.gpu else 0.0)
        while not found or (time.perf_counter() < end or len(found) < 3) and self.left() > 0:
            began = time.perf_counter()
            for _ in range(block):
                way()
            self.sync()
            found.append((time.perf_counter() - began) / block)
        return statistics.median(found)

    def pretrain_job(self, model: str, method: str, batch: int, bn_groups: int = 1, **kernels: Any) -> jobs.PretrainJob:
        """The configuration's pretraining at another batch, with `bn_groups` batch-norm groups and these kernels."""
        job = build.pretrain_job(self.config, model, method, 0)
        contrast = job.contrast.model_copy(update={"bn_groups": bn_groups, "queue": job.contrast.queue // batch * batch})
        optim = job.optim.model_copy(update={"batch": batch, "accumulate": 1})
        changed = {"contrast": contrast, "optim": optim, "kernels": Kernels(**kernels), "monitor": None}
        return job.model_copy(update=changed)


def bench_config(path: Path, gpu: bool) -> Config:
    """The configuration; on a CPU with tiny networks, clips and queues."""
    config = load_config(path)
    if gpu:
        return config
    models = {name: _tiny(model) for name, model in config.models.items()}
    update = {
        "models": models,
        "clip": config.clip.model_copy(update={"stride": 1, "max_shift": 1}),
        "contrast": config.contrast.model_copy(update={"queue": 64, "dim": 16}),
        "flow": config.flow.model_copy(update={"size": (128, 128), "short_side": 32, "batch": 2, "iterations": 2}),
    }
    return config.model_copy(update=update)


def _tiny(model: Model) -> Model:
    finetune = model.finetune.model_copy(update={"frames": 4, "test_size": 32, "batch": 4})
    return model.model_copy(update=TINY | {"finetune": finetune})


def shown(value: Any) -> str:
    """A value of a table: three significant digits."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
