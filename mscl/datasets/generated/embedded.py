"""Generated data sets: real encoded videos in the layouts people have, in which only motion tells the class.

Everything follows from `Embedded` (seed, counts, size) and the format: which clips there are, what each shows
and its exact optical flow. Both formats perform the same motion programs, with different looks; the Kinetics layout in
any direction, the SSv2 layout in those that its templates name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset, Embedded
from mscl.datasets.generated.encode import FPS, encode
from mscl.datasets.generated.motion import PROGRAMS, Scene, draw_scene
from mscl.datasets.generated.render import render, scene_flow
from mscl.machine.files import atomic_write
from mscl.watch.progress import tqdm

# Real Something-Something v2 templates, one per program, in the order of PROGRAMS.
TEMPLATES = (
    "Lifting something up completely, then letting it drop down",
    "Pretending to put something onto something",
    "Plugging something into something but pulling it right out as you remove your hand",
    "Pretending to take something out of something",
    "Showing something to the camera",
    "Pretending to put something behind something",
    "Pretending or trying and failing to twist something",
    "Pretending to turn something upside down",
    "Pushing something from left to right",
    "Pushing something from right to left",
    "Moving something towards the camera",
    "Moving something away from the camera",
)
# Real Kinetics-400 classes, one per program.
ACTIONS = (
    "bouncing on trampoline", "bungee jumping", "playing tennis", "sweeping floor", "high kick", "swinging on something",
    "hula hooping", "spinning poi", "driving car", "sled dog racing", "riding a bike", "pushing car",
)  # fmt: skip
WORDS = ("a cup", "a book", "a pen", "a box", "a bottle", "a coin", "a card", "a shoe", "a toy", "a spoon", "a plate", "a candle")
MARKER = ".embedded.json"  # beside the videos: what they were generated from


@dataclass(frozen=True)
class Clip:
    """One generated video. `order` is its row within the split, `times` the seconds in a Kinetics name."""

    clip_id: str
    split: str
    order: int
    program: int
    times: tuple[int, int] | None = None


def _rng(embedded_seed: int, *names: object) -> np.random.Generator:
    """The random stream that belongs to these names and the seed."""
    digest = hashlib.sha256("/".join(map(str, (embedded_seed, *names))).encode()).digest()
    return np.random.default_rng(list(np.frombuffer(digest, np.uint32)))


def clips(embedded: Embedded, format: str) -> tuple[Clip, ...]:
    """All clips, split by split: classes balanced within a split, ids shuffled so that none tells its class."""
    return _clips(embedded.model_dump_json(), format)


@lru_cache(maxsize=8)
def _clips(embedded_json: str, format: str) -> tuple[Clip, ...]:
    embedded = Embedded.model_validate_json(embedded_json)
    names = iter(_rng(embedded.seed, format, "names").permutation(sum(embedded.clips.values())) + 1)
    found = []
    for split, count in sorted(embedded.clips.items()):
        rng = _rng(embedded.seed, format, split)
        programs = rng.permutation(np.arange(count) % len(PROGRAMS))
        for order, program in enumerate(programs.tolist()):
            if format == "ssv2":
                found.append(Clip(str(next(names)), split, order, program))
                continue
            digest = hashlib.sha256(f"{embedded.seed}/{next(names)}".encode()).digest()
            start = int(rng.integers(0, 600))
            times = (start, start + -(-embedded.frames // FPS))
            found.append(
                Clip(
                    f"{base64.urlsafe_b64encode(digest)[:11].decode()}_{times[0]:06d}_{times[1]:06d}",
                    split,
                    order,
                    program,
                    times,
                )
            )
    return tuple(found)


@lru_cache(maxsize=8)
def _by_id(embedded_json: str, format: str) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in _clips(embedded_json, format)}


def clip_scene(embedded: Embedded, format: str, clip_id: str) -> Scene:
    """What the clip shows; raises ValueError for an id that is not in the data set."""
    clip = _by_id(embedded.model_dump_json(), format).get(clip_id)
    if clip is None:
        raise ValueError(f"clip '{clip_id}': not in this generated {format} data set; take an id from its manifest")
    rng = _rng(embedded.seed, format, clip.split, clip.order)
    return draw_scene(rng, PROGRAMS[clip.program], embedded.frames, embedded.size, any_heading=format == "kinetics")


def exact_flow(
    embedded: Embedded, format: str, clip_id: str, i: int, j: int, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Exact flow of a generated clip from raw frame i to raw frame j, on a grid of `size_hw` = (h, w).

    Returns flow (h, w, 2) float32, (u, v) in pixels of that grid, and valid (h, w) bool (see `render.scene_flow`).
    Raises ValueError for an unknown clip or frame.
    """
    return scene_flow(clip_scene(embedded, format, clip_id), i, j, size_hw)


