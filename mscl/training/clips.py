"""Clips from the frame and flow store, as uint8 arrays.

Every random choice of a sample comes from (seed, epoch, index): the number of loader processes does
not change a sample, and a resumed run draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from mscl.config.methods import Switches
from mscl.config.recipes import Finetune
from mscl.config.settings import Augment, ClipConfig
from mscl.models.networks.flow_resnet import FLOW_TEMPORAL_STRIDE
from mscl.stages.jobs import FOLD, GROUP, Source
from mscl.store.shards import Shards
from mscl.training.cuts import (
    crop_box,
    crop_boxes,
    key_start,
    positions_of,
    possible_starts,
    read_clip,
    read_flow,
    strided_positions,
    uniform_positions,
)

Row = tuple[Shards, Shards | None, str]  # frames, flow, clip_id of one video


def readable(manifest: pd.DataFrame, shards: Shards) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split manifest rows into those whose frames can be read and those that cannot, with the reason. Raises as `Shards.ready`."""
    index = shards.clips[["clip_id", "status", "reason"]].rename(columns={"status": "frames_status", "reason": "frames_reason"})
    rows = manifest.merge(index, on="clip_id", how="left")
    status = rows["frames_status"].fillna("missing").where(rows["status"] == "ok", rows["status"])
    reason = rows["frames_reason"].fillna("not in the frame store").where(rows["status"] == "ok", rows["reason"])
    rows = rows.drop(columns=["frames_status", "frames_reason"]).assign(status=status, reason=reason)
    good = rows["status"] == "ok"
    shards.ready(rows["clip_id"][good])
    return rows[good].reset_index(drop=True), rows[~good].reset_index(drop=True)


def manifest_rows(source: Source) -> pd.DataFrame:
    """The manifest of a data set; of a source with a fold, with the splits of this fold."""
    rows = pd.read_parquet(source.manifest)
    return rows if source.fold is None else rows.assign(split=rows[f"{FOLD}{source.fold}"])


def group_numbers(rows: pd.DataFrame) -> np.ndarray:
    """A number (N,) per recording of manifest rows: equal for clips of one recording (`mscl.datasets.groups`)."""
    return pd.factorize(rows[GROUP] if GROUP in rows else rows["clip_id"])[0]


def clip_names(clips: int) -> tuple[str, ...]:
    """What a batch calls the clips of a video: query, key, key2, key3…"""
    return ("query", "key", *(f"key{n}" for n in range(2, clips)))


