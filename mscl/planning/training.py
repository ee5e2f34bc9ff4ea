"""Hours and bytes of every training run, and functions for values with an origin."""

from __future__ import annotations

import heapq
from typing import NamedTuple

from mscl.config.recipes import Optim
from mscl.config.schema import Config
from mscl.models.networks.flow_resnet import FLOW_TEMPORAL_STRIDE
from mscl.planning import network
from mscl.planning.count import Training
from mscl.planning.memory import Need, finetune_need, pretrain_need
from mscl.planning.rates import CPU_TFLOPS, TFLOPS, TFLOPS_NOTE, Rate, Rates
from mscl.stages import build

KINDS = ("pretrain", "finetune", "linear", "embed", "frozen")  # stages that train or run networks, in the order of the workflow
DOUBT = ("assumed", "published", "given", "measured here")  # origins, from the least to the most certain


def figure(value: float, *origins: str, note: str = "") -> dict:
    """{"value", "origin", "note"} of a value computed from several; all their origins are named, the least certain first."""
    each = {part for origin in origins for part in origin.split(" + ")}
    return {"value": value, "origin": " + ".join(sorted(each, key=DOUBT.index)), "note": note}


def of(rate: Rate) -> dict:
    """`rate` as {"value", "origin", "note"}."""
    return {"value": rate.value, "origin": rate.origin, "note": rate.note}


def total(parts: list[dict]) -> dict:
    """The sum of values from `figure`; the note is kept if it is the same for all."""
    notes = {part["note"] for part in parts}
    return figure(sum(p["value"] for p in parts), *(p["origin"] for p in parts), note=notes.pop() if len(notes) == 1 else "")


def training(config: Config, planned: list[Training], rates: Rates, classes: int, decoding: dict[str, Rate]) -> dict:
    """{"runs": hours and bytes of every run, "device": cpu or gpu, "speed": sustained TFLOP/s}.

    `classes` is the largest number of classes of a target; `decoding` the CPU seconds to decode a video, for the data sets whose frames
    are not stored. The FLOPs of each network are counted once.
    """
    device = rates.device or network.trains_on(config)
    usual = Rate(value=TFLOPS, origin="assumed", note=TFLOPS_NOTE)
    if device == "cpu":
        threads = config.compute.threads
        usual = Rate(value=CPU_TFLOPS * threads, origin="assumed", note=f"{CPU_TFLOPS} TFLOP/s on each of {threads} core(s)")
    speed, costs, found = rates.tflops or usual, {}, []
    for run in planned:
        same = run.key if run.kind == "pretrain" else _recipes(config, run)
        if same not in costs:
            costs[same] = _costs(config, run, classes, device)
        usual, linear, forward = costs[same]
        flops, need = usual.flops, linear if run.kind == "linear" else usual
        trained = need.flops
        load = rates.loading.get(run.key) or _loading(config, run)
        step = rates.steps.get(run.key) or speed.model_copy(update={"value": flops / speed.value / 1e12, "note": ""})
        own = step.value * trained / flops  # the rate is that of finetuning, which also goes backward
        decode = decoding.get(config.target(run.target).dataset) if run.target else None
        video, clip = (decode.value, decode.value * run.tested / max(run.seen, 1)) if decode else (0.0, 0.0)
        each = _seconds(own, load.value + video, config)
        test = _seconds(step.value * forward / flops, load.value + clip, config)  # of a clip: its video is decoded once
        origins = {step.origin} if each == own else {step.origin, load.origin, *([decode.origin] if decode else [])}
        row = {
            "kind": run.kind,
            "target": run.target,
            "model": run.model,
            "method": run.method,
            "seed": run.seed,
            "processes": _processes(config, run),
            "steps": run.steps,
            "videos_seen": run.trained + run.seen,
            "gflop_per_video": (trained if run.trained else forward) / 1e9,
            "hours": figure((run.trained * each + run.seen * test) / 3600, *origins),
            "step_seconds": of(step),
            "loading_seconds": of(load),
            "decoded_videos": run.trained + run.tested if decode else 0,
            "weights_bytes": need.sizes.weights if run.trained else 0,
            "checkpoint_bytes": need.sizes.checkpoint if run.trained else 0,
            "memory_bytes": need.peak if run.trained else 0,
        }
        found.append(row)
    return {"runs": found, "device": device, "speed": of(speed)}


