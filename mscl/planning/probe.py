"""Measure this machine briefly: on real videos of a data set if there are any, else on a rendered video."""

from __future__ import annotations

import hashlib
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mscl.config.datasets import Dataset
from mscl.config.schema import Config
from mscl.config.settings import FlowConfig
from mscl.datasets.find import SUFFIXES
from mscl.datasets.generated.encode import FPS, encode
from mscl.flow.estimate import Estimator, make_estimator
from mscl.flow.grid import stored_size, to_grid
from mscl.flow.mds import of_fields, score_clip
from mscl.flow.quantise import encode_field
from mscl.flow.shard import field_pairs, one_thread
from mscl.planning.count import Facts
from mscl.planning.rates import Rate, VideoRates, measured_settings
from mscl.stages.layout import Layout
from mscl.store.jpeg import decode_gray, decode_rgb
from mscl.video.ffmpeg import Decoded, decode

LEAST, MOST = 8, 64  # minimum (if available) and maximum number of videos to measure
FIELDS = 16  # flow fields measured per video
RENDERED = 150  # maximum number of frames of a rendered video
DISCS = 12  # independently moving discs in a rendered video
BLOCK = 512  # bytes of a tar header; members are padded to multiples of it


@dataclass(frozen=True)
class Sample:
    """A video for measurements."""

    path: Path
    start: float = float("nan")  # seconds; NaN: the whole file
    end: float = float("nan")


def samples_of(config: Config, name: str, facts: Facts | None, folder: Path) -> tuple[list[Sample], Rate | None]:
    """(videos to measure, frames per video): real videos and None, or a video rendered into `folder` and its frame count."""
    if samples := real_videos(config, name):
        return samples, None
    path, raw = render(folder, name, config.datasets[name], facts)
    return [Sample(path)] * 3, raw


def probe_dataset(config: Config, name: str, samples: list[Sample], raw: Rate | None, flow: bool, seconds: float) -> VideoRates:
    """Measure the extraction of frames, and of flow if `flow` is set, as the stages do it; about `seconds` for each.

    `raw`: frames per video of the data set if the samples are rendered, else None. Raises ValueError if no sample can be read.
    """
    if raw is None:
        return _measure(config, name, samples, flow, seconds, f"{{}} of its videos on {processor()}")
    found = _measure(config, name, samples, flow, seconds, f"a rendered {samples[0].path.suffix[1:]} video on {processor()}")
    scale = raw.value / found.raw_frames.value  # the rendered video may be shorter
    extract = found.extract_seconds.model_copy(update={"value": found.extract_seconds.value * scale})
    return found.model_copy(update={"raw_frames": raw, "extract_seconds": extract})


