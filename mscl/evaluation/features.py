"""Features of any videos by the weights of a file, as a table: `python -m mscl features` (docs/weights.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mscl.config.datasets import FramesConfig, Positive
from mscl.config.settings import Kernels
from mscl.config.validation import Strict
from mscl.evaluation.parts import Parts
from mscl.evaluation.videos import LABELS, VideoClips
from mscl.machine.files import atomic_write, sha256
from mscl.machine.signals import StopSignal
from mscl.models.colours import Colours
from mscl.models.export import network_of, read_weights
from mscl.models.networks.backbone import Backbone
from mscl.stages.codehash import code_hash
from mscl.store.shards import Shards
from mscl.training.checkpoint import digest
from mscl.training.clips import Views
from mscl.training.hardware import prepare_device
from mscl.training.loader import loading
from mscl.training.partial import AT_ONCE, of_views
from mscl.video.extract import stamps
from mscl.watch.progress import tqdm

SUFFIXES = (".parquet", ".npz")


class Options(Strict):
    """What decides the values of the features, besides weights and videos."""

    backbone: str | None = None  # must be that of the weights; None: as the file says
    width: Positive | None = None
    per_time: bool = False  # one feature per time step of the backbone, not their mean
    frames: Positive = 16  # of a clip
    stride: Positive | None = None  # raw frames apart; None: uniform over the video
    size: Positive = 112  # pixels of the square crop
    clips: Positive = 1
    crops: Literal[1, 3] = 1
    batch: Positive = 32  # videos at a time
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # as compute.kernels.precision
    extract: FramesConfig = FramesConfig()  # of videos that are decoded on the way
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @property
    def kernels(self) -> Kernels:
        """The kernels of the network."""
        return Kernels(precision=self.precision)


@dataclass
class Machine:
    """How the command uses the machine; `device` and `threads` change the last bits."""

    device: str = "auto"
    threads: int = 1
    workers: int = 0


def write_features(weights: Path, rows: pd.DataFrame, out: Path, options: Options, machine: Machine, store: list[Path]) -> None:
    """Write `out` (.parquet or .npz): a row per row of `rows`, with its features, or with the reason why it has none.

    `store`: index files of the videos' frames; empty: the videos are decoded. Interrupted, the same command goes on, to the same
    bytes. Raises ValueError for weights that do not fit, and for another suffix.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"--out {out}: the suffix must be {' or '.join(SUFFIXES)}")
    if (options.mean is None) != (options.std is None):
        raise ValueError("--mean and --std belong together; give both or none")
    net = network_of(read_weights(weights, options.backbone, options.width))
    if options.mean and options.std:
        net.colours = Colours(options.mean, options.std)
    device = prepare_device(machine.device, machine.threads, options.kernels)
    code = code_hash(__name__, type(net).__module__)
    identity = _identity(weights, rows, options, store, device, machine.threads) | {"code": code}
    if _identity_in(out) == identity:
        print(f"{out}: there already, from the same weights, options and videos")
        return
    shards = Shards(store) if store else None
    views = Views(options.frames, options.size, options.clips, options.crops, options.stride)
    data = VideoClips(rows, options.extract, views, shards)
    parts = Parts(out.with_name(f".{out.name}.parts"), identity)
    compute(net.to(device, memory_format=torch.channels_last_3d), data, options, device, machine.workers, parts)
    _write(out, rows, parts, identity)
    parts.done()
    unread = len(rows) - sum(parts.ok)
    print(
        f"{out}: features of {sum(parts.ok)} videos" + (f"; {unread} could not be read, see the column reason" if unread else "")
    )


def compute(net: Backbone, data: VideoClips, options: Options, device: torch.device, workers: int, parts: Parts) -> None:
    """Add the features of every row that `parts` does not have. SIGTERM, SIGUSR1 and Ctrl-C save what is done and raise SystemExit."""
    done, stop = parts.load(), StopSignal()
    batches = [list(range(at, min(at + options.batch, len(data)))) for at in range(done, len(data), options.batch)]
    if done:
        print(f"going on after {done} of {len(data)} videos from {parts.folder}", file=sys.stderr)
    bar = tqdm(total=len(data), initial=done, unit="video")
    features = partial(over_time, net) if options.per_time else net
    with loading(data, batches, workers, pin=device.type == "cuda") as loader, torch.inference_mode():
        for loaded in loader:
            found = features_of(features, loaded["clip_KTHWC"], device, options.kernels, net.colours)
            parts.add(found, loaded["ok"].tolist(), list(loaded["reason"]))
            bar.update(len(loaded["ok"]))
            if stop.number or parts.due():
                parts.save()
            if stop.number:
                print(
                    f"stopped after {len(parts.ok)} of {len(data)} videos: the same command goes on from there", file=sys.stderr
                )
                raise SystemExit(128 + stop.number)
    bar.close()
    parts.save()  # writing the output may be interrupted, too
    stop.release()


