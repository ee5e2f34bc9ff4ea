"""Count the videos, jobs and training runs of a configuration without running it."""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mscl.config.datasets import PUBLISHED_SPLIT, Dataset
from mscl.config.recipes import Optim
from mscl.config.schema import Config
from mscl.planning.few import used_videos
from mscl.planning.rates import Origin
from mscl.stages.build import features_of
from mscl.stages.layout import Layout
from mscl.stages.table import planned

FACTS = Path(__file__).with_name("facts.csv")
ALIASES = {
    "kinetics400": "kinetics400",
    "k400": "kinetics400",
    "kinetics": "kinetics400",
    "ssv2": "ssv2",
    "sthv2": "ssv2",
    "somethingsomethingv2": "ssv2",
    "somethingv2": "ssv2",
    "ucf101": "ucf101",
    "hmdb51": "hmdb51",
}


@dataclass(frozen=True)
class Facts:
    """Published numbers of one data set; `videos` and `split_bytes` per published split (of one fold)."""

    name: str
    videos: dict[str, int]
    split_bytes: dict[str, int]
    bytes: int  # size of the complete download
    classes: int
    seconds: float  # mean length of a video
    fps: float
    width: int  # pixels
    height: int  # pixels


@dataclass(frozen=True)
class Counts:
    """Number of videos per split of the configuration, after subset and holdout."""

    videos: dict[str, int]
    origin: Origin
    note: str  # where the counts come from, for display
    missing: int = 0  # annotated videos whose file is missing or empty

    @property
    def total(self) -> int:
        return sum(self.videos.values())


@dataclass(frozen=True)
class Training:
    """One training or evaluation job, and how many videos and clips it processes."""

    kind: str  # pretrain, finetune, linear, embed or frozen
    model: str
    method: str
    seed: int
    steps: int  # optimiser steps; 0 for embed and frozen
    trained: int  # videos processed in training, over all epochs: forward and backward, in linear evaluation forward only
    seen: int  # clips processed forward only
    tested: int = 0  # videos that these clips are of
    target: str = ""  # of all but pretraining

    @property
    def key(self) -> str:
        """The network and its clips, as in the keys of the rates: "<model>/<method>" or, for all but pretraining, "<model>/finetune/<target>"."""
        return f"{self.model}/{self.method}" if self.kind == "pretrain" else f"{self.model}/finetune/{self.target}"


def facts_of(name: str, dataset: Dataset) -> Facts | None:
    """The published numbers of a configured data set, found by its download or its name; None if there are none."""
    plain = "".join(c for c in name.lower() if c.isalnum())
    known = dataset.download.source if dataset.download else ALIASES.get(plain)
    if known is None or dataset.embedded:
        return None
    with open(FACTS, newline="", encoding="utf-8") as text:
        rows = [r for r in csv.DictReader(text) if r["dataset"] == known and r["fold"] in ("", str(dataset.fold))]
    whole = next(r for r in rows if r["split"] == "all")
    splits = [r for r in rows if r["split"] != "all"]
    return Facts(
        name=known,
        videos={r["split"]: int(r["videos"]) for r in splits},
        split_bytes={r["split"]: int(r["bytes"]) for r in splits if r["bytes"]},
        bytes=int(whole["bytes"]),
        classes=int(whole["classes"]),
        seconds=float(whole["seconds"]),
        fps=float(whole["fps"]),
        width=int(whole["width"]),
        height=int(whole["height"]),
    )


def count_videos(config: Config, name: str, given: dict[str, int] | None = None) -> Counts:
    """Usable videos (status ok) per split of data set `name`, from the first available source.

    Sources in this order: `given`, the manifest, the configuration (embedded), the annotation files, published counts. Raises
    ValueError if there is none of them, or if an existing file cannot be read.
    """
    dataset, manifest = config.datasets[name], Path(Layout(config).manifest(name))
    if given is not None:
        absent = [s for s in dataset.splits if s not in given]
        if absent:
            raise ValueError(f"videos.{name}: no count for split '{absent[0]}'; give one for each of {', '.join(dataset.splits)}")
        return Counts({s: given[s] for s in dataset.splits}, "given", "given in the rates file")
    if manifest.exists():
        from mscl.datasets.manifest import read_manifest

        return _of_table(read_manifest(manifest), dataset, f"manifest {manifest}")
    if dataset.embedded:
        return Counts(_filtered(dict(dataset.embedded.clips), dataset, 12), "given", "the configuration (embedded.clips)")
    if _annotated(dataset):
        return _of_annotations(name, dataset)
    return _published(name, dataset, manifest)


def _annotated(dataset: Dataset) -> bool:
    """Whether every annotation file or folder exists (also under the older file names of SSv2)."""
    paths = [dataset.root / name for name in dataset.annotations.values()]
    return all(path.exists() or dataset.row.files(path, dataset.fold) for path in paths)


