"""One shard of frames to flow: fields, motion scores and the starts that they allow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch

from mscl.flow.estimate import Estimator, make_estimator
from mscl.flow.grid import stored_size, to_grid
from mscl.flow.mds import of_fields, score_clip
from mscl.flow.program import ProgramFailed
from mscl.flow.quantise import encode_field
from mscl.machine.files import sha256
from mscl.stages.codehash import code_hash
from mscl.stages.jobs import FlowJob
from mscl.store.index import Damaged
from mscl.store.jpeg import decode_gray, decode_rgb
from mscl.store.parallel import in_order
from mscl.store.shards import Shards
from mscl.store.spool import Spool
from mscl.store.writer import MEMBERS, ShardWriter, part_key
from mscl.watch.progress import tqdm

CHUNK = 16  # fields in memory at a time (2 MB each at 384 x 640), so that a long video does not fill it

SCHEMA = pa.schema([
    ("clip_id", pa.string()), ("status", pa.string()), ("reason", pa.string()),
    ("width", pa.int32()), ("height", pa.int32()),  # of one plane
    ("frame", pa.list_(pa.int32())), *MEMBERS.items(),
    ("scale", pa.list_(pa.float32())), ("radius", pa.list_(pa.float32())),
    ("score", pa.list_(pa.float32())), ("allowed", pa.list_(pa.bool_())), ("note", pa.string()),
])  # fmt: skip
FAILED = {"width": 0, "height": 0, "frame": [], "scale": [], "radius": [], "score": [], "allowed": [], "note": ""}


def flow_shard(job: FlowJob, frames_index: Path, frames_tar: Path, out_tar: Path, out_index: Path, workers: int = 1) -> None:
    """Compute the flow of every usable clip of a frame shard; the others pass through with their status and reason.

    A clip with no two kept frames `gap` apart gets status "short". `frames_tar` must lie beside its index.
    """
    if Path(frames_tar) != Path(frames_index).with_suffix(".tar"):
        raise ValueError(f"{frames_tar}: the tar must lie beside its index {frames_index} under the same name")
    frames = Shards([frames_index])
    estimator = make_estimator(job.flow, job.device)
    key = part_key(job, code_hash(__name__), [sha256(frames_index), frames.tar_sha256[0]])
    with one_thread(job.flow.method), ShardWriter(out_tar, out_index, SCHEMA, key, frames.shards) as writer:
        before = writer.done
        done = in_order(lambda row: _clip(job, frames, row, estimator, Path(out_tar).parent), range(before, len(frames)), workers)
        for row, jpegs in tqdm(done, total=len(frames), initial=before, unit="video"):
            writer.add(row, jpegs)
        writer.commit(len(frames))
    frames.close()


@contextlib.contextmanager
def one_thread(method: str) -> Iterator[None]:
    """Parallel over clips, not within a picture: OpenCV (and, for DIS, torch) uses one thread in the body."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    if method == "dis":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def _clip(job: FlowJob, frames: Shards, row: int, estimator: Estimator, folder: Path) -> tuple[dict, Sequence[bytes]]:
    """One index row (without byte ranges) and its JPEGs, which lie in a temporary file in `folder`."""
    clip = frames.clips.iloc[row]
    out = {"clip_id": clip["clip_id"], "status": clip["status"], "reason": clip["reason"], **FAILED}
    if clip["status"] != "ok":
        return out, []
    pairs = field_pairs(frames.frames(row), job.flow.gap, job.flow.step)
    if not pairs:
        last = frames.frames(row)[-1]
        return out | {
            "status": "short",
            "reason": f"last kept frame is {last}, a flow field needs two frames {job.flow.gap} apart",
        }, []
    size = stored_size((clip["height"], clip["width"]), job.flow.short_side)
    jpegs, scale, radius = Spool(folder), [], []

    def computed() -> Iterator[list[np.ndarray]]:
        """The fields as they come, which are put away on the way: nothing of them stays in memory."""
        for chunk in _estimate(frames, row, pairs, estimator):
            for field in chunk:
                jpeg, *numbers = encode_field(to_grid(field, size), job.flow.quality)
                jpegs.append(jpeg)
                for values, number in zip((scale, radius), numbers, strict=True):
                    values.append(number)
            yield chunk

    try:
        score, allowed, note = score_clip(computed(), of_fields(job.mds, job.flow.step))
    except (Damaged, ProgramFailed):  # of the store of frames, or the program, not of the video: the job stops
        raise
    except ValueError as error:  # a frame that was stored undecodable, or a field that is not finite
        return out | {"status": "broken", "reason": str(error)}, []
    height, width = size
    kept = frames.frames(row)[[i for i, _ in pairs]]
    out |= {
        "width": width,
        "height": height,
        "frame": kept,
        "scale": scale,
        "radius": radius,
        "score": score,
        "allowed": allowed,
        "note": note,
    }
    return out, jpegs


def field_pairs(kept: np.ndarray, gap: int, step: int = 1) -> list[tuple[int, int]]:
    """Positions (a, b) in the kept raw frame numbers with kept[b] = kept[a] + gap, for every step-th a."""
    place = {int(frame): k for k, frame in enumerate(kept)}
    return [(k, place[frame + gap]) for frame, k in place.items() if k % step == 0 and frame + gap in place]


def _estimate(frames: Shards, row: int, pairs: list[tuple[int, int]], estimator: Estimator) -> Iterator[list[np.ndarray]]:
    decode, held = decode_gray if estimator.grey else decode_rgb, {}
    for at in range(0, len(pairs), CHUNK):
        part = pairs[at : at + CHUNK]
        used = sorted({k for pair in part for k in pair})
        held = {k: held[k] if k in held else decode(frames.read(row, k)) for k in used}
        place = {k: n for n, k in enumerate(used)}
        yield estimator(np.stack(list(held.values())), [(place[a], place[b]) for a, b in part])
