"""The report to read and the rates that `mscl plan --rates` reads."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from benchmarks.gpu.bench import Bench, shown
from mscl.machine.files import atomic_write
from mscl.planning.rates import Rate, Rates, VideoRates, measured_settings
from mscl.stages import build

TITLES = {
    "checks": "Is the arithmetic right?",
    "steps": "Pretraining steps",
    "kernels": "Kernels (R18, MSCL)",
    "launches": "Waiting for launches",
    "flow": "Optical flow by RAFT (random weights)",
    "feeding": "From the store to the device",
    "targets": "Finetuning and features",
    "learning": "A real run on generated clips",
}
ABOUT = {
    "checks": "Differences are relative, to float32 on this machine's CPU or between two runs; `limit` is what is taken for rounding.",
    "steps": "One batch-norm group. `step ÷ encoders`: the engine's step (augmentation, losses with the full queue, backward, "
    "clipping, optimiser, momentum encoders) divided by the forward and backward passes of the same networks alone.",
    "launches": "`launch gaps`: the share of a step in which no kernel runs (1 − time of kernels by the profiler ÷ time of a step).",
    "flow": "`the stage's call`: with resizing of frames on the CPU and the copy of the fields to it.",
    "learning": "`first`: of the first epoch, for a test: chance.",
}


def write(bench: Bench, out: Path, began: datetime.datetime, seconds: float) -> tuple[Path, Path]:
    """Write both files below `out`; a run on a CPU writes `…-gpu-on-cpu.*`. Returns their paths."""
    stem = f"{began:%Y-%m-%d}-gpu" + ("" if bench.gpu else "-on-cpu")
    report, rates = out / f"{stem}.md", out / f"{stem}.json"
    with atomic_write(report) as draft:
        draft.write_text(_markdown(bench, began, seconds, rates.name), encoding="utf-8")
    with atomic_write(rates) as draft:
        draft.write_text(json.dumps(_rates(bench).model_dump(mode="json", exclude_none=True), indent=1) + "\n")
    return report, rates


def device_name(bench: Bench) -> str:
    return torch.cuda.get_device_name(bench.device) if bench.gpu else "CPU only, tiny sizes: no measurement of a GPU"


def _markdown(bench: Bench, began: datetime.datetime, seconds: float, rates: str) -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    if bench.gpu:
        versions += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    parts = [
        f"# GPU acceptance run, {began:%Y-%m-%d}",
        f"{device_name(bench)}; {machine()}; {versions}.",
        f"Command: `python -m benchmarks.gpu {' '.join(sys.argv[1:])}`; {seconds / 60:.1f} minutes. Rates for `mscl plan --rates`: `{rates}`.",
    ]
    for section in dict.fromkeys([*bench.rows, *bench.notes]):
        parts.append(f"## {TITLES.get(section, section)}")
        if section in ABOUT:
            parts.append(ABOUT[section])
        if section in bench.rows:
            parts.append(_table(bench.rows[section]))
        parts += [f"* {note}" for note in bench.notes.get(section, [])]
    return "\n\n".join(parts) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([shown(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rates(bench: Bench) -> Rates:
    """What was measured, in the form of a rates file."""
    found = bench.rates

    def rate(value: float) -> Rate:
        return Rate(value=value, origin="measured here")

    datasets = {}
    if bench.gpu and "field_seconds" in found:
        for name in build.flow_datasets(bench.config):
            settings = measured_settings(bench.config, name)
            datasets[name] = VideoRates(field_seconds=rate(found["field_seconds"]), measured_with=settings)
    return Rates(
        machine=device_name(bench),
        device="gpu" if bench.gpu else "cpu",
        datasets=datasets,
        steps={key: rate(value) for key, value in found.get("steps", {}).items()},
        tflops=rate(statistics.median(found["tflops"])) if "tflops" in found else None,
    )