def _of_annotations(name: str, dataset: Dataset) -> Counts:
    """The counts that the manifest stage would find; if there is no video folder yet, all annotated videos."""
    from mscl.datasets.manifest import build_manifest

    if (dataset.root / dataset.videos).is_dir():
        return _of_table(build_manifest(name, dataset), dataset, f"annotation files below {dataset.root}")
    with tempfile.TemporaryDirectory() as empty:
        table = build_manifest(name, dataset.model_copy(update={"videos": empty}))
    return _of_table(table.assign(status="ok"), dataset, f"annotation files below {dataset.root}; no videos yet")


def _of_table(table: pd.DataFrame, dataset: Dataset, note: str) -> Counts:
    usable = table[table["status"] == "ok"]["split"].value_counts()
    return Counts({s: int(usable.get(s, 0)) for s in dataset.splits}, "measured here", note, int((table["status"] != "ok").sum()))


def _published(name: str, dataset: Dataset, manifest: Path) -> Counts:
    facts = facts_of(name, dataset)
    if facts is None:
        files = ", ".join(str(dataset.root / a) for a in dataset.annotations.values())
        raise ValueError(
            f"datasets.{name}: the videos cannot be counted: there is no manifest {manifest}, an annotation file is missing ({files}), "
            f"and there is no published count for this name (only for kinetics400, ssv2, ucf101 and hmdb51); put the annotation "
            f"files there, or give counts in a rates file: videos: {{{name}: {{{', '.join(f'{s}: 1000' for s in dataset.splits)}}}}}"
        )
    found = {}
    for split in dataset.annotated:
        published = facts.videos.get(PUBLISHED_SPLIT.get(split, split))
        if published is None:
            raise ValueError(
                f"datasets.{name}.annotations: no published count for split '{split}' of {facts.name} (only for "
                f"{', '.join(facts.videos)}); put the annotation files there"
            )
        found[split] = published
    after = _filtered(found, dataset, facts.classes)
    estimated = ", subset and holdout estimated" if after != found else ""
    return Counts(after, "published", f"published counts of {facts.name} (mscl/planning/facts.csv){estimated}")


def _filtered(videos: dict[str, int], dataset: Dataset, classes: int) -> dict[str, int]:
    """Counts after holdout and subset, estimated from the shares; the actual filters use each clip_id."""
    videos, first = dict(videos), dataset.holdout_from
    videos |= {s: round(videos[first] * share) for s, share in dataset.holdout.items()}
    videos[first] -= sum(videos[s] for s in dataset.holdout)
    subset = dataset.subset
    share = subset.fraction * (min(1.0, len(subset.classes) / classes) if subset.classes else 1.0)
    for split in subset.splits or videos:
        videos[split] = round(videos[split] * share)
        if subset.ids and (dataset.root / subset.ids).is_file():
            listed = sum(bool(line.strip()) for line in (dataset.root / subset.ids).read_text(encoding="utf-8").splitlines())
            videos[split] = min(videos[split], listed)
    return videos


def count_jobs(config: Config) -> dict[str, int]:
    """{rule: number of jobs} of a run without any existing results, as `snakemake -n` counts them."""
    return dict(Counter(job.stage.name for job in planned(config))) | {"all": 1}


def trainings(config: Config, videos: dict[str, Counts], classes: Callable[[str], int]) -> list[Training]:
    """Every pretraining and evaluation, with steps as in `mscl.training.recipe.epoch_batches`.

    `classes` gives the number of classes of a data set, for targets of a few videos per class.
    """
    use, found = config.pretrain, []
    many = sum(videos[d].videos[use.split] for d in config.pretraining_datasets)
    for job in planned(config, "pretrain", "finetune", "linear", "embed", "frozen"):
        kind, run = job.stage.name, job.values
        steps, trained, seen, tested = 0, 0, 0, 0
        if kind == "pretrain":
            steps, trained = _steps(many, config.pretrain_of(run["model"], run["method"]))
            found.append(Training(kind, **run, steps=steps, trained=trained, seen=0))
            continue
        target = config.target(run["target"])
        train, test = (videos[target.dataset].videos[split] for split in (target.train, target.test))
        if kind in ("finetune", "linear"):
            recipe = (config.finetune_of if kind == "finetune" else config.linear_of)(target.name, run["model"])
            steps, trained = _steps(used_videos(target, train, classes(target.dataset) if target.per_class else 0), recipe)
            tested, seen = test, test * recipe.test_clips * recipe.test_crops
        elif kind == "frozen" and features_of(config, target.name, run["model"]):
            continue  # it reads the features of an embed job
        else:
            tested, seen = train + test, (train + test) * target.clips
        found.append(Training(kind, **run, steps=steps, trained=trained, seen=seen, tested=tested))
    return found


def _steps(videos: int, recipe: Optim) -> tuple[int, int]:
    """(steps, videos processed over all epochs) of a training: complete batches only; fewer videos than a batch are one batch."""
    per_epoch = max(1, videos // recipe.batch)
    return per_epoch * recipe.epochs, per_epoch * min(recipe.batch, videos) * recipe.epochs
