"""A test's clip from stored frames, straight from the video (frames.keep: none), and by other decoders: clips per second of one core.

    python -m benchmarks.keep [--videos 6] [--rounds 5]        (uses PyAV if it can be imported)

A clip is what a test reads of a video: 8 frames, uniform over the video, cropped and resized to 112 pixels by `UniformClips`. Both
stores have every second frame at a short side of at most 256; their clips are compared bit for bit first. The other decoders give
the same 8 frames as RGB, with one thread and without crop and resizing. `ffmpeg, decoding alone` throws every frame away: what remains
of `keep: none` is scaling, JPEG coding, the start of the process and the clip. Times are CPU times with those of child processes;
the ways take turns, and the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.common import cpu_seconds, kinetics_like, machine, manifest, ssv2_like, versions
from mscl.config.datasets import FramesConfig
from mscl.stages.jobs import FramesJob
from mscl.store.shards import Shards
from mscl.training.clips import UniformClips
from mscl.training.cuts import uniform_positions
from mscl.video import decord_io
from mscl.video.extract import extract_shard
from mscl.video.program import ffmpeg_exe

FRAMES, SIZE, STEP = 8, 112, 2


def clips_of(folder: Path, videos: list[Path], keep: str) -> UniformClips:
    """The clips of a test, of a store of these videos that keeps all images or none."""
    rows = manifest({video.stem: video for video in videos}).assign(label=0)
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "manifest.parquet")
    index = folder / "frames" / "0000.parquet"
    job = FramesJob(frames=FramesConfig(step=STEP, keep=keep))
    extract_shard(job, folder / "manifest.parquet", 0, index.with_suffix(".tar"), index)
    return UniformClips(Shards([index]), pd.read_parquet(folder / "manifest.parquet"), FRAMES, SIZE)


def by_pyav(path: Path, wanted: list[int]) -> list[np.ndarray]:
    """Decode up to the last wanted frame with one thread, and convert the wanted ones to RGB."""
    import av

    found, needed = [], set(wanted)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "NONE", 1
        for n, frame in enumerate(container.decode(stream)):
            if n in needed:
                found.append(frame.to_ndarray(format="rgb24"))
            if len(found) == len(needed):
                break
    return found


def decoded_alone(path: Path) -> None:
    command = [ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", "1", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
    subprocess.run(command, check=True)


def ways_of(folder: Path, videos: list[Path]) -> dict[str, Callable[[int], object]]:
    """How to read the clip of the n-th video, by way. Asserts that both stores give the same bits."""
    stored, decoded = (clips_of(folder / keep, videos, keep) for keep in ("all", "none"))
    for n in range(len(videos)):
        assert np.array_equal(stored[n]["clip_KTHWC"], decoded[n]["clip_KTHWC"])
    for name, clips in (("all", stored), ("none", decoded)):
        size = sum(os.path.getsize(p) for p in (*clips.shards.index_paths, *clips.shards.tar_paths))
        print(f"keep: {name}: {size / len(videos) / 1000:.1f} kB per video on disk")
    decoded.shards.close()
    order = [Path(rows) for rows in stored.rows["path"]]
    wanted = [[STEP * int(p) for p in uniform_positions(len(stored.shards.frames(n)), FRAMES)] for n in range(len(videos))]
    ways: dict[str, Callable[[int], object]] = {
        "stored frames": lambda n: stored[n],
        "keep: none": lambda n: decoded[n],
        "ffmpeg, decoding alone": lambda n: decoded_alone(order[n]),
        "decord, 8 frames": lambda n: decord_io.read(order[n], wanted[n]),
    }
    try:
        by_pyav(order[0], wanted[0])
        ways["PyAV, 8 frames"] = lambda n: by_pyav(order[n], wanted[n])
    except ImportError as error:
        print(f"PyAV cannot be imported here ({error})")
    return ways


def each_video(read: Callable[[int], object], videos: int) -> None:
    for n in range(videos):
        read(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    cv2.setNumThreads(0)
    print(f"{machine()}; {versions('decord', 'av', 'simplejpeg', 'opencv-python-headless')}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in (("H.264, 340 x 256, 300 frames", kinetics_like), ("VP9, 427 x 240, 48 frames", ssv2_like)):
            folder = Path(scratch) / make.__name__
            videos = make(folder / "videos", a.videos)
            print(f"\n{name}; a video has {np.mean([v.stat().st_size for v in videos]) / 1000:.0f} kB")
            ways, times = ways_of(folder, videos), {}
            for _ in range(a.rounds):
                for way, read in ways.items():
                    times.setdefault(way, []).append(cpu_seconds(partial(each_video, read, len(videos))))
            base = statistics.median(times["keep: none"])
            for way, found in times.items():
                each = statistics.median(found) / len(videos)
                print(
                    f"{way:24s} {1000 * each:8.1f} ms   {1 / each:7.1f} clips/s of one core   {base / each / len(videos):6.2f} x keep: none"
                )


if __name__ == "__main__":
    main()
