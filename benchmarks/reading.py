"""Reading one training sample from the store, compared with decoding the original video.

    python -m benchmarks.reading [--samples 200]        (needs `pip install av`; uses torchcodec if it can be loaded)

A sample is what pretraining reads: two clips of 8 frames at stride 16, with 4 flow fields each, short side 128, at starts allowed
by MDS, cropped and resized to 112 pixels by `PretrainClips`. The other decoders read the same 16 frames, without flow, crop or
resizing, from the 340 x 256 H.264 file with one thread. `only JPEG decoding` decodes the 24 JPEGs of one sample from memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg

from benchmarks.common import kinetics_like, machine, manifest, versions
from mscl.config.datasets import FramesConfig
from mscl.config.methods import METHODS
from mscl.config.settings import Augment, ClipConfig, FlowConfig, MDSConfig
from mscl.flow.shard import flow_shard
from mscl.stages.jobs import FlowJob, FramesJob
from mscl.store.shards import Shards
from mscl.training import clips as data
from mscl.training.clips import PretrainClips
from mscl.video import decord_io
from mscl.video.extract import extract_shard


def prepare(tmp: Path, videos: list[Path]) -> tuple[Shards, Shards]:
    """Extract the frames and the flow of the videos: their shards."""
    manifest({v.stem: v for v in videos}).to_parquet(tmp / "m.parquet")
    frames, flow = tmp / "frames" / "0.parquet", tmp / "flow" / "0.parquet"
    extract_shard(
        FramesJob(frames=FramesConfig(step=2, short_side=128)), tmp / "m.parquet", 0, frames.with_suffix(".tar"), frames, 2
    )
    job = FlowJob(flow=FlowConfig(size=(192, 320), short_side=128), mds=MDSConfig(), device="cpu")
    flow_shard(job, frames, frames.with_suffix(".tar"), flow.with_suffix(".tar"), flow, 2)
    return Shards([frames]), Shards([flow])


class Recorder:
    """Records the JPEGs that the loader reads, so that only their decoding can be measured."""

    def __init__(self, shards: Shards, seen: list[bytes]):
        self.shards, self.seen = shards, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shards, name)

    def read(self, row: int, k: int) -> bytes:
        self.seen.append(self.shards.read(row, k))
        return self.seen[-1]

    def image(self, row: int, k: int, decode: Callable) -> np.ndarray:
        return decode(self.read(row, k))


def by_pyav(path: Path, wanted: list[int]) -> list[np.ndarray]:
    """Seek to the key frame before the first wanted frame, decode up to the last one, and convert the wanted ones to RGB."""
    found, needed = {}, set(wanted)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        rate, base = stream.average_rate, stream.time_base
        container.seek(int(min(wanted) / rate / base), stream=stream)
        for frame in container.decode(stream):
            n = round(float(frame.pts * base * rate))
            if n in needed:
                found[n] = frame.to_ndarray(format="rgb24")
            if n >= max(wanted):
                break
    return [found[n] for n in wanted]


def torchcodec_reader() -> Callable[[Path, list[int]], object] | None:
    """A reader of frames by torchcodec; None if it cannot be loaded."""
    try:
        from torchcodec.decoders import VideoDecoder
    except Exception as error:  # noqa: BLE001 it fails to load in many ways
        print(f"torchcodec cannot be loaded here ({' '.join(str(error).split())[:80]})")
        return None
    return lambda path, wanted: VideoDecoder(str(path), num_ffmpeg_threads=1).get_frames_at(wanted).data


def rate(name: str, way: Callable[[int], object], samples: int) -> float:
    """CPU time per sample in ms; also prints the wall time."""
    way(0)
    began, cpu = time.perf_counter(), time.process_time()
    for n in range(samples):
        way(n)
    wall, cpu = ((now - then) * 1000 / samples for now, then in ((time.perf_counter(), began), (time.process_time(), cpu)))
    print(f"{name:44s} {wall:8.2f} ms wall time  {cpu:8.2f} ms CPU time")
    return cpu


def store_ways(frames: Shards, flow: Shards, names: list[str], indices: list[list[int]]) -> dict[str, Callable[[int], object]]:
    """How to read sample n from the store: decoded frames and flow, the whole sample, and only the decoding of its JPEGs."""
    seen: list[bytes] = []
    how = ClipConfig(), Augment(), METHODS["mscl"].switches, 112, 0
    ours = PretrainClips([(frames, flow, name) for name in names], *how)
    recorded = PretrainClips([(Recorder(frames, seen), Recorder(flow, seen), name) for name in names], *how)
    recorded[0]
    jpegs = list(seen)
    grey = {j for j in jpegs if simplejpeg.decode_jpeg_header(j)[2] == "Gray"}
    print(f"a sample reads {len(jpegs)} JPEGs, {sum(map(len, jpegs)) / 1000:.0f} kB")

    def stored(n: int) -> object:
        frame_row, flow_row = n % len(frames), n % len(flow)
        rgb = [data.decode_rgb(frames.read(frame_row, i // 2)) for i in indices[n]]
        last = len(flow.frames(flow_row)) - 1
        return rgb, [data.decode_planes(flow.read(flow_row, min(i // 2, last))) for i in indices[n][::2]]

    def sample(n: int) -> object:
        ours.set_epoch(n // len(ours))
        return ours[n % len(ours)]

    def bare(n: int) -> None:
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, "GRAY" if jpeg in grey else "RGB")

    return {
        "store: frames and flow, decoded": stored,
        "store: whole sample, cropped to 112": sample,
        "only JPEG decoding of one sample's bytes": bare,
    }


def video_ways(videos: list[Path], indices: list[list[int]]) -> dict[str, Callable[[int], object]]:
    """How to decode the frames of sample n from its video, by decoder."""
    ways: dict[str, Callable[[int], object]] = {
        "decord": lambda n: decord_io.read(videos[n % len(videos)], indices[n]),
        "PyAV": lambda n: by_pyav(videos[n % len(videos)], sorted(set(indices[n]))),
    }
    if codec := torchcodec_reader():
        ways["torchcodec"] = lambda n: codec(videos[n % len(videos)], indices[n])
    return ways


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument(
        "--videos", type=Path, nargs="*", help="videos of 340 x 256; default: generated videos like those of Kinetics"
    )
    a = parser.parse_args()
    cv2.setNumThreads(0)
    print(f"{machine()}; {versions('decord', 'av', 'torchcodec', 'simplejpeg', 'opencv-python-headless')}")
    with tempfile.TemporaryDirectory() as scratch:
        videos = a.videos or kinetics_like(Path(scratch) / "videos", 6)
        print(f"one 10 s video of 340 x 256 has {videos[0].stat().st_size / 1000:.0f} kB")
        frames, flow = prepare(Path(scratch), videos)
        starts = np.random.default_rng(0).integers(0, 170, (a.samples, 2))
        indices = [[int(s) + 16 * t for s in pair for t in range(8)] for pair in starts]
        ways = store_ways(frames, flow, [v.stem for v in videos], indices)
        store_ms, sample_ms, bare_ms = (rate(name, way, a.samples) for name, way in ways.items())
        few = max(10, a.samples // 10)
        times = {
            name: rate(f"{name}: only frames, from the video", way, few) for name, way in video_ways(videos, indices).items()
        }
    best = min(times, key=times.get)
    print(f"whole sample, compared with the best decoder ({best}): {times[best] / sample_ms:.1f} x faster (target: 25)")
    print(f"frames and flow read and decoded, compared with {best}: {times[best] / store_ms:.1f} x faster")
    print(f"only JPEG decoding / reading frames and flow: {bare_ms / store_ms:.2f} (target: 0.8)")
    print(f"only JPEG decoding / whole sample: {bare_ms / sample_ms:.2f}")


if __name__ == "__main__":
    main()
