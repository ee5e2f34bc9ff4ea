"""Manifests and the dry run at the size of Kinetics-400 and SSv2; memory of a job as a function of the size of its shard.

    python -m benchmarks.scale [--memory-only]

Writes annotation files with as many rows as the real ones and as many one-byte videos (2 % of Kinetics missing), builds both
manifests, and makes a dry run of config/paper.yaml with them. Then extracts frames and flow for shards of increasing size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import kinetics_like, machine, manifest, versions
from mscl.config.datasets import FramesConfig
from mscl.config.schema import load_config
from mscl.config.settings import FlowConfig, MDSConfig
from mscl.stages import build
from mscl.stages.jobs import FlowJob, FramesJob, dumps

ROOT = Path(__file__).resolve().parents[1]
K400, SSV2 = 246_245, {"train": 168_913, "validation": 24_777}


def measured(*command: str, cwd: Path | None = None) -> tuple[float, float, str]:
    """Run a command: (wall time in seconds, peak resident memory in MB, output), without its child processes."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([str(c) for c in command], cwd=cwd, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    if status:
        raise SystemExit(f"{' '.join(map(str, command))[:200]} failed:\n{text[-2000:]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, text


def write_kinetics(root: Path) -> None:
    """As distributed by CVDF: one CSV, and videos in the folders of 242 archives."""
    ids = [hashlib.sha1(str(n).encode()).hexdigest()[:11] for n in range(K400)]
    starts = np.random.default_rng(0).integers(0, 300, K400)
    (root / "annotations").mkdir(parents=True)
    labels = [f"class {n % 400:03d} of things people do" for n in range(K400)]
    columns = {"label": labels, "youtube_id": ids, "time_start": starts, "time_end": starts + 10, "split": "train"}
    pd.DataFrame(columns).to_csv(root / "annotations" / "train.csv", index=False)
    for part in range(242):
        (root / "videos" / f"train_part_{part}").mkdir(parents=True)
    for n, (name, start) in enumerate(zip(ids, starts)):
        if n % 50:
            (root / "videos" / f"train_part_{n % 242}" / f"{name}_{start:06d}_{start + 10:06d}.mp4").write_bytes(b"x")


def write_ssv2(root: Path) -> None:
    """In the layout of Something-Something v2."""
    (root / "videos").mkdir(parents=True)
    names = [f"Doing [something] number {n} with [something]" for n in range(174)]
    (root / "labels.json").write_text(json.dumps({n.replace("[", "").replace("]", ""): str(k) for k, n in enumerate(names)}))
    first = 1
    for split, count in SSV2.items():
        rows = [{"id": str(first + n), "template": names[n % 174], "placeholders": ["a cup", "a cup"]} for n in range(count)]
        rows = [row | {"label": row["template"].replace("[something]", "a cup")} for row in rows]
        (root / f"{split}.json").write_text(json.dumps(rows))
        for row in rows:
            (root / "videos" / f"{row['id']}.webm").write_bytes(b"x")
        first += count


def manifests_and_plan(tmp: Path) -> None:
    """Print the time and memory of both manifests and of the dry run."""
    config = load_config(ROOT / "config" / "paper.yaml")
    write_kinetics(tmp / config.datasets["kinetics400"].root)
    write_ssv2(tmp / config.datasets["ssv2"].root)
    total = peak = 0.0
    for name in config.datasets:
        job, out = dumps(build.manifest_job(config, name)), tmp / config.paths.data / "manifests" / f"{name}.parquet"
        seconds, memory, said = measured(sys.executable, "-m", "mscl", "manifest", "--job", job, "--out", out, cwd=tmp)
        total, peak = total + seconds, max(peak, memory)
        print(
            f"manifest {name}: {len(pd.read_parquet(out)):,} rows, {seconds:.1f} s, {memory:.0f} MB; {said.strip().splitlines()[-1]}"
        )
    print(f"both manifests: {total:.1f} s (target: 60), peak {peak:.0f} MB (target: 2,000)")
    plan = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "-d", tmp, "--cores", "2", "-n", "--quiet", "rules"]
    seconds, memory, said = measured(*plan, "--configfile", ROOT / "config" / "paper.yaml")
    found = [line for line in said.splitlines() if line.startswith("total")]
    print(
        f"snakemake -n on config/paper.yaml: {' '.join(found[0].split()) if found else '?'} jobs, {seconds:.1f} s (target: 10), {memory:.0f} MB (target: 400)"
    )


def memory_of_jobs(tmp: Path) -> None:
    """Print the peak memory of the frames job and the flow job for shards of 50, 200 and 800 videos."""
    videos = kinetics_like(tmp / "videos", 4, seconds=3)
    frames_job = dumps(FramesJob(frames=FramesConfig(step=2, short_side=128)))
    flow_job = dumps(FlowJob(flow=FlowConfig(gap=8, size=(96, 160), short_side=64), mds=MDSConfig(), device="cpu"))
    for count in (50, 200, 800):
        folder = tmp / str(count)
        folder.mkdir()
        manifest({f"{n:05d}": videos[n % 4] for n in range(count)}).to_parquet(folder / "m.parquet")
        index, out = folder / "frames" / "0000.parquet", folder / "flow" / "0000.parquet"
        run = [sys.executable, "-m", "mscl"]
        _, frames, _ = measured(*run, "frames", "--job", frames_job, folder / "m.parquet", "0", "--out", index, "--workers", "2")
        _, flow, _ = measured(*run, "flow", "--job", flow_job, index, "--out", out, "--workers", "2")
        size = index.with_suffix(".tar").stat().st_size / 1e6
        print(
            f"shard of {count} videos ({size:.0f} MB of frames): peak memory of the frames job {frames:.0f} MB, of the flow job {flow:.0f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory-only", action="store_true")
    only = parser.parse_args().memory_only
    print(f"{machine()}; {versions('snakemake', 'pandas', 'pyarrow')}")
    with tempfile.TemporaryDirectory() as scratch:
        if not only:
            manifests_and_plan(Path(scratch) / "plan")
        memory_of_jobs(Path(scratch))


if __name__ == "__main__":
    main()
