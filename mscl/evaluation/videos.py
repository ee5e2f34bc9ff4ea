"""The videos that features are computed of: from the store, or decoded on the way; a video that cannot be read is a row with a reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import simplejpeg
from torch.utils.data import Dataset

from mscl.config.datasets import FramesConfig
from mscl.datasets.find import SUFFIXES, shown
from mscl.stages.layout import store_beside
from mscl.store.shards import Shards
from mscl.training.clips import Views, readable
from mscl.video.ffmpeg import Decoded, decode

COLUMNS = ("clip_id", "path", "status", "reason", "start", "end")
LABELS = ("split", "label", "class_name")  # further columns of a manifest


def of_paths(paths: Iterable[Path]) -> pd.DataFrame:
    """The rows of files, and of all videos below folders, sorted within each; a file that is not there is a row with a reason.

    A video is called by its path as given. Raises ValueError where no video is found.
    """
    found: dict[str, None] = {}
    for path in map(Path, paths):
        below = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()) if path.is_dir() else [path]
        found |= dict.fromkeys(map(str, below))
    if not found:
        raise ValueError(
            f"{', '.join(map(str, paths)) or 'no path given'}: no video there; name files, folders of videos, or --manifest"
        )
    names = [shown(name) for name in found]
    rows = pd.DataFrame({"clip_id": names, "path": names, "status": "ok", "reason": "", "start": np.nan, "end": np.nan})
    odd = [name != real for name, real in zip(names, found)]  # other bytes than UTF-8, which no table can hold
    rows.loc[odd, ["status", "reason"]] = ["broken", "its name is not UTF-8 text; rename it"]
    return rows


def of_manifest(manifest: Path, split: str = "") -> pd.DataFrame:
    """The rows of a manifest, or those of one split. Raises ValueError if it is none, or has no video of the split."""
    from mscl.datasets.manifest import read_manifest

    rows = read_manifest(manifest)
    if split:
        splits = ", ".join(dict.fromkeys(rows["split"]))
        rows = rows[rows["split"] == split]
        if rows.empty:
            raise ValueError(f"{manifest}: no video in split '{split}'; it has {splits}")
    return rows[[*COLUMNS, *LABELS]].reset_index(drop=True)


def store_of(manifest: Path, folder: Path | None = None) -> list[Path]:
    """The index files of the frames in `folder`, by default where the workflow keeps those of a manifest; there it may be absent."""
    found = sorted((folder or store_beside(manifest)).glob("[0-9][0-9][0-9][0-9].parquet"))
    if folder and not found:
        raise ValueError(f"--store {folder}: no shard of frames there (0000.parquet); correct the folder, or leave it out")
    return found


class OneVideo:
    """A decoded video with what clips are read by, as of a store with one row."""

    def __init__(self, video: Decoded, step: int):
        self.jpegs, self.grid = video.jpegs, np.arange(len(video.jpegs), dtype=np.int32) * step

    def frames(self, row: int) -> np.ndarray:
        """Raw frame numbers of the kept frames."""
        return self.grid

    def will_read(self, row: int, positions: np.ndarray) -> None:
        """All are decoded already."""

    def image(self, row: int, k: int, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """The k-th kept frame."""
        return decode(self.jpegs[k])


class VideoClips(Dataset):
    """The views of each row, in order: [i] -> {"clip_KTHWC": uint8, "reason": text, "ok": bool}; black where a video cannot be read.

    With `store`, from its frames; else decoded by ffmpeg, with the frames that a store of these settings would hold. `views` says how
    frames are sampled and cropped.
    """

    def __init__(self, rows: pd.DataFrame, frames: FramesConfig, views: Views, store: Shards | None):
        self.frames, self.views, self.store = frames, views, store
        status, reasons = rows["status"].to_numpy(), rows["reason"].tolist()
        if store is not None:
            good, bad = readable(rows, store)
            told = dict(zip(bad["clip_id"], bad["reason"].where(bad["reason"] != "", bad["status"])))
            status = np.where(rows["clip_id"].isin(good["clip_id"]), "ok", "broken")
            reasons = [told.get(clip, "") for clip in rows["clip_id"]]
        self.usable = (status == "ok").tolist()
        self.reasons = [reason or ("" if ok else state) for reason, ok, state in zip(reasons, self.usable, status)]
        self.ids, self.paths = rows["clip_id"].tolist(), rows["path"].tolist()
        self.spans = list(zip(rows["start"].fillna(np.nan), rows["end"].fillna(np.nan)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict:
        views, reason = (
            (self._stored(i) if self.store is not None else self._decoded(i)) if self.usable[i] else (None, self.reasons[i])
        )
        ok = views is not None
        return {"clip_KTHWC": views if ok else np.zeros(self.views.shape, np.uint8), "reason": reason, "ok": ok}

    def _stored(self, i: int) -> tuple[np.ndarray, str]:
        row = self.store.row(self.ids[i])
        return self.views.read(self.store, row, self.store.clips["width"][row] / self.store.clips["height"][row]), ""

    def _decoded(self, i: int) -> tuple[np.ndarray | None, str]:
        path = self.paths[i]
        if not os.path.isfile(path):
            return None, "no such file"
        video = decode(path, self.frames, *self.spans[i])
        if not video.jpegs:
            return None, video.error
        height, width = simplejpeg.decode_jpeg_header(video.jpegs[0])[:2]
        return self.views.read(OneVideo(video, self.frames.step), 0, width / height), video.error
