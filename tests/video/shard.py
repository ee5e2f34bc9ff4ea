"""Extract a small shard of videos, as the stage does."""

import numpy as np
import pandas as pd

from mscl.config.datasets import FramesConfig
from mscl.stages.jobs import FramesJob
from mscl.store.jpeg import decode_gray
from mscl.store.shards import Shards
from mscl.video.extract import extract_shard


def write_manifest(folder, rows):
    """`rows`: (clip_id, path), or dicts of manifest columns."""
    base = {"split": "train", "label": 0, "status": "ok", "reason": "", "shard": 3, "start": np.nan, "end": np.nan}
    rows = [base | (r if isinstance(r, dict) else {"clip_id": r[0], "path": str(r[1])}) for r in rows]
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    return folder / "manifest.parquet"


def extract(tmp_path, rows, frames=None, workers=2):
    manifest, out = write_manifest(tmp_path, rows), tmp_path / "frames" / "0003.parquet"
    extract_shard(FramesJob(frames=frames or FramesConfig()), manifest, 3, out.with_suffix(".tar"), out, workers)
    return Shards([out])


def brightness(shards, row):
    return np.array([decode_gray(shards.read(row, k)).mean() for k in range(len(shards.frames(row)))])