def processor() -> str:
    """The name of the CPU, for notes."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "this machine"


def real_videos(config: Config, name: str) -> list[Sample]:
    """Up to MOST existing videos of the data set, from its manifest or its folder, selected by a hash of the name."""
    manifest, dataset = Path(Layout(config).manifest(name)), config.datasets[name]
    if manifest.exists():
        rows = pd.read_parquet(manifest)
        rows = rows[rows["status"] == "ok"]
        found = [Sample(Path(r.path), r.start, r.end) for r in rows.itertuples() if Path(r.path).is_file()]
    elif (folder := dataset.root / dataset.videos).is_dir():
        found = [Sample(p) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and p.stat().st_size]
    else:
        return []
    return sorted(found, key=lambda s: hashlib.sha1(s.path.name.encode(), usedforsecurity=False).digest())[:MOST]


def render(folder: Path, name: str, dataset: Dataset, facts: Facts | None) -> tuple[Path, Rate]:
    """(path of a rendered video like those of the data set in size, frame rate and codec; frames per video of the data set).

    The spectrum of the texture is like that of natural images (amplitude 1/f^1.4), so that the JPEGs have a similar size.
    """
    if dataset.embedded:
        (width, height), fps, frames = dataset.embedded.size, FPS, dataset.embedded.frames
        raw = Rate(value=frames, origin="given", note="embedded.frames")
    elif facts:
        width, height, fps, frames = facts.width, facts.height, facts.fps, facts.seconds * facts.fps
        raw = Rate(value=frames, origin="published", note=f"{facts.seconds:g} s at {facts.fps:g} fps")
    else:
        width, height, fps, frames = 340, 256, 30, 300
        raw = Rate(value=frames, origin="assumed", note="10 s at 30 fps, 340x256; no video of the data set was found")
    path = folder / f"{name}{dataset.row.suffix}"
    encode(_moving_texture(min(round(frames), RENDERED), height // 2 * 2, width // 2 * 2), path, round(fps))
    return path, raw


def _moving_texture(frames: int, height: int, width: int) -> np.ndarray:
    """A panned background behind independently moving discs, with noise; (T, H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    grey, red, blue = (_texture(rng, 2 * height, 2 * width, slope) for slope in (1.4, 1.7, 1.7))
    picture = np.stack([grey * 45 + red * 18, grey * 45, grey * 45 + blue * 18], -1)
    discs = [(rng.uniform(0, 2 * np.pi, 2), rng.uniform(8, 40, 2), rng.uniform(0.06, 0.2) * height) for _ in range(DISCS)]
    out, (rows, columns) = np.empty((frames, height, width, 3), np.uint8), np.mgrid[:height, :width]
    for t in range(frames):
        y, x = int(height / 2 * (1 + 0.8 * np.cos(t / 55))), int(width / 2 * (1 + 0.8 * np.sin(t / 40)))
        view = picture[y : y + height, x : x + width].copy()
        for phase, period, radius in discs:
            down, right = ((1 + np.sin(phase + t / period)) / 2 * (height, width)).astype(int)
            inside = (rows - down) ** 2 + (columns - right) ** 2 < radius**2
            view[inside] = picture[rows[inside] - down + height, columns[inside] - right + width]
        grain = 2 * rng.standard_normal((height, width, 1), dtype=np.float32)
        out[t] = np.clip(128 + view + grain, 0, 255)
    return out


def _texture(rng: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    field = np.fft.irfft2(np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**slope, (height, width))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _measure(config: Config, name: str, samples: list[Sample], flow: bool, seconds: float, note: str) -> VideoRates:
    frames, decoded, cpu, began = config.datasets[name].frames, [], [], time.monotonic()
    for sample in samples:
        before = _cpu()
        video = decode(sample.path, frames, sample.start, sample.end)
        cpu.append(_cpu() - before)
        decoded.append(video)
        if len(decoded) >= LEAST and time.monotonic() - began > seconds:
            break
    good = [v for v in decoded if v.jpegs]
    if not good:
        raise ValueError(
            f"datasets.{name}: none of {len(decoded)} videos could be read ({decoded[0].error}); check root and videos"
        )

    def rate(value: float) -> Rate:
        return Rate(value=value, origin="measured here", note=note.format(len(decoded)))

    stored = [_in_tar(len(jpeg)) for v in good for jpeg in v.jpegs]
    per_field, field_bytes = _measure_flow(config, good, frames.step, seconds) if flow else (None, None)
    return VideoRates(
        raw_frames=rate(float(np.mean([len(v.pts) for v in good]))),
        extract_seconds=rate(float(np.mean(cpu))),
        frame_bytes=rate(float(np.mean(stored))),
        field_seconds=None if per_field is None else rate(per_field),
        field_bytes=None if field_bytes is None else rate(field_bytes),
        measured_with=measured_settings(config, name),
    )


def _measure_flow(config: Config, videos: list[Decoded], step: int, seconds: float) -> tuple[float | None, float | None]:
    """(seconds, bytes) per flow field: CPU seconds for DIS, else seconds of the GPU; None if it cannot run on this machine.

    If it cannot run, DIS fields are stored to measure the bytes, because they have the same size.
    """
    runs = not config.flow.on_gpu or _runs_here(config)
    asked = config.flow if runs else FlowConfig(**config.flow.model_dump() | {"method": "dis", "command": ()})
    estimator = make_estimator(asked, config.compute.device)
    spent, fields, sizes, began = 0.0, 0, [], time.monotonic()
    with one_thread(asked.method):
        for video in sorted(videos, key=lambda v: len(v.jpegs)):  # several short videos are more representative than a long one
            took, found = _fields(video, step, config, estimator, wall=asked.on_gpu)
            spent, fields, sizes = spent + took, fields + len(found), sizes + found
            if fields and time.monotonic() - began > seconds:
                break
    if not fields:
        return None, None
    return (spent / fields if runs else None), float(np.mean(sizes))


def _runs_here(config: Config) -> bool:
    """Whether RAFT or the program can be measured on this machine: both need a GPU if they are to use one, and their files."""
    if config.compute.device != "cpu" and not torch.cuda.is_available():
        return False
    if config.flow.command:
        return shutil.which(config.flow.command[0]) is not None
    weights = config.flow.weights
    return config.compute.device != "cpu" and bool(weights and weights.is_file())


def _fields(video: Decoded, step: int, config: Config, estimator: Estimator, wall: bool) -> tuple[float, list[int]]:
    """(seconds, [bytes of each stored field]) of up to FIELDS fields from the middle of a video, as in the flow stage."""
    pairs = field_pairs(np.arange(len(video.jpegs)) * step, config.flow.gap, config.flow.step)
    pairs = pairs[max(0, (len(pairs) - FIELDS) // 2) :][:FIELDS]
    if not pairs:
        return 0.0, []
    used = sorted({k for pair in pairs for k in pair})
    place = {k: n for n, k in enumerate(used)}
    clock = time.perf_counter if wall else time.process_time
    before = clock()
    read_one = decode_gray if estimator.grey else decode_rgb
    pictures = np.stack([read_one(video.jpegs[k]) for k in used])
    each = 1 if config.flow.gap % (step * config.flow.step) == 0 else 2  # frames that the stage reads per field of a long video
    read = (clock() - before) * min(1.0, each * len(pairs) / len(used))
    before = clock()
    fields = estimator(pictures, [(place[a], place[b]) for a, b in pairs])
    size = stored_size(pictures.shape[1:3], config.flow.short_side)
    stored = [encode_field(to_grid(field, size), config.flow.quality) for field in fields]
    score_clip([fields], of_fields(config.mds, config.flow.step))
    return read + clock() - before, [_in_tar(len(jpeg)) for jpeg, _, _ in stored]


def _in_tar(size: int) -> int:
    """Bytes that a member of `size` bytes takes in a tar file."""
    return BLOCK + -(-size // BLOCK) * BLOCK


def _cpu() -> float:
    """CPU seconds of this process and of its finished child processes."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
