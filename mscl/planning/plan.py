"""The plan: counts times rates, with the origin of every number, as plain values (`--json`) that `show` prints."""

from __future__ import annotations

from typing import Any

from mscl.config.datasets import PUBLISHED_SPLIT, Dataset
from mscl.config.schema import Config
from mscl.datasets.generated.motion import SCENES
from mscl.flow.grid import stored_size
from mscl.planning import network
from mscl.planning.count import Counts, Facts, count_jobs, count_videos, facts_of, trainings
from mscl.planning.rates import CPU_TFLOPS, RAFT_SHARE, TFLOPS, Rate, Rates, VideoRates
from mscl.planning.training import KINDS, figure, makespan, of, total, training
from mscl.stages import build
from mscl.stages.table import STAGES

INDEX = 24  # approximate bytes of the parquet index per stored frame


def make_plan(config: Config, rates: Rates, cpus: int, gpus: int) -> dict[str, Any]:
    """Everything that `mscl plan` prints: sizes in bytes, times in hours; values with an origin are {"value", "origin", "note"}.

    `rates.device` is the device for training (None: as in the configuration). Missing rates are assumed. `cpus` and `gpus` are
    the numbers available at a time. Raises ValueError if the videos cannot be counted.
    """
    used = build.used_datasets(config)
    facts = {d: facts_of(d, config.datasets[d]) for d in used}
    counts = {d: count_videos(config, d, rates.videos.get(d)) for d in used}
    datasets = {d: _dataset(config, d, counts[d], facts[d], rates) for d in used}
    trained = training(
        config, trainings(config, counts, lambda name: _classes(name, config.datasets[name])), rates, classes_of(config)
    )
    plan = {
        "name": config.name,
        "jobs": count_jobs(config),
        "datasets": datasets,
        "runs": trained["runs"],
        "device": trained["device"],
        "speed": trained["speed"],
    }
    slots = gpus if trained["device"] == "gpu" else max(1, cpus // config.compute.threads)
    plan["disk"] = _disk(datasets, trained, slots)
    plan["hours"] = _hours(config, datasets, trained, cpus, gpus, slots)
    plan["warnings"] = _warnings(config, counts, plan)
    return plan


def _dataset(config: Config, name: str, counts: Counts, facts: Facts | None, rates: Rates) -> dict:
    """Counts, rates, disk space and hours of one data set."""
    dataset, flow = config.datasets[name], name in build.flow_datasets(config)
    rate = assumed(config, name, facts, rates, flow)
    step = dataset.frames.step
    kept = (
        rate["raw_frames"].value + (step - 1) / 2
    ) / step  # expected value over all remainders of the length divided by the step
    starts = (
        max(0.0, kept - config.flow.gap / step) if flow else 0.0
    )  # of which every flow.step-th has a field, the first included
    fields = (starts + (config.flow.step - 1) / 2) / config.flow.step if starts else 0.0
    found = {
        "videos": counts.videos,
        "total": figure(counts.total, counts.origin, note=counts.note),
        "missing": counts.missing,
        "shards": dataset.shards,
        "videos_per_shard": counts.total / dataset.shards,
        "files": 2 * dataset.shards * (1 + flow),
        "frames_per_video": kept,
        "fields_per_video": fields,
        "rates": {key: of(value) for key, value in rate.items()},
        "download": _download(config, name, facts),
    }
    length = rate["raw_frames"].origin
    stored = counts.total * kept * (rate["frame_bytes"].value + INDEX)
    found["frames_bytes"] = figure(stored, counts.origin, length, rate["frame_bytes"].origin)
    cpu = counts.total * rate["extract_seconds"].value / 3600
    found["extract_hours"] = figure(cpu, counts.origin, length, rate["extract_seconds"].origin)
    if flow:
        stored = counts.total * fields * (rate["field_bytes"].value + INDEX)
        found["flow_bytes"] = figure(stored, counts.origin, length, rate["field_bytes"].origin)
        hours = counts.total * fields * rate["field_seconds"].value / 3600
        found["flow_hours"] = figure(hours, counts.origin, length, rate["field_seconds"].origin)
    return found


def assumed(config: Config, name: str, facts: Facts | None, given: Rates, flow: bool) -> dict[str, Rate]:
    """The rates of a data set. Missing ones are assumed, from costs per pixel that were measured on real clips in development."""
    dataset, rates = config.datasets[name], given.datasets.get(name, VideoRates())
    if dataset.embedded:
        (width, height), raw = dataset.embedded.size, Rate(value=dataset.embedded.frames, note="embedded.frames")
    elif facts:
        width, height = facts.width, facts.height
        raw = Rate(value=facts.seconds * facts.fps, origin="published", note=f"{facts.seconds:g} s at {facts.fps:g} fps")
    else:
        width, height, raw = 340, 256, Rate(value=300, origin="assumed", note="10 s at 30 fps, 340x256")
    raw = rates.raw_frames or raw
    stored_h, stored_w = stored_size((height, width), dataset.frames.short_side)
    pixels, kept = stored_h * stored_w, raw.value / dataset.frames.step
    quality = dataset.frames.quality

    def guess(value: float, note: str) -> Rate:
        return Rate(value=value, origin="assumed", note=note)

    found = {
        "raw_frames": raw,
        "extract_seconds": rates.extract_seconds
        or guess(
            0.02 + raw.value * width * height * 2.7e-9 + kept * pixels * 6e-9, f"from the pixels of {width}x{height} videos"
        ),
        "frame_bytes": rates.frame_bytes
        or guess(1400 + 0.19 * pixels * (3 / quality) ** 0.8, "1.4 kB + 0.19 bytes per pixel at quality 3"),
    }
    if flow:
        plane_h, plane_w = stored_size((stored_h, stored_w), config.flow.short_side)
        found["field_seconds"] = rates.field_seconds or _field_seconds(config, plane_h * plane_w, given.tflops)
        found["field_bytes"] = rates.field_bytes or guess(
            1400 + 0.25 * plane_h * plane_w, "1.4 kB + 0.25 bytes per pixel for both planes"
        )
    return found


def _field_seconds(config: Config, stored: int, tflops: Rate | None) -> Rate:
    """CPU seconds per DIS field, or GPU seconds per field of RAFT or a program; `stored`: pixels of a stored field."""
    if config.flow.on_gpu:
        speed = CPU_TFLOPS
        if config.compute.device != "cpu":
            speed = tflops.value if tflops else TFLOPS
            speed *= RAFT_SHARE if config.flow.precision == "float32" else 1.0
        flops = network.raft_flops(config.flow)
        what = (
            f"{flops / 1e9:.0f} GFLOP per field (counted)"
            if config.flow.network
            else "taken for as fast as RAFT-small: measure it"
        )
        note = f"{what} at {speed:g} TFLOP/s ({config.flow.precision})"
        return Rate(value=flops / speed / 1e12, origin="assumed", note=note)
    computed = config.flow.size[0] * config.flow.size[1]
    note = "0.08 s per megapixel of flow.size + 0.07 s per stored megapixel"
    return Rate(value=computed * 8e-8 + stored * 7e-8, origin="assumed", note=note)


def _download(config: Config, name: str, facts: Facts | None) -> dict | None:
    """Bytes to download: those of the used splits, if published per split; None if unknown or nothing is downloaded."""
    dataset = config.datasets[name]
    if facts is None or (not dataset.download and (dataset.root / dataset.videos).is_dir()):
        return None
    splits = [PUBLISHED_SPLIT.get(s, s) for s in dataset.annotated]
    sizes = [facts.split_bytes.get(s) for s in splits]
    return figure(sum(sizes) if all(sizes) else facts.bytes, "published", note="complete archives, independent of the subset")


def classes_of(config: Config) -> int:
    """Largest number of classes of a target, only for the size of the last layer; 400 if unknown."""
    return max(_classes(target.dataset, config.datasets[target.dataset]) for target in config.targets)


def _classes(name: str, dataset: Dataset) -> int:
    if dataset.embedded:
        return len(SCENES[dataset.embedded.scenes].programs)
    facts = facts_of(name, dataset)
    return facts.classes if facts else 400


def _disk(datasets: dict, trained: dict, slots: int) -> dict:
    """Bytes per kind, and number of files (two per shard). Checkpoints: the peak, when `slots` trainings run and each checkpoint
    is stored beside its successor.
    """
    largest = sorted((r["checkpoint_bytes"] for r in trained["runs"]), reverse=True)[:slots]
    weights = sum(r["weights_bytes"] for r in trained["runs"])
    parts = {
        "download": [d["download"] for d in datasets.values() if d["download"]],
        "frames": [d["frames_bytes"] for d in datasets.values()],
        "flow": [d["flow_bytes"] for d in datasets.values() if "flow_bytes" in d],
        "weights": [figure(weights, "measured here", note="exact, from the networks")],
        "checkpoints": [figure(2 * sum(largest), "measured here", note="exact peak; deleted at the end")],
    }
    found = {kind: total(each) for kind, each in parts.items() if each}
    found["total"] = total(list(found.values()))
    return found | {"shard_files": sum(d["files"] for d in datasets.values())}


def _hours(config: Config, datasets: dict, trained: dict, cpus: int, gpus: int, slots: int) -> dict:
    """CPU and GPU hours per stage, and the wall-clock time with `cpus` CPUs and `gpus` GPUs, one stage after the other.

    Training runs on `slots` devices at a time.
    """
    on_gpu = config.flow.on_gpu and config.compute.device != "cpu"
    flow = [d["flow_hours"] for d in datasets.values() if "flow_hours" in d]
    stages = {
        "frames": _stage("cpu", [d["extract_hours"] for d in datasets.values()], cpus),
        "flow": _stage("gpu" if on_gpu else "cpu", flow, gpus if on_gpu else cpus),
    }
    wall = sum(stage["wall"] for stage in stages.values())
    cores = config.compute.threads if trained["device"] == "cpu" else 1
    for kind in KINDS:
        runs = [r for r in trained["runs"] if r["kind"] == kind]
        at_once = slots // max((min(r["processes"], slots) for r in runs), default=1)
        # these stages overlap: see training_wall
        stages[kind] = _stage(trained["device"], [r["hours"] for r in runs], at_once, cores) | {"wall": None}
    last = makespan(trained["runs"], slots)
    spent = {device: sum(s["device_hours"] for s in stages.values() if s["device"] == device) for device in ("cpu", "gpu")}
    return {"stages": stages, **spent, "training_wall": last, "wall": wall + last, "cpus": cpus, "gpus": gpus}


def _stage(device: str, hours: list[dict], at_once: int, cores: int = 1) -> dict:
    found = total(hours)
    return {
        "device": device,
        "hours": found,
        "device_hours": found["value"] * cores,
        "at_once": at_once,
        "wall": found["value"] / at_once,
    }


def _alone(run: dict) -> float:
    """Wall-clock hours of one run on all its devices."""
    return run["hours"]["value"] / run["processes"]


def _warnings(config: Config, counts: dict[str, Counts], plan: dict) -> list[str]:
    """Warnings about the configuration, one sentence each."""
    found = []
    many = sum(counts[d].videos[config.pretrain.split] for d in config.pretraining_datasets)
    for name in config.models:
        largest = max((config.pretrain_of(name, method).batch for method in config.pretrained_of(name)), default=0)
        if many < largest:
            found.append(
                f"models.{name}.pretrain.batch: {many} videos are fewer than one batch of {largest}; pretraining will not start"
            )
    for name, data in plan["datasets"].items():
        if data["missing"]:
            found.append(f"datasets.{name}: {data['missing']} annotated videos are missing or empty and are not counted")
        for stage, hours in (("frames", data["extract_hours"]), ("flow", data.get("flow_hours"))):
            workers = 1 if stage == "flow" and config.flow.on_gpu else config.compute.extract_workers
            if hours and (each := hours["value"] / data["shards"] / workers) > STAGES[stage].hours:
                found.append(
                    f"datasets.{name}.shards: a {stage} job takes about {each:.1f} h, but its rule requests {STAGES[stage].hours} h; use more shards"
                )
    for kind in KINDS:
        long = [r for r in plan["runs"] if r["kind"] == kind and _alone(r) > STAGES[kind].hours]
        if long:
            worst = max(long, key=_alone)
            advice = f"--set-resources {kind}:runtime=<minutes>"
            if kind in ("pretrain", "finetune", "linear"):
                advice = f"on Slurm they are requeued at that limit and resume; to be requeued less often, set {advice}"
            found.append(
                f"{len(long)} {kind} run(s) take longer than the {STAGES[kind].hours} h that the rule requests, up to "
                f"{_alone(worst):.0f} h ({worst['model']}/{worst['method']}): {advice}"
            )
    return found
