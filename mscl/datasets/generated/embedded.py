"""Generated data sets: encoded videos in the layout of Kinetics or SSv2, in which only the motion determines the class.

`Embedded` (seed, counts, size) and the format determine everything: the clips, their content and their exact optical flow. Both
formats use the same motion programs with different appearance. In the Kinetics layout the motion has any direction, in the SSv2
layout the direction that the template names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset, Embedded
from mscl.datasets.generated.encode import FPS, encode
from mscl.datasets.generated.motion import SCENES, Scene, draw_scene
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
    "bouncing on trampoline",
    "bungee jumping",
    "playing tennis",
    "sweeping floor",
    "high kick",
    "swinging on something",
    "hula hooping",
    "spinning poi",
    "driving car",
    "sled dog racing",
    "riding a bike",
    "pushing car",
)
WORDS = ("a cup", "a book", "a pen", "a box", "a bottle", "a coin", "a card", "a shoe", "a toy", "a spoon", "a plate", "a candle")
MARKER = ".embedded.json"  # file beside the videos: the settings and code that they were generated from


def templates(embedded: Embedded) -> tuple[str, ...]:
    """The classes in the SSv2 layout, one per program."""
    if embedded.scenes == "programs":
        return TEMPLATES
    return tuple(f"Moving something {', then '.join(program)}" for program in SCENES[embedded.scenes].programs)


def actions(embedded: Embedded) -> tuple[str, ...]:
    """The classes in the Kinetics layout, one per program."""
    if embedded.scenes == "programs":
        return ACTIONS
    return tuple(f"moving {' then '.join(program)}" for program in SCENES[embedded.scenes].programs)


@dataclass(frozen=True)
class Clip:
    """One generated video. `order`: its row within the split; `times`: start and end in seconds in a Kinetics file name."""

    clip_id: str
    split: str
    order: int
    program: int
    times: tuple[int, int] | None = None


def _rng(embedded_seed: int, *names: object) -> np.random.Generator:
    """A random generator that depends only on the seed and `names`."""
    digest = hashlib.sha256("/".join(map(str, (embedded_seed, *names))).encode()).digest()
    return np.random.default_rng(list(np.frombuffer(digest, np.uint32)))


def clips(embedded: Embedded, format: str) -> tuple[Clip, ...]:
    """All clips, split by split. Classes are balanced within a split; ids are shuffled, so an id does not reveal the class."""
    return _clips(embedded.model_dump_json(), format)


@lru_cache(maxsize=8)
def _clips(embedded_json: str, format: str) -> tuple[Clip, ...]:
    embedded = Embedded.model_validate_json(embedded_json)
    names = iter(_rng(embedded.seed, format, "names").permutation(sum(embedded.clips.values())) + 1)
    found = []
    for split, count in sorted(embedded.clips.items()):
        rng = _rng(embedded.seed, format, split)
        programs = rng.permutation(np.arange(count) % len(SCENES[embedded.scenes].programs))
        for order, program in enumerate(programs.tolist()):
            if format == "ssv2":
                found.append(Clip(str(next(names)), split, order, program))
                continue
            digest = hashlib.sha256(f"{embedded.seed}/{next(names)}".encode()).digest()
            start = int(rng.integers(0, 600))
            times = (start, start + -(-embedded.frames // FPS))
            youtube_id = base64.urlsafe_b64encode(digest)[:11].decode()
            found.append(Clip(f"{youtube_id}_{times[0]:06d}_{times[1]:06d}", split, order, program, times))
    return tuple(found)


@lru_cache(maxsize=8)
def _by_id(embedded_json: str, format: str) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in _clips(embedded_json, format)}


def clip_scene(embedded: Embedded, format: str, clip_id: str) -> Scene:
    """The scene that the clip shows. Raises ValueError for an id that is not in the data set."""
    clip = _by_id(embedded.model_dump_json(), format).get(clip_id)
    if clip is None:
        raise ValueError(f"clip '{clip_id}': not in this generated {format} data set; take an id from its manifest")
    rng = _rng(embedded.seed, format, clip.split, clip.order)
    kind = SCENES[embedded.scenes]
    return draw_scene(
        rng, kind.programs[clip.program], embedded.frames, embedded.size, any_heading=format == "kinetics", kind=kind
    )


def exact_flow(
    embedded: Embedded, format: str, clip_id: str, i: int, j: int, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Exact flow of a generated clip from raw frame i to raw frame j, on a grid of `size_hw` = (h, w).

    Returns flow (h, w, 2) float32, (u, v) in pixels of that grid, and valid (h, w) bool (see `render.scene_flow`).
    Raises ValueError for an unknown clip or frame.
    """
    return scene_flow(clip_scene(embedded, format, clip_id), i, j, size_hw)