def _recipes(config: Config, run: Training) -> tuple:
    """What the costs of a run that is no pretraining depend on: runs with the same are counted once."""
    asked = config.target(run.target).linear_evaluated
    return run.model, config.finetune_of(run.target, run.model), config.linear_of(run.target, run.model) if asked else None


def _processes(config: Config, run: Training) -> int:
    """Processes, and so devices, of a run: training may use several, features and frozen tests one."""
    if run.kind in ("embed", "frozen"):
        return 1
    return config.processes_of(run.model, run.method) if run.kind == "pretrain" else config.compute.processes


def _seconds(step: float, load: float, config: Config) -> float:
    """Seconds per video: loader processes run in parallel with the network; without loader processes, the network waits."""
    return max(step, load / config.compute.workers) if config.compute.workers else step + load


def _loading(config: Config, run: Training) -> Rate:
    """Assumed CPU seconds to load the clips of one video."""
    if run.kind != "pretrain":
        pictures, fields, used = config.finetune_of(run.target, run.model).frames, 0, [config.target(run.target).dataset]
    else:
        switches, used = config.switches(run.method), list(config.pretrain.datasets)
        pictures = switches.clips * config.clip.frames
        fields = pictures // FLOW_TEMPORAL_STRIDE * switches.flow
    pixels = 1.5 * max(config.datasets[d].frames.short_side for d in used) ** 2
    value = pictures * (5e-5 + 4e-9 * pixels) + fields * (5e-5 + 1.2e-9 * 3 * config.flow.short_side**2)
    return Rate(value=value, origin="assumed", note=f"{pictures} frames and {fields} flow fields, from their pixels")


class _Costs(NamedTuple):
    """What one network costs: in training, in linear evaluation (None: not asked for), and FLOPs per tested clip."""

    training: Need
    linear: Need | None
    forward: float


def _costs(config: Config, run: Training, classes: int, device: str) -> _Costs:
    if run.kind == "pretrain":
        job = build.pretrain_job(config, run.model, run.method, run.seed)
        return _Costs(pretrain_need(job, _at_once(config, run, job.optim), device), None, 0.0)
    job = build.finetune_job(config, run.target, run.model, run.method, run.seed)
    found, linear = finetune_need(job, classes, _at_once(config, run, job.finetune), device), None
    if config.target(run.target).linear_evaluated:
        frozen = build.linear_job(config, run.target, run.model, run.method, run.seed)
        linear = finetune_need(frozen, classes, _at_once(config, run, frozen.finetune), device)
    return _Costs(found, linear, network.feature_flops(job))


def _at_once(config: Config, run: Training, recipe: Optim) -> int:
    """Videos that go through the networks of one process together."""
    processes = config.processes_of(run.model, run.method) if run.kind == "pretrain" else config.compute.processes
    return max(1, recipe.batch // (processes * recipe.accumulate))


def makespan(planned: list[dict], slots: int) -> float:
    """Hours until the last run ends. The longest pretraining starts first; finetuning and frozen tests follow their pretraining.

    A run uses as many of the `slots` devices as it has processes, and its time is divided by that number.
    """

    def key(run: dict) -> tuple:
        return run["model"], run["method"], run["seed"]

    free = [0.0] * slots

    def end(run: dict, earliest: float) -> float:
        width = min(run["processes"], slots)
        taken = [heapq.heappop(free) for _ in range(width)]
        ended = max(earliest, *taken) + run["hours"]["value"] / width
        for _ in taken:
            heapq.heappush(free, ended)
        return ended

    ready: dict[tuple, float] = {}
    for run in sorted((r for r in planned if r["kind"] == "pretrain"), key=lambda r: -r["hours"]["value"]):
        ready[key(run)] = end(run, 0.0)
    after = [r for r in planned if r["kind"] != "pretrain"]
    ends = [end(r, ready.get(key(r), 0.0)) for r in sorted(after, key=lambda r: (ready.get(key(r), 0.0), -r["hours"]["value"]))]
    return max(0.0, *ends, *ready.values())
