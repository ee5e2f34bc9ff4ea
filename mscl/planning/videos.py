"""Counts, rates, bytes and hours of one data set: frames, flow, download."""

from __future__ import annotations

from mscl.config.datasets import PUBLISHED_SPLIT
from mscl.config.schema import Config
from mscl.flow.grid import stored_size
from mscl.planning import network
from mscl.planning.count import Counts, Facts
from mscl.planning.rates import CPU_TFLOPS, RAFT_SHARE, RAFT_SMALL, TFLOPS, Rate, Rates, VideoRates
from mscl.planning.training import figure, of
from mscl.stages import build

INDEX = 24  # approximate bytes of the parquet index per stored frame


def dataset_plan(config: Config, name: str, counts: Counts, facts: Facts | None, rates: Rates) -> dict:
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
    found["stored_bytes"] = stored = counts.total * kept * (rate["frame_bytes"].value + INDEX)
    found["frames_bytes"] = figure(stored, counts.origin, length, rate["frame_bytes"].origin)
    if dataset.frames.keep == "none":
        found["frames_bytes"] = figure(counts.total * kept * INDEX, counts.origin, length)
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

    def guess(value: float, note: str) -> Rate:
        return Rate(value=value, origin="assumed", note=note)

    read, coded = 0.02 + raw.value * width * height * 2.7e-9, kept * pixels * 6e-9
    found = {
        "raw_frames": raw,
        "extract_seconds": rates.extract_seconds or guess(read + coded, f"from the pixels of {width}x{height} videos"),
        "frame_bytes": rates.frame_bytes
        or guess(frame_bytes(pixels, dataset.frames.quality), f"from its pixels and quality {dataset.frames.quality}"),
    }
    if dataset.frames.keep == "none":
        share = read / (read + coded)
        note = f"{share:.0%} of extraction: all frames are decoded, but only those of a clip are coded as JPEGs"
        found["decode_seconds"] = guess(found["extract_seconds"].value * share, note)
    if flow:
        plane_h, plane_w = stored_size((stored_h, stored_w), config.flow.short_side)
        found["field_seconds"] = rates.field_seconds or _field_seconds(config, plane_h * plane_w, given.tflops)
        found["field_bytes"] = rates.field_bytes or guess(
            field_bytes(plane_h * plane_w, config.flow.quality), f"from its pixels and quality {config.flow.quality}"
        )
    return found


def frame_bytes(pixels: int, quality: int) -> float:
    """Bytes of a stored frame in the tar file; fits 18 real videos at short sides of 128 to 256 pixels, each within about a quarter."""
    return 1500 + 1.46 * pixels**0.815 * (3 / quality) ** 0.67


def field_bytes(pixels: int, quality: int) -> float:
    """The same of a stored field with planes of `pixels`; fits the means of DIS fields of 9 real videos within a twentieth."""
    return 1100 + 4.6 * pixels**0.71 * (5 / max(100 - quality, 1.7)) ** 0.62


def _field_seconds(config: Config, stored: int, tflops: Rate | None) -> Rate:
    """CPU seconds per DIS field, or GPU seconds per field of RAFT or a program; `stored`: pixels of a stored field."""
    if config.flow.on_gpu:
        speed = CPU_TFLOPS
        if config.compute.device != "cpu":
            speed = tflops.value if tflops else TFLOPS
            speed *= RAFT_SHARE if config.flow.precision == "float32" else 1.0
        flops = network.raft_flops(config.flow)
        what = f"{flops / 1e9:.0f} GFLOP per field of RAFT-large (counted)"
        if config.flow.method != "raft":
            faster = RAFT_SMALL[config.flow.precision]
            flops /= faster
            named = "RAFT-small" if config.flow.network else "a program, taken for RAFT-small (measure it),"
            what += f" and {named} {faster:g} x as fast"
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
