"""One training sample from the store against decoding the original video.

    python -m benchmarks.reading [--samples 200]        (pip install av; torchcodec where it loads)

A sample is what pretraining reads: two clips of 8 frames at stride 16 with the 4 fields of each that the flow network looks at,
short side 128, starts allowed by MDS, cropped and resized to 112 pixels by the loader's own `PretrainClips`. The rivals decode the same 16 frames, without flow, crop or
resizing, from the 340 x 256 H.264 file by one thread. `bare JPEG decoding` decodes the sample's own 24 JPEGs out of memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import simplejpeg

from benchmarks.common import kinetics_like, machine, versions
from mscl.config.datasets import FramesConfig
from mscl.config.schema import METHODS, Augment, ClipConfig, FlowConfig, MDSConfig
from mscl.flow.shard import flow_shard
from mscl.stages.jobs import FlowJob, FramesJob
from mscl.store.shards import Shards
from mscl.training import clips as data
from mscl.training.clips import PretrainClips
from mscl.video import decord_io
from mscl.video.extract import extract_shard


def prepare(tmp: Path, videos: list[Path]) -> tuple[Shards, Shards]:
    rows = [{"clip_id": v.stem, "path": str(v), "shard": 0, "status": "ok", "reason": "", "start": np.nan, "end": np.nan}
            for v in videos]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp / "m.parquet")
    frames, flow = tmp / "frames" / "0.parquet", tmp / "flow" / "0.parquet"
    extract_shard(
        FramesJob(frames=FramesConfig(step=2, short_side=128)), tmp / "m.parquet", 0, frames.with_suffix(".tar"), frames, 2
    )
    job = FlowJob(flow=FlowConfig(size=(192, 320), short_side=128), mds=MDSConfig(), device="cpu")
    flow_shard(job, frames, frames.with_suffix(".tar"), flow.with_suffix(".tar"), flow, 2)
    return Shards([frames]), Shards([flow])


class Recorder:
    """Remembers which JPEGs the loader reads, so that the same bytes can be decoded bare."""

    def __init__(self, shards: Shards, seen: list[bytes]):
        self.shards, self.seen = shards, seen

    def __getattr__(self, name: str):
        return getattr(self.shards, name)

    def read(self, row: int, k: int) -> bytes:
        self.seen.append(self.shards.read(row, k))
        return self.seen[-1]


def by_pyav(path: Path, wanted: list[int]) -> list[np.ndarray]:
    """Seek to the key frame before the first wanted frame, decode to the last, convert the wanted ones."""
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


def torchcodec_reader() -> Callable | None:
    try:
        from torchcodec.decoders import VideoDecoder
    except Exception as error:  # noqa: BLE001 it fails to load in many ways
        print(f"torchcodec does not load here ({' '.join(str(error).split())[:80]})")
        return None
    return lambda path, wanted: VideoDecoder(str(path), num_ffmpeg_threads=1).get_frames_at(wanted).data


def rate(name: str, way: Callable[[int], object], samples: int) -> float:
    """Milliseconds of CPU per sample."""
    way(0)
    began, cpu = time.perf_counter(), time.process_time()
    for n in range(samples):
        way(n)
    wall, cpu = ((now - then) * 1000 / samples for now, then in ((time.perf_counter(), began), (time.process_time(), cpu)))
    print(f"{name:44s} {wall:8.2f} ms by the clock  {cpu:8.2f} ms of CPU")
    return cpu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--videos", type=Path, nargs="*", help="videos of 340 x 256; default: generated ones like Kinetics'")
    a = parser.parse_args()
    samples = a.samples
    cv2.setNumThreads(0)
    print(f"{machine()}; {versions('decord', 'av', 'torchcodec', 'simplejpeg', 'opencv-python-headless')}")
    with tempfile.TemporaryDirectory() as scratch:
        videos = a.videos or kinetics_like(Path(scratch) / "videos", 6)
        frames, flow = prepare(Path(scratch), videos)
        seen: list[bytes] = []
        how = ClipConfig(), Augment(), METHODS["mscl"].switches, 112, 0
        rows = [(frames, flow, v.stem) for v in videos]
        ours = PretrainClips(rows, *how)
        recorded = PretrainClips([(Recorder(f, seen), Recorder(g, seen), c) for f, g, c in rows], *how)
        recorded[0]
        jpegs = list(seen)
        print(
            f"a sample reads {len(jpegs)} JPEGs, {sum(map(len, jpegs)) / 1000:.0f} kB; one 10 s video of 340 x 256 is {videos[0].stat().st_size / 1000:.0f} kB"
        )
        rng = np.random.default_rng(0)
        starts = rng.integers(0, 170, (samples, 2))
        indices = [[int(s) + 16 * t for s in pair for t in range(8)] for pair in starts]

        def sample(n: int):
            ours.set_epoch(n // len(ours))
            return ours[n % len(ours)]

        def stored(n: int):
            frame_row, flow_row = n % len(frames), n % len(flow)
            rgb = [data.decode_rgb(frames.read(frame_row, i // 2)) for i in indices[n]]
            last = len(flow.frames(flow_row)) - 1
            return rgb, [data.decode_planes(flow.read(flow_row, min(i // 2, last))) for i in indices[n][::2]]

        def bare(n: int):
            for jpeg in jpegs:
                simplejpeg.decode_jpeg(jpeg, "GRAY" if jpeg in grey else "RGB")

        grey = {j for j in jpegs if simplejpeg.decode_jpeg_header(j)[2] == "Gray"}
        few = max(10, samples // 10)
        store_ms = rate("store: frames and flow, decoded", stored, samples)
        sample_ms = rate("store: whole sample, cropped to 112", sample, samples)
        bare_ms = rate("bare JPEG decoding of one sample's bytes", bare, samples)
        rivals = {
            "decord": lambda n: decord_io.read(videos[n % len(videos)], indices[n]),
            "PyAV": lambda n: by_pyav(videos[n % len(videos)], sorted(set(indices[n]))),
        }
        if codec := torchcodec_reader():
            rivals["torchcodec"] = lambda n: codec(videos[n % len(videos)], indices[n])
        times = {name: rate(f"{name}: frames alone, from the video", way, few) for name, way in rivals.items()}
        best = min(times, key=times.get)
        print(f"whole sample against the best decoder ({best}): {times[best] / sample_ms:.1f} x faster (aim: 25)")
        print(f"frames and flow read and decoded, against {best}: {times[best] / store_ms:.1f} x faster")
        print(
            f"bare JPEG decoding / reading frames and flow: {bare_ms / store_ms:.2f} (aim: 0.8); / whole sample: {bare_ms / sample_ms:.2f}"
        )


if __name__ == "__main__":
    main()