def write_dataset(dataset: Dataset, workers: int = 2) -> None:
    """Generate `dataset` (its `embedded` part) below `dataset.root`, in `dataset.format`; `workers` videos at a time.

    Videos that are there from an earlier, interrupted call are kept; the annotations come last, so where they stand
    the data set is whole. Raises ValueError when the folder holds videos that were not generated, or ffmpeg fails.
    """
    if dataset.embedded is None:
        raise ValueError(
            f"{dataset.root}: the data set has no 'embedded' part, so there is nothing to generate; add it or download the videos"
        )
    if any(side % 2 for side in dataset.embedded.size):
        raise ValueError(
            f"embedded.size: {dataset.embedded.size} holds an odd number, which H.264 and VP9 cannot store here; make both even"
        )
    folder = dataset.root / dataset.videos
    suffix = dataset.row.suffix
    todo = [clip for clip in clips(dataset.embedded, dataset.format) if clip.split in dataset.splits]
    _start_or_resume(folder, dataset, {clip.clip_id + suffix for clip in todo})

    def make(clip: Clip) -> None:
        path = folder / (clip.clip_id + suffix)
        if not path.exists():
            encode(render(clip_scene(dataset.embedded, dataset.format, clip.clip_id)), path)

    with ThreadPoolExecutor(workers) as pool:
        for _ in tqdm(pool.map(make, todo), total=len(todo), desc=f"generate {dataset.root.name}", unit="video", mininterval=1):
            pass
    {"ssv2": _annotate_ssv2, "kinetics": _annotate_kinetics}[dataset.format](dataset, todo)


def _start_or_resume(folder: Path, dataset: Dataset, names: set[str]) -> None:
    """Keep videos of the same settings and code, remove those generated from others, refuse to touch anybody else's."""
    code = hashlib.sha256()
    for module in ("motion", "render", "encode", "embedded"):
        code.update((Path(__file__).parent / f"{module}.py").read_bytes())
    mine = json.dumps(
        {"format": dataset.format, "embedded": dataset.embedded.model_dump(mode="json"), "code": code.hexdigest()}, sort_keys=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MARKER
    present = [name for name in os.listdir(folder) if name.endswith((".mp4", ".webm"))]
    if present and not marker.exists():
        raise ValueError(
            f"{folder}: holds {len(present)} videos that were not generated here (such as {min(present)}); choose another root"
        )
    same = marker.exists() and marker.read_text() == mine
    for name in present:
        if not same or name not in names:
            (folder / name).unlink()
    if not same:
        _write_text(marker, mine)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _annotate_ssv2(dataset: Dataset, todo: list[Clip]) -> None:
    """labels.json {template: "index"} and, per split, a list of {id, label, template, placeholders}."""
    rng = _rng(dataset.embedded.seed, dataset.format, "words")
    rows: dict[str, list[dict]] = {split: [] for split in dataset.splits}
    for clip in todo:
        template = re.sub(r"\b([Ss]omething)\b", r"[\1]", TEMPLATES[clip.program])
        words = rng.choice(WORDS, 2, replace=False)[: template.count("[")].tolist()
        label = template
        for word in words:
            label = re.sub(r"\[something\]", word, label, count=1, flags=re.IGNORECASE)
        rows[clip.split].append({"id": clip.clip_id, "label": label, "template": template, "placeholders": words})
    for split, listed in rows.items():
        _write_text(dataset.root / dataset.annotations[split], json.dumps(listed, indent=0) + "\n")
    labels = {template: str(index) for index, template in enumerate(sorted(TEMPLATES))}
    _write_text(dataset.root / dataset.annotations["labels"], json.dumps(labels, indent=0) + "\n")


def _annotate_kinetics(dataset: Dataset, todo: list[Clip]) -> None:
    """Per split a CSV label,youtube_id,time_start,time_end,split,is_cc."""
    for split in dataset.splits:
        listed = [clip for clip in todo if clip.split == split]
        table = pd.DataFrame({
            "label": [ACTIONS[clip.program] for clip in listed],
            "youtube_id": [clip.clip_id[:11] for clip in listed],
            "time_start": [clip.times[0] for clip in listed],
            "time_end": [clip.times[1] for clip in listed],
            "split": split,
            "is_cc": 0,
        })  # fmt: skip
        _write_text(dataset.root / dataset.annotations[split], table.to_csv(index=False))
