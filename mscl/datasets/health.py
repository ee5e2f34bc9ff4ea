"""Count which videos are usable (status ok) and which are not, with the reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mscl.datasets.left_out import one_class
from mscl.datasets.shared import shared_videos
from mscl.machine.files import write_json
from mscl.stages.jobs import DataJob, Source
from mscl.store.shards import Shards


def health(source: Source) -> dict:
    """Counts per split and status of one data set, and one entry per video that has a status other than ok or a reason.

    Keys: videos, notes (what the manifest leaves out, as sentences), counts {split: {status: n}}, frames (kept frames in total, stored or not) and not_ok; with flow also flow {status: n},
    flow_not_ok (status of the frames ok, of the flow not) and no_allowed_start (clips with no allowed start frame).
    """
    manifest = pd.read_parquet(source.manifest)
    frames = Shards(source.frame_indexes()).clips.set_index("clip_id")
    status = frames.status.reindex(manifest.clip_id).fillna("missing").to_numpy()
    reason = frames.reason.reindex(manifest.clip_id).fillna("not in the frame store").to_numpy()
    rows = manifest[["clip_id", "split"]].assign(status=status, reason=reason)
    found = {
        "videos": len(rows),
        "notes": _notes(manifest, status),
        "counts": {split: part.status.value_counts().to_dict() for split, part in rows.groupby("split")},
        "frames": int(frames["count"].sum()) if "count" in frames else 0,
        "not_ok": rows[(rows.status != "ok") | (rows.reason != "")].to_dict("records"),
    }
    if source.flow:
        flow = Shards(source.flow_indexes()).clips
        found["flow"] = flow.status.value_counts().to_dict()
        found["flow_not_ok"] = flow[(flow.status != "ok") & flow.clip_id.isin(rows.clip_id[rows.status == "ok"])][
            ["clip_id", "status", "reason"]
        ].to_dict("records")
        found["no_allowed_start"] = int((flow.note != "").sum()) if "note" in flow else 0
    return found


def _notes(manifest: pd.DataFrame, status: np.ndarray) -> list[str]:
    """The notes of a manifest; on splits with one class only, with the status (N,) that the frames have."""
    now = [s for split in dict.fromkeys(manifest["split"]) for s in one_class(manifest.assign(status=status), split)]
    return [note for note in manifest.attrs.get("notes", []) if not note.startswith("split '")] + now


def write_health(job: DataJob, out: Path) -> None:
    """Write {data set: its health} to the JSON file `out`; `shared` lists the splits that have videos or recordings in common."""
    found = {source.name: health(source) for source in job.sources}
    for name, shared in shared_videos(job.sources).items():
        found[name]["shared"] = shared
    write_json(out, found)
