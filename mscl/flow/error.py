"""How far the stored flow is from the truth, on generated videos whose exact flow the renderer knows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mscl.datasets.generated.embedded import exact_flow
from mscl.flow.quantise import decode_field, encode_field
from mscl.machine.files import write_json
from mscl.stages.jobs import FlowErrorJob
from mscl.store.shards import Shards

MOVING = 0.5  # pixels of the stored grid; above it a pixel counts as the moving part


class Errors(NamedTuple):
    """End-point errors of one field at its valid pixels, in pixels of the stored grid, each (N,)."""

    motion: np.ndarray  # length of the exact flow = error of answering "no motion"
    flow: np.ndarray  # of the stored field
    quantisation: np.ndarray  # of the exact field once stored


def flow_error(job: FlowErrorJob, out: Path, clips: int = 40) -> None:
    """Write the end-point errors of up to `clips` clips, spread evenly over the data set, as JSON.

    Pixels whose exact target is hidden, outside the frame or at the object's edge do not count. `epe_zero` is the
    error of answering zero everywhere, `epe_quantisation` that of storing the exact flow; `_object` means where the
    exact motion exceeds 0.5 px, `epe_relative` is `epe_mean` / the mean length of the exact motion. Raises ValueError
    when no clip has flow.
    """
    shards = Shards(job.source.flow_indexes())
    rows = np.flatnonzero(shards.clips["status"] == "ok")
    if not len(rows):
        raise ValueError(f"{job.source.flow}: no clip has flow, so no error to measure; see its status and reason columns")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(clips, len(rows))).round().astype(int))]
    fields = [errors for row in rows for errors in _clip_errors(job, shards, row)]
    motion, flow, stored = (np.concatenate(part) for part in zip(*fields))
    moving, first = motion > MOVING, shards.clips.iloc[rows[0]]
    report = {
        "clips": len(rows), "fields": len(fields), "epe_mean": _mean(flow),
        "epe_median": float(np.median(flow)) if len(flow) else None,
        "epe_object": _mean(flow[moving]), "epe_zero": _mean(motion), "epe_zero_object": _mean(motion[moving]),
        "epe_relative": _mean(flow) / _mean(motion) if motion.any() else None, "epe_quantisation": _mean(stored),
        "object_share": _mean(moving), "grid": [int(first["height"]), int(first["width"])], "method": job.flow.method,
    }  # fmt: skip
    write_json(out, report)


def _clip_errors(job: FlowErrorJob, shards: Shards, row: int) -> Iterator[Errors]:
    clip = shards.clips.iloc[row]
    size = int(clip["height"]), int(clip["width"])
    for k, frame in enumerate(shards.frames(row)):
        i = int(frame)
        exact, valid = exact_flow(job.embedded, job.dataset.format, clip["clip_id"], i, i + job.flow.gap, size)
        found = shards.image(row, k, partial(decode_field, scale=float(shards.column("scale", row)[k])))
        jpeg, scale, _ = encode_field(exact, job.flow.quality)
        lengths = (np.linalg.norm(x, axis=-1)[valid] for x in (exact, found - exact, decode_field(jpeg, scale) - exact))
        yield Errors(*lengths)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
