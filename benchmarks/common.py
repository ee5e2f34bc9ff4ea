"""Shared by the benchmarks: test videos, a manifest of them, the machine in one line, medians of interleaved repetitions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.video.program import ffmpeg_exe


def machine() -> str:
    """The processor, the number of cores that this process may use, and the memory in GiB."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {gib:.0f} GiB"


def versions(*packages: str) -> str:
    """The versions of Python, of the packages and of ffmpeg, on one line."""
    found = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    text = subprocess.run([ffmpeg_exe(), "-version"], capture_output=True, text=True, check=True).stdout
    return ", ".join([*found, "ffmpeg " + text.split()[2]])


def kinetics_like(folder: Path, count: int, seconds: int = 10) -> list[Path]:
    """Make `count` H.264 videos like those of Kinetics: 340 x 256 pixels, 30 fps, with sound; moving texture with grain.

    Existing files are kept. Returns the paths.
    """
    sound = f"-f lavfi -i sine=d={seconds}".split()
    coding = "-c:v libx264 -preset medium -crf 23 -g 250 -c:a aac -shortest".split()
    paths = [folder / f"like{n:03d}_000000_000010.mp4" for n in range(count)]
    return [_textured(path, n, (340, 256), 30, seconds, sound, coding) for n, path in enumerate(paths)]


def ssv2_like(folder: Path, count: int) -> list[Path]:
    """The same as VP9 videos like those of Something-Something v2: 427 x 240 pixels, 12 fps, 4 s."""
    coding = "-c:v libvpx-vp9 -b:v 0 -crf 36 -deadline realtime -cpu-used 5 -g 128".split()
    return [_textured(folder / f"{n + 1}.webm", n, (427, 240), 12, 4, [], coding) for n in range(count)]


def _textured(path: Path, n: int, size: tuple[int, int], fps: int, seconds: int, more: list[str], coding: list[str]) -> Path:
    """Encode the n-th video, unless it is there."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    (width, height), speed, hue = size, 1 + n % 3, 37 * n % 360
    graph = (
        f"testsrc2=s={width * 3 // 2 // 2 * 2}x{height * 3 // 2 // 2 * 2}:r={fps}:d={seconds},hue=h={hue}:s=0.6,"
        f"rotate=0.02*t*{speed}:c=gray,crop={width}:{height}:x='{width // 4}+80*sin({speed}*t)':y='{height // 4}+60*cos(0.7*t)',"
        "gblur=sigma=0.8,noise=alls=6:allf=t,format=yuv420p"
    )
    draft = path.with_suffix(f".part{path.suffix}")
    inputs = ["-f", "lavfi", "-i", graph, *more]
    subprocess.run([ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *inputs, *coding, str(draft)], check=True)
    draft.rename(path)
    return path


def manifest(clips: dict[str, Path]) -> pd.DataFrame:
    """A manifest of usable videos (clip_id -> path), all in shard 0."""
    whole = {"shard": 0, "status": "ok", "reason": "", "start": np.nan, "end": np.nan}
    return pd.DataFrame([{"clip_id": clip, "path": str(path)} | whole for clip, path in clips.items()])


def interleaved(repeats: int, **ways: Callable[[], object]) -> dict[str, float]:
    """The median time in seconds of each way. The ways take turns, so that other load on the machine affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(t) for name, t in times.items()}


def cpu_seconds(way: Callable[[], object]) -> float:
    """CPU time in seconds of one call, with the processes that it started and waited for. It varies less than the wall time."""
    before = _cpu()
    way()
    return _cpu() - before


def _cpu() -> float:
    """CPU seconds of this process and of those that it waited for; `os.times` counts in steps of 10 ms."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