def features_of(
    features: Callable[[Tensor], Tensor], views_BKTHWC: Tensor, device: torch.device, kernels: Kernels, colours: Colours
) -> Tensor:
    """(B, C), the mean over the views of each video; per time (B, K·T, C), the clips one after another."""
    B, K = views_BKTHWC.shape[:2]
    views = views_BKTHWC.to(device, non_blocking=True).flatten(0, 1)
    found = torch.cat([of_views(features, part, device, kernels, colours) for part in views.split(max(B, AT_ONCE))])
    return found.view(B, K, -1).mean(1) if found.ndim == 2 else found.view(B, -1, found.shape[-1])


def over_time(net: Backbone, x_BCTHW: Tensor) -> Tensor:
    """One feature per time step of the last map, (B, T, C). Their mean is the pooled feature of the built-in backbones."""
    return net.maps(x_BCTHW)[-1].mean((3, 4)).transpose(1, 2)


def _identity(
    weights: Path, rows: pd.DataFrame, options: Options, store: list[Path], device: torch.device, threads: int
) -> dict[str, str]:
    """What the features are made from, by hash: parts and outputs of anything else are not used."""
    listed = rows.to_json(orient="records")
    seen = [sha256(path) for path in store] or [json.dumps(stamps(rows.to_dict("records")))]
    return {
        "job": options.model_dump_json(),
        "weights": sha256(weights),
        "list of videos": digest(listed),
        "content of the videos": digest(*seen),
        "device": f"{device.type}, {threads} threads" if device.type == "cpu" else torch.cuda.get_device_name(device),
    }


def _columns(rows: pd.DataFrame, parts: Parts) -> dict[str, np.ndarray]:
    kept = {name: rows[name].to_numpy() for name in ("clip_id", "path", *LABELS) if name in rows}
    status = np.where(parts.ok, "ok", np.where(rows["status"] == "ok", "broken", rows["status"]))
    return kept | {"status": status, "reason": np.array(parts.reasons, dtype=object)}


def _write(out: Path, rows: pd.DataFrame, parts: Parts, identity: dict[str, str]) -> None:
    features, columns, ok = parts.rows().numpy(), _columns(rows, parts), np.array(parts.ok, bool)
    with atomic_write(out) as temporary:
        if out.suffix == ".npz":
            features[~ok] = np.nan
            plain = {name: v if v.dtype != object else v.astype(str) for name, v in columns.items()}
            with open(temporary, "wb") as file:  # given a name, numpy would add a suffix
                np.savez(file, features=features, **plain, mscl=np.array(json.dumps(identity)))
            return
        _write_parquet(temporary, features, ok, columns, identity)


def _write_parquet(path: Path, features: np.ndarray, ok: np.ndarray, columns: dict[str, np.ndarray], identity: dict) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [list(row) if row.ndim > 1 else row for row in features]
    kind = pa.list_(pa.list_(pa.float32())) if features.ndim > 2 else pa.list_(pa.float32())
    made = {name: pa.array(v.tolist()) for name, v in columns.items()}
    made["features"] = pa.array([value if good else None for value, good in zip(values, ok)], kind)
    pq.write_table(pa.table(made).replace_schema_metadata({"mscl": json.dumps(identity)}), path)


def _identity_in(out: Path) -> dict[str, str] | None:
    """What an output was made from; None if there is none, or another file has its name."""
    try:
        if out.suffix == ".npz":
            with np.load(out, allow_pickle=False) as held:
                return json.loads(str(held["mscl"]))
        import pyarrow.parquet as pq

        return json.loads((pq.read_schema(out).metadata or {})[b"mscl"])
    except (OSError, ValueError, KeyError):
        return None
