"""Extraction of one shard against bare ffmpeg commands with the same decoding, scaling and JPEG coding.

    python benchmarks/extraction.py [--videos FOLDER] [--count 24] [--workers 2] [--repeats 3]

The rival runs one `ffmpeg ... %06d.jpg` per video, as many at a time as the shard has workers, and writes loose files.
Ours is the whole command that the rule runs: start of Python, manifest, pool, tar, index, checksum.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import cpu_seconds, interleaved, kinetics_like, machine, versions
from mscl.config.datasets import FramesConfig
from mscl.stages.jobs import FramesJob, dumps
from mscl.store.shards import Shards
from mscl.video.program import ffmpeg_exe, program

FRAMES = FramesConfig(step=2, short_side=256, quality=3)


def bare(videos: list[Path], out: Path, workers: int) -> None:
    shutil.rmtree(out, ignore_errors=True)

    def one(n: int) -> None:
        folder = out / f"{n:04d}"
        folder.mkdir(parents=True)
        chain = f"select=not(mod(n\\,{FRAMES.step})),scale=w='if(gt(iw,ih),-1,min({FRAMES.short_side},iw))':h='if(gt(iw,ih),min({FRAMES.short_side},ih),-1)'"
        subprocess.run(
            [ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", "1", "-i", f"file:{videos[n]}", "-map", "0:v:0", "-vf", chain,
             f"-{program().timing}", "passthrough", "-q:v", str(FRAMES.quality), "-threads", "1", str(folder / "%06d.jpg")],
            check=True,
        )  # fmt: skip

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, range(len(videos))))


def ours(videos: list[Path], out: Path, workers: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    rows = [{"clip_id": f"{n:04d}", "path": str(v), "shard": 0, "status": "ok", "reason": "", "start": np.nan, "end": np.nan}
            for n, v in enumerate(videos)]  # fmt: skip
    pd.DataFrame(rows).to_parquet(out / "manifest.parquet")
    subprocess.run(
        [sys.executable, "-m", "mscl", "frames", "--job", dumps(FramesJob(frames=FRAMES)), str(out / "manifest.parquet"), "0",
         "--out", str(out / "0000.parquet"), "--workers", str(workers)], check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=Path, help="a folder of videos; default: generated ones like Kinetics'")
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
    assert loose == stored, f"{loose} loose frames, {stored} stored"
    print(f"{machine()}; {versions('decord')}")
    print(f"{len(videos)} videos ({len(found)} different), {stored} frames, {a.workers} workers, median of {a.repeats}")
    print(f"bare ffmpeg  {times['bare']:.2f} s  {len(videos) / times['bare']:.2f} videos/s")
    print(f"mscl frames  {times['mscl']:.2f} s  {len(videos) / times['mscl']:.2f} videos/s")
    print(
        f"ratio mscl / bare: {times['mscl'] / times['bare']:.3f} by the clock, {cpu['mscl'] / cpu['bare']:.3f} by CPU time (aim: at most 1.15)"
    )


if __name__ == "__main__":
    main()