def write_dataset(dataset: Dataset, workers: int = 2, draw: Callable[[Clip, Scene], np.ndarray] | None = None) -> None:
    """Generate `dataset` (by its setting `embedded`) below `dataset.root`, in `dataset.format`; `workers` videos at a time.

    `draw` makes the frames (T, H, W, 3) uint8 of a clip from its scene; by default the scene is rendered.
    Videos of an earlier, interrupted call are kept. The annotations are written last, so a data set with annotations is
    complete. Raises ValueError if `embedded` is missing or its size is odd, if the folder holds videos that were not generated,
    or if ffmpeg fails.
    """
    if dataset.embedded is None:
        raise ValueError(
            f"{dataset.root}: the data set has no setting 'embedded', so there is nothing to generate; add it or download the videos"
        )
    if any(side % 2 for side in dataset.embedded.size):
        raise ValueError(
            f"embedded.size: {dataset.embedded.size} has an odd number, which yuv420p video cannot store; make both even"
        )
    folder = dataset.root / dataset.videos
    suffix = dataset.row.suffix
    todo = [clip for clip in clips(dataset.embedded, dataset.format) if clip.split in dataset.splits]
    _start_or_resume(folder, dataset, {clip.clip_id + suffix for clip in todo})

    def make(clip: Clip) -> None:
        path = folder / (clip.clip_id + suffix)
        if not path.exists():
            scene = clip_scene(dataset.embedded, dataset.format, clip.clip_id)
            encode(draw(clip, scene) if draw else render(scene), path)

    with ThreadPoolExecutor(workers) as pool:
        for _ in tqdm(pool.map(make, todo), total=len(todo), unit="video"):
            pass
    {"ssv2": _annotate_ssv2, "kinetics": _annotate_kinetics}[dataset.format](dataset, todo)


def _start_or_resume(folder: Path, dataset: Dataset, names: set[str]) -> None:
    """Keep videos of the same settings and code, delete videos of others. Raises ValueError for videos not generated here."""
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
    """Write labels.json {template: "index"} and one list of {id, label, template, placeholders} per split."""
    rng = _rng(dataset.embedded.seed, dataset.format, "words")
    rows: dict[str, list[dict]] = {split: [] for split in dataset.splits}
    for clip in todo:
        template = re.sub(r"\b([Ss]omething)\b", r"[\1]", templates(dataset.embedded)[clip.program])
        words = rng.choice(WORDS, 2, replace=False)[: template.count("[")].tolist()
        label = template
        for word in words:
            label = re.sub(r"\[something\]", word, label, count=1, flags=re.IGNORECASE)
        rows[clip.split].append({"id": clip.clip_id, "label": label, "template": template, "placeholders": words})
    for split, listed in rows.items():
        _write_text(dataset.root / dataset.annotations[split], json.dumps(listed, indent=0) + "\n")
    labels = {template: str(index) for index, template in enumerate(sorted(templates(dataset.embedded)))}
    _write_text(dataset.root / dataset.annotations["labels"], json.dumps(labels, indent=0) + "\n")


def _annotate_kinetics(dataset: Dataset, todo: list[Clip]) -> None:
    """Write one CSV file label,youtube_id,time_start,time_end,split,is_cc per split."""
    for split in dataset.splits:
        listed = [clip for clip in todo if clip.split == split]
        columns = {
            "label": [actions(dataset.embedded)[clip.program] for clip in listed],
            "youtube_id": [clip.clip_id[:11] for clip in listed],
            "time_start": [clip.times[0] for clip in listed],
            "time_end": [clip.times[1] for clip in listed],
            "split": split,
            "is_cc": 0,
        }
        table = pd.DataFrame(columns)
        _write_text(dataset.root / dataset.annotations[split], table.to_csv(index=False))
