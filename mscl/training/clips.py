"""Clips from the frame and flow store, as uint8 arrays.

Every random choice of a sample comes from (seed, epoch, index): the number of loader processes does
not change a sample, and a resumed run draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from mscl.config.methods import Switches
from mscl.config.schema import Augment, ClipConfig, Finetune
from mscl.flow.quantise import decode_planes
from mscl.models.networks.flow_resnet import FLOW_TEMPORAL_STRIDE
from mscl.stages.jobs import FOLD, GROUP, Source
from mscl.store.jpeg import decode_rgb
from mscl.store.shards import Shards

cv2.setNumThreads(0)  # a loader process is one thread

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the frame
Row = tuple[Shards, Shards | None, str]  # frames, flow, clip_id of one video


def crop_box(rng: np.random.Generator, aspect: float, area: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """A random-resized-crop box (torchvision's rule): ten tries, then the largest central box within `ratio`.

    `aspect` is the frame's width / height.
    """
    for _ in range(10):
        share = rng.uniform(*area)
        r = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w, h = np.sqrt(share * r / aspect), np.sqrt(share * aspect / r)
        if w <= 1 and h <= 1:
            left, top = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
            return left, top, left + w, top + h
    r = min(max(aspect, ratio[0]), ratio[1])
    return centre_box(aspect, r)


def centre_box(aspect: float, ratio: float = 1.0) -> Box:
    """The largest central box of the given width / height, in a frame of `aspect`."""
    w, h = min(1.0, ratio / aspect), min(1.0, aspect / ratio)
    return (1 - w) / 2, (1 - h) / 2, (1 + w) / 2, (1 + h) / 2


def _crop(image: np.ndarray, box: Box, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Cut `box` (to the nearest pixel) out of an HWC or HW image and resize it to size x size, into `out` if given.

    Area averaging where it shrinks, bilinear where it grows.
    """
    h, w = image.shape[:2]
    left, top = round(box[0] * w), round(box[1] * h)
    right, bottom = max(round(box[2] * w), left + 1), max(round(box[3] * h), top + 1)
    how = cv2.INTER_AREA if min(right - left, bottom - top) >= size else cv2.INTER_LINEAR
    return cv2.resize(image[top:bottom, left:right], (size, size), out, interpolation=how)


def read_clip(shards: Shards, row: int, positions: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Frames at `positions` (indices of kept frames, ascending) of one video, cropped: (T, size, size, 3) uint8."""
    side = int(size / max(min(box[2] - box[0], box[3] - box[1]), 1e-6))  # decode no larger than the crop needs
    clip = np.empty((len(positions), size, size, 3), np.uint8)
    shards.will_read(row, positions)
    for t, k in enumerate(positions):
        if t and k == positions[t - 1]:  # a short video holds its last frame
            clip[t] = clip[t - 1]
        else:
            _crop(shards.image(row, int(k), partial(decode_rgb, min_side=side)), box, size, clip[t])
    return clip


def read_flow(shards: Shards, row: int, positions: np.ndarray, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields at `positions`: planes (T, size, size, 2) uint8 and factors scale / (radius + 1e-5), (T,) float32."""
    planes = np.empty((len(positions), size, size, 2), np.uint8)
    for t, k in enumerate(positions):
        u, v = shards.image(row, int(k), decode_planes)
        cv2.merge([_crop(u, box, size), _crop(v, box, size)], planes[t])
    scale, radius = (shards.column(name, row)[positions] for name in ("scale", "radius"))
    return planes, (scale / (radius + 1e-5)).astype(np.float32)


def uniform_positions(kept: int, frames: int, rng: np.random.Generator | None = None, offset: float = 0.5) -> np.ndarray:
    """`frames` positions, one in each of as many equal segments of the video.

    At `offset` of its segment, or anywhere in it when `rng` is given (training).
    """
    within = offset if rng is None else rng.uniform(0, 1, frames)
    return np.minimum(((np.arange(frames) + within) * kept / frames).astype(int), kept - 1)


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
            out[f"{name}_rgb"] = read_clip(frames, row, _positions(kept, wanted[name]), boxes[name], self.size)
            if flow:
                fields = _positions(grid, wanted[name][::FLOW_TEMPORAL_STRIDE])
                out[f"{name}_flow"], out[f"{name}_factor"] = read_flow(flow, flow_row, fields, boxes[name], self.size)
            if self.switches.ordered:
                out[f"{name}_start"] = int(start)
        if self.switches.fra == "released":
            for name, other in (("query", "key"), ("key", "query")):
                fields = _positions(grid, wanted[name][::FLOW_TEMPORAL_STRIDE])
                out[f"{name}_crossed_flow"], _ = read_flow(flow, flow_row, fields, boxes[other], self.size)
        return out


def _positions(grid: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices in the sorted raw frame numbers `grid` of the wanted ones; past the end, the last."""
    return np.minimum(np.searchsorted(grid, wanted), len(grid) - 1)


def possible_starts(grid: np.ndarray, allowed: np.ndarray | None, clip: ClipConfig) -> np.ndarray:
    """Raw frame numbers at which a clip may start: whole clips only where there are any, and MDS's choice among them.

    A video shorter than a clip starts at its first frame and holds its last; one in which MDS allows no start at all
    (no motion to choose by) starts at its first frame.
    """
    if allowed is not None and not allowed.any():
        return grid[:1]
    whole = grid <= grid[-1] - (clip.frames - 1) * clip.stride
    if not whole.any():
        return grid[:1]
    chosen = whole if allowed is None else whole & allowed
    return grid[chosen] if chosen.any() else grid[whole]


def key_start(rng: np.random.Generator, query: int, starts: np.ndarray, max_shift: int) -> int:
    """The query's start plus a uniform shift within ±max_shift raw frames, snapped to the nearest allowed start."""
    wanted = query + rng.integers(-max_shift, max_shift + 1)
    return starts[np.abs(starts - wanted).argmin()]


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


def strided_positions(grid: np.ndarray, frames: int, stride: int, share: float) -> np.ndarray:
    """Positions of `frames` frames that are `stride` raw frames apart, in the sorted raw frame numbers `grid`.

    The clip starts at `share` (0 to 1) of the room that the video leaves for it; past the end of a short video, its last frame.
    """
    room = max(0, grid[-1] - grid[0] - (frames - 1) * stride)
    return _positions(grid, grid[0] + round(share * room) + np.arange(frames) * stride)


def crop_boxes(aspect: float, crops: int) -> list[Box]:
    """The central square of a frame of width / height `aspect`; with 3 crops, those at both ends of the longer side as well."""
    left, top, right, bottom = centre_box(aspect)
    if crops == 1:
        return [(left, top, right, bottom)]
    return [(left + s * left, top + s * top, right + s * left, bottom + s * top) for s in (-1, 0, 1)]


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
