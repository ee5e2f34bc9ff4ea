"""Features through the command's loop, compared with the bare backbone on tensors that are already on the device.

    python -m benchmarks.features [--videos 64] [--width 64] [--frames 16] [--size 112] [--batch 16] [--workers 1] [--repeats 3]

Makes videos like those of Kinetics, and a store of them. The ways take turns: the backbone alone (r3d_18, random weights, the same
precision and batches, normalised tensors that are ready), the loop of `mscl features` with the store, and with the videos decoded on
the way. Prints videos per second, the CPU time of the process that runs the network (without its loader processes), and the ratio of
each to the backbone alone. It also prints how many videos per second one core
reads, so that the loader cores for a device can be counted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import cpu_seconds, interleaved, kinetics_like, machine, manifest, versions
from mscl.config.datasets import FramesConfig
from mscl.evaluation.features import Options, compute
from mscl.evaluation.parts import Parts
from mscl.evaluation.videos import VideoClips
from mscl.models.networks.backbone import Backbone
from mscl.models.networks.r3d_18 import R3D18
from mscl.stages.jobs import FramesJob
from mscl.store.shards import Shards
from mscl.training.clips import Views
from mscl.training.hardware import autocast, prepare_device
from mscl.video.extract import extract_shard


def sources(folder: Path, count: int, options: Options) -> dict[str, VideoClips]:
    """The same videos from the store and decoded on the way."""
    rows = manifest({path.stem: path for path in kinetics_like(folder / "videos", count)})
    rows.to_parquet(folder / "manifest.parquet")
    extract_shard(FramesJob(frames=FramesConfig()), folder / "manifest.parquet", 0, folder / "0000.tar", folder / "0000.parquet")
    views = Views(options.frames, options.size, options.clips, options.crops, options.stride)
    return {
        "from the store": VideoClips(rows, options.extract, views, Shards([folder / "0000.parquet"])),
        "from the videos": VideoClips(rows, options.extract, views, None),
    }


def loop(net: Backbone, data: VideoClips, options: Options, device: torch.device, workers: int) -> Callable[[], Tensor]:
    """All features by the loop of the command, on the CPU at the end."""

    def way() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            parts = Parts(Path(folder) / "parts", {})
            compute(net, data, options, device, workers, parts)
            return parts.rows()

    return way


def bare(net: Backbone, count: int, options: Options, device: torch.device) -> Callable[[], Tensor]:
    """As many features of clips that are ready on the device."""
    shape = (options.batch * options.clips * options.crops, 3, options.frames, options.size, options.size)
    x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last_3d)

    def way() -> Tensor:
        with torch.inference_mode(), autocast(device, options.kernels):
            return torch.cat([net(x[: min(options.batch, count - at)]) for at in range(0, count, options.batch)]).float().cpu()

    return way


def counted(way: Callable[[], Tensor], seconds: list[float]) -> Callable[[], Tensor]:
    """The same; notes the CPU time of this process, without its loader processes: other load on the machine hardly changes it."""

    def again() -> Tensor:
        began = time.process_time()
        found = way()
        seconds.append(time.process_time() - began)
        return found

    return again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("videos", 64),
        ("width", 64),
        ("frames", 16),
        ("size", 112),
        ("batch", 16),
        ("workers", 1),
        ("threads", 1),
        ("repeats", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    options = Options(frames=a.frames, size=a.size, batch=a.batch)
    device = prepare_device("auto", a.threads)
    net = R3D18(a.width).eval().to(device, memory_format=torch.channels_last_3d)
    print(f"{machine()}; {versions('torch')}; {device}, {a.threads} thread(s), {a.workers} loader process(es)")
    with tempfile.TemporaryDirectory() as folder:
        data = sources(Path(folder), a.videos, options)
        ways = {"backbone alone": bare(net, a.videos, options, device)}
        ways |= {name: loop(net, each, options, device, a.workers) for name, each in data.items()}
        ways["backbone alone"]()  # the first call is slower
        own: dict[str, list[float]] = {name: [] for name in ways}
        times = interleaved(a.repeats, **{name: counted(way, own[name]) for name, way in ways.items()})
        cpu = {name: statistics.median(found) for name, found in own.items()}
        for name, seconds in times.items():
            print(
                f"{name}: {a.videos / seconds:.2f} videos/s, ratio {times['backbone alone'] / seconds:.3f}; CPU of this process "
                f"{cpu[name]:.2f} s, ratio {cpu['backbone alone'] / cpu[name]:.3f}"
            )
        for name, each in data.items():
            read = min(16, a.videos)
            seconds = cpu_seconds(lambda each=each, read=read: [each[i] for i in range(read)])
            print(f"{name}: one core reads {read / seconds:.1f} videos/s")


if __name__ == "__main__":
    main()