def batch_shapes(switches: Switches, clip: ClipConfig, size: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """What the loader gives of one video to pretraining: name -> (shape, type). The one home of these shapes.

    "query_rgb" (T, S, S, 3) uint8 and, with flow, "query_flow" (T/2, S, S, 2) uint8 and "query_factor" (T/2,) float32: the fields
    at times 0, 2, 4… which the flow network looks at. For the released wiring, "query_crossed_flow": the same fields with the
    crop of the key. For a method that asks for the order of the clips, "query_start": the raw
    frame at which it starts. And so for "key", "key2"….
    """
    found: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    fields = len(range(0, clip.frames, FLOW_TEMPORAL_STRIDE))
    for name in clip_names(switches.clips):
        found[f"{name}_rgb"] = (clip.frames, size, size, 3), np.dtype(np.uint8)
        if switches.flow:
            found[f"{name}_flow"] = (fields, size, size, 2), np.dtype(np.uint8)
            found[f"{name}_factor"] = (fields,), np.dtype(np.float32)
        if switches.ordered:
            found[f"{name}_start"] = (), np.dtype(np.int64)
    if switches.fra == "released":
        for name in ("query", "key"):
            found[f"{name}_crossed_flow"] = found[f"{name}_flow"]
    return found


def random_batch(switches: Switches, clip: ClipConfig, size: int, videos: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch of the loader's shapes with random content, for benchmarks, tests and counting FLOPs."""
    rng, found = np.random.default_rng(seed), {}
    for name, (shape, kind) in batch_shapes(switches, clip, size).items():
        values = np.full((videos, *shape), 0.7) if kind == np.float32 else rng.integers(1, 256, (videos, *shape))
        found[name] = torch.from_numpy(values.astype(kind))
    return found


class PretrainClips(Dataset):
    """Clips of one video, with their flow: query and key (method.md §2), and further keys where the method looks at more.

    [i] -> the arrays that `batch_shapes` lists.
    """

    def __init__(self, rows: list[Row], clip: ClipConfig, augment: Augment, switches: Switches, size: int, seed: int):
        self.rows, self.clip, self.augment, self.switches = rows, clip, augment, switches
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        rng = np.random.default_rng([self.seed, self.epoch, i])
        frames, flow, clip_id = self.rows[i]
        row = frames.row(clip_id)
        kept = frames.frames(row)
        flow_row = flow.row(clip_id) if flow else -1
        grid = flow.frames(flow_row) if flow else kept
        allowed = flow.column("allowed", flow_row).astype(bool) if flow and self.switches.mds else None
        starts = possible_starts(grid, allowed, self.clip)
        out: dict = {}
        names, query = clip_names(self.switches.clips), starts[rng.integers(len(starts))]
        begins = (query, *(key_start(rng, query, starts, self.clip.max_shift) for _ in names[1:]))
        aspect = frames.clips.width[row] / frames.clips.height[row]
        wanted, boxes = {}, {}
        for name, start in zip(names, begins):
            wanted[name] = start + np.arange(self.clip.frames) * self.clip.stride
            boxes[name] = crop_box(rng, aspect, self.augment.area, self.augment.ratio)
            out[f"{name}_rgb"] = read_clip(frames, row, positions_of(kept, wanted[name]), boxes[name], self.size)
            if flow:
                fields = positions_of(grid, wanted[name][::FLOW_TEMPORAL_STRIDE])
                out[f"{name}_flow"], out[f"{name}_factor"] = read_flow(flow, flow_row, fields, boxes[name], self.size)
            if self.switches.ordered:
                out[f"{name}_start"] = int(start)
        if self.switches.fra == "released":
            for name, other in (("query", "key"), ("key", "query")):
                fields = positions_of(grid, wanted[name][::FLOW_TEMPORAL_STRIDE])
                out[f"{name}_crossed_flow"], _ = read_flow(flow, flow_row, fields, boxes[other], self.size)
        return out


def pretrain_rows(sources: Sequence[Source], split: str) -> list[Row]:
    """Every usable video of `split` over several data sets, as (frames, flow, clip_id)."""
    rows = []
    for source in sources:
        frames, flow = Shards(source.frame_indexes()), Shards(source.flow_indexes()) if source.flow else None
        manifest = manifest_rows(source)
        good, _ = readable(manifest[manifest.split == split], frames)
        with_flow = None if flow is None else set(flow.clips.clip_id[flow.clips.status == "ok"])
        rows += [(frames, flow, c) for c in good.clip_id if with_flow is None or c in with_flow]
    return rows


@dataclass(frozen=True)
class Views:
    """Which clips of a video a test looks at: of uniform frames, or of frames `stride` raw frames apart; square crops of each."""

    frames: int
    size: int
    clips: int = 1
    crops: int = 1
    stride: int | None = None

    @property
    def count(self) -> int:
        """Clips x crops of a video."""
        return self.clips * self.crops

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what `read` returns."""
        return self.count, self.frames, self.size, self.size, 3

    def read(self, shards: Shards, row: int, aspect: float) -> np.ndarray:
        """The views of one video whose frames have this width / height, (clips x crops, T, S, S, 3) uint8."""
        grid, boxes = shards.frames(row), crop_boxes(aspect, self.crops)
        positions = [self._clip(grid, (n + 0.5) / self.clips) for n in range(self.clips)]
        shards.will_read(row, np.concatenate(positions))
        return np.stack([read_clip(shards, row, p, box, self.size) for p in positions for box in boxes])

    def _clip(self, grid: np.ndarray, offset: float) -> np.ndarray:
        if self.stride is None:
            return uniform_positions(len(grid), self.frames, offset=offset)
        first, last = 0.5 / self.clips, (self.clips - 0.5) / self.clips
        share = 0.5 if self.clips == 1 else (offset - first) / (last - first)
        return strided_positions(grid, self.frames, self.stride, share)


class UniformClips(Dataset):
    """Square crops of uniform clips, for tests and features: one sample a video.

    [i] -> {"clip_KTHWC": (clips x crops, T, S, S, 3) uint8, "label": int, "index": i}; the arguments from `frames` on are those of
    `Views`. `rows` are the usable videos, `skipped` the others with status and reason.
    """

    def __init__(
        self,
        shards: Shards,
        manifest_rows: pd.DataFrame,
        frames: int,
        size: int,
        clips: int = 1,
        crops: int = 1,
        stride: int | None = None,
    ):
        self.shards, self.view = shards, Views(frames, size, clips, crops, stride)
        self.rows, self.skipped = readable(manifest_rows, shards)

    @property
    def views(self) -> int:
        """Clips x crops of a video."""
        return self.view.count

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        row = self.shards.row(self.rows.clip_id[i])
        aspect = self.shards.clips.width[row] / self.shards.clips.height[row]
        return {"clip_KTHWC": self.view.read(self.shards, row, aspect), "label": int(self.rows.label[i]), "index": i}


class FinetuneClips(Dataset):
    """Random-resized crops of one random frame per segment, or of a clip at a random place, for finetuning."""

    def __init__(self, shards: Shards, manifest_rows: pd.DataFrame, recipe: Finetune, size: int, seed: int):
        self.shards, self.recipe, self.size, self.seed, self.epoch = shards, recipe, size, seed, 0
        self.rows, self.skipped = readable(manifest_rows, shards)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        rng = np.random.default_rng([self.seed, self.epoch, i])
        row = self.shards.row(self.rows.clip_id[i])
        grid, recipe = self.shards.frames(row), self.recipe
        if recipe.stride is None:
            positions = uniform_positions(len(grid), recipe.frames, rng)
        else:
            positions = strided_positions(grid, recipe.frames, recipe.stride, rng.uniform())
        aspect = self.shards.clips.width[row] / self.shards.clips.height[row]
        box = crop_box(rng, aspect, self.recipe.area, self.recipe.ratio)
        return {"clip": read_clip(self.shards, row, positions, box, self.size), "label": int(self.rows.label[i])}
