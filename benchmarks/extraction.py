"""Extraction of one shard, compared with plain ffmpeg commands with the same decoding, scaling and JPEG coding.

    python -m benchmarks.extraction [--videos FOLDER] [--count 24] [--workers 2] [--repeats 3]

The baseline runs one `ffmpeg ... %06d.jpg` per video, as many at the same time as the shard has workers, and writes single files.
Ours is the complete command of the rule: start of Python, manifest, worker pool, tar, index, checksum.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common import cpu_seconds, interleaved, kinetics_like, machine, manifest, versions
from mscl.config.datasets import FramesConfig
from mscl.stages.jobs import FramesJob, dumps
from mscl.store.shards import Shards
from mscl.video.program import ffmpeg_exe, program

FRAMES = FramesConfig(step=2, short_side=256, quality=3)


def bare(videos: list[Path], out: Path, workers: int) -> None:
    """One ffmpeg command per video."""
    shutil.rmtree(out, ignore_errors=True)

    def one(n: int) -> None:
        folder = out / f"{n:04d}"
        folder.mkdir(parents=True)
        chain = f"select=not(mod(n\\,{FRAMES.step})),scale=w='if(gt(iw,ih),-1,min({FRAMES.short_side},iw))':h='if(gt(iw,ih),min({FRAMES.short_side},ih),-1)'"
        read = ["-threads", "1", "-i", f"file:{videos[n]}", "-map", "0:v:0", "-vf", chain, f"-{program().timing}", "passthrough"]
        write = ["-q:v", str(FRAMES.quality), "-threads", "1", str(folder / "%06d.jpg")]
        subprocess.run([ffmpeg_exe(), "-v", "error", "-nostdin", *read, *write], check=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, range(len(videos))))


def ours(videos: list[Path], out: Path, workers: int) -> None:
    """The command of the rule."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    manifest({f"{n:04d}": video for n, video in enumerate(videos)}).to_parquet(out / "manifest.parquet")
    command = [sys.executable, "-m", "mscl", "frames", "--job", dumps(FramesJob(frames=FRAMES)), out / "manifest.parquet", "0"]
    command += ["--out", out / "0000.parquet", "--workers", workers]
    subprocess.run([str(c) for c in command], check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=Path, help="a folder of videos; default: generated videos like those of Kinetics")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tmp = Path(scratch)
        found = sorted(a.videos.iterdir()) if a.videos else kinetics_like(tmp / "videos", min(a.count, 8))
        videos = [found[n % len(found)] for n in range(a.count)]
        times = interleaved(
            a.repeats,
            bare=lambda: bare(videos, tmp / "bare", a.workers),
            mscl=lambda: ours(videos, tmp / "ours", a.workers),
        )
        cpu = {
            "bare": cpu_seconds(lambda: bare(videos, tmp / "bare", a.workers)),
            "mscl": cpu_seconds(lambda: ours(videos, tmp / "ours", a.workers)),
        }
        loose = len(list((tmp / "bare").glob("*/*.jpg")))
        stored = int(Shards([tmp / "ours" / "0000.parquet"]).clips["count"].sum())
    assert loose == stored, f"{loose} frames by plain ffmpeg, {stored} in the shard"
    print(f"{machine()}; {versions('decord')}")
    print(f"{len(videos)} videos ({len(found)} different), {stored} frames, {a.workers} workers, median of {a.repeats}")
    print(f"plain ffmpeg {times['bare']:.2f} s  {len(videos) / times['bare']:.2f} videos/s")
    print(f"mscl frames  {times['mscl']:.2f} s  {len(videos) / times['mscl']:.2f} videos/s")
    print(
        f"ratio mscl / plain ffmpeg: wall time {times['mscl'] / times['bare']:.3f}, CPU time {cpu['mscl'] / cpu['bare']:.3f} (target: at most 1.15)"
    )


if __name__ == "__main__":
    main()
