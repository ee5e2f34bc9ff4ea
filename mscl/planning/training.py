"""Hours and bytes of every training run, and the figures with an origin that a plan is made of."""

from __future__ import annotations

import heapq

from mscl.config.schema import Config
from mscl.models.networks.flow_resnet import FLOW_TEMPORAL_STRIDE
from mscl.planning import network
from mscl.planning.count import Training
from mscl.planning.rates import CPU_TFLOPS, TFLOPS, TFLOPS_NOTE, Rate, Rates
from mscl.stages import build

DOUBT = ("assumed", "published", "given", "measured here")  # in this order a figure reckoned from several names its origins


def figure(value: float, *origins: str, note: str = "") -> dict:
    """A value reckoned from several: its origin names all of theirs, the most doubtful first."""
    each = {part for origin in origins for part in origin.split(" + ")}
    return {"value": value, "origin": " + ".join(sorted(each, key=DOUBT.index)), "note": note}


def of(rate: Rate) -> dict:
    return {"value": rate.value, "origin": rate.origin, "note": rate.note}


def total(parts: list[dict]) -> dict:
    """The sum of figures; a note that all of them share stays."""
    notes = {part["note"] for part in parts}
    return figure(sum(p["value"] for p in parts), *(p["origin"] for p in parts), note=notes.pop() if len(notes) == 1 else "")


def training(config: Config, planned: list[Training], rates: Rates, classes: int) -> dict:
    """Every run with its hours and bytes, the device and its speed. Each network's FLOPs are counted once."""
    device = rates.device or network.trains_on(config)
    usual = Rate(value=TFLOPS, origin="assumed", note=TFLOPS_NOTE)
    if device == "cpu":
        threads = config.compute.threads
        usual = Rate(value=CPU_TFLOPS * threads, origin="assumed", note=f"{CPU_TFLOPS} on each of {threads} core(s)")
    speed, costs, found = rates.tflops or usual, {}, []
    for run in planned:
        if run.key not in costs:
            costs[run.key] = _costs(config, run, classes)
        flops, forward, weights, checkpoint = costs[run.key]
        load = rates.loading.get(run.key) or _loading(config, run)
        step = rates.steps.get(run.key) or speed.model_copy(update={"value": flops / speed.value / 1e12, "note": ""})
        each, test = (_seconds(value, load.value, config) for value in (step.value, step.value * forward / flops))
        origins = {step.origin} if each == step.value else {step.origin, load.origin}
        found.append({
            "kind": run.kind, "model": run.model, "method": run.method, "seed": run.seed, "steps": run.steps,
            "videos_seen": run.trained + run.seen, "gflop_per_video": (flops if run.trained else forward) / 1e9,
            "hours": figure((run.trained * each + run.seen * test) / 3600, *origins),
            "step_seconds": of(step), "loading_seconds": of(load),
            "weights_bytes": weights if run.kind != "frozen" else 0, "checkpoint_bytes": checkpoint if run.trained else 0,
        })  # fmt: skip
    return {"runs": found, "device": device, "speed": of(speed)}


def _seconds(step: float, load: float, config: Config) -> float:
    """Seconds a video: loader processes work beside the network; without any, the network waits."""
    return max(step, load / config.compute.workers) if config.compute.workers else step + load


def _loading(config: Config, run: Training) -> Rate:
    """CPU seconds to read one video's clips, assumed."""
    target = config.finetune.dataset
    pictures, fields, used = config.models[run.model].finetune.frames, 0, [target]
    if run.kind == "pretrain":
        switches, used = config.switches(run.method), list(config.pretrain.datasets)
        pictures = switches.clips * config.clip.frames
        fields = pictures // FLOW_TEMPORAL_STRIDE * switches.flow
    pixels = 1.5 * max(config.datasets[d].frames.short_side for d in used) ** 2
    value = pictures * (5e-5 + 4e-9 * pixels) + fields * (5e-5 + 1.2e-9 * 3 * config.flow.short_side**2)
    return Rate(value=value, origin="assumed", note=f"{pictures} frames and {fields} fields, by their pixels")


def _costs(config: Config, run: Training, classes: int) -> tuple[float, float, int, int]:
    """(FLOPs a trained video, FLOPs a clip looked at, bytes of the weights, bytes of a checkpoint) of a run's network."""
    if run.kind == "pretrain":
        job = build.pretrain_job(config, run.model, run.method, run.seed)
        return network.pretrain_flops(job), 0.0, *network.pretrain_bytes(job)
    job = build.finetune_job(config, run.model, run.method, run.seed)
    return network.finetune_flops(job, classes), network.feature_flops(job), *network.finetune_bytes(job, classes)


def share(kind: str, processes: int, slots: int) -> int:
    """How many of `slots` devices one run of a kind has: a training is shared among processes, a test is not."""
    return 1 if kind == "frozen" else min(processes, slots)


def makespan(planned: list[dict], slots: int, processes: int = 1) -> float:
    """Hours until the last run ends: longest pretraining first, each finetuning and frozen test after its pretraining.

    A training takes `processes` of the slots and so much less time.
    """

    def key(run: dict) -> tuple:
        return run["model"], run["method"], run["seed"]

    free = [0.0] * slots

    def end(run: dict, earliest: float) -> float:
        width = share(run["kind"], processes, slots)
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
