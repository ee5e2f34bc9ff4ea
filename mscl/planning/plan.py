"""The plan: counts times rates, with the origin of every number, as plain values (`--json`) that `show` prints."""

from __future__ import annotations

from typing import Any

from mscl.config.datasets import Dataset
from mscl.config.schema import Config
from mscl.datasets.generated.motion import SCENES
from mscl.planning.count import Counts, count_jobs, count_videos, facts_of, trainings
from mscl.planning.rates import Rate, Rates
from mscl.planning.savings import savings
from mscl.planning.training import KINDS, figure, makespan, total, training
from mscl.planning.videos import dataset_plan
from mscl.stages import build
from mscl.stages.table import STAGES


def make_plan(config: Config, rates: Rates, cpus: int, gpus: int) -> dict[str, Any]:
    """Everything that `mscl plan` prints: sizes in bytes, times in hours; values with an origin are {"value", "origin", "note"}.

    `rates.device` is the device for training (None: as in the configuration). Missing rates are assumed. `cpus` and `gpus` are
    the numbers available at a time. Raises ValueError if the videos cannot be counted.
    """
    used = build.used_datasets(config)
    facts = {d: facts_of(d, config.datasets[d]) for d in used}
    counts = {d: count_videos(config, d, rates.videos.get(d)) for d in used}
    datasets = {d: dataset_plan(config, d, counts[d], facts[d], rates) for d in used}
    runs = trainings(config, counts, lambda name: _classes(name, config.datasets[name]))
    decoding = {d: Rate(**data["rates"]["decode_seconds"]) for d, data in datasets.items() if "decode_seconds" in data["rates"]}
    trained = training(config, runs, rates, classes_of(config), decoding)
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
    plan["decoding"] = {d: _decoding(config, d, rate, trained["runs"]) for d, rate in decoding.items()}
    plan["savings"] = savings(config, counts, facts, rates, datasets)
    plan["warnings"] = _warnings(config, counts, plan)
    return plan


def _decoding(config: Config, name: str, rate: Rate, runs: list[dict]) -> dict:
    """How many videos of a data set all runs decode, and the CPU hours of it, which are also in the hours of the runs."""
    videos = sum(run["decoded_videos"] for run in runs if run["target"] and config.target(run["target"]).dataset == name)
    return {"videos": videos, "hours": figure(videos * rate.value / 3600, rate.origin)}


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
        if name in plan["decoding"]:
            found.append(_decodes_again(name, plan["decoding"][name], data))
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


def _decodes_again(name: str, decoding: dict, data: dict) -> str:
    return (
        f"datasets.{name}.frames.keep: none, so every epoch, every test and all features decode its videos again: {decoding['videos']:,} "
        f"videos in all, {decoding['hours']['value']:.2g} CPU hours of the loader processes; to store the frames would take "
        f"{data['extract_hours']['value']:.2g} CPU hours once and {data['stored_bytes'] / 1e9:.2g} GB"
    )
