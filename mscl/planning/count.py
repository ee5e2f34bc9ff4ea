"""What a configuration asks for, counted and not run: videos, jobs, training runs."""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mscl.config.datasets import PUBLISHED_SPLIT, Dataset
from mscl.config.schema import Config, Optim
from mscl.planning.rates import Origin
from mscl.stages.layout import Layout
from mscl.stages.table import planned

FACTS = Path(__file__).with_name("facts.csv")
ALIASES = {
    "kinetics400": "kinetics400", "k400": "kinetics400", "kinetics": "kinetics400",
    "ssv2": "ssv2", "sthv2": "ssv2", "somethingsomethingv2": "ssv2", "somethingv2": "ssv2",
    "ucf101": "ucf101", "hmdb51": "hmdb51",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """Published figures of one data set; `videos` and `split_bytes` by published split (of one fold)."""

    name: str
    videos: dict[str, int]
    split_bytes: dict[str, int]
    bytes: int  # of everything that is downloaded
    classes: int
    seconds: float  # mean length of a video
    fps: float
    width: int
    height: int


@dataclass(frozen=True)
class Counts:
    """Videos per split of the configuration, after subset and holdout."""

    videos: dict[str, int]
    origin: Origin
    note: str  # where the counts come from, for the reader
    missing: int = 0  # annotated, but without a usable file

    @property
    def total(self) -> int:
        return sum(self.videos.values())


@dataclass(frozen=True)
class Training:
    """One training or evaluation job: what it looks at, and how often."""

    kind: str  # pretrain, finetune or frozen
    model: str
    method: str
    seed: int
    steps: int  # optimiser steps; 0 for frozen
    trained: int  # videos, counted with repetition, forward and backward
    seen: int  # clips, forward only

    @property
    def key(self) -> str:
        """The network that it trains: what a rate belongs to."""
        return f"{self.model}/{self.method}" if self.kind == "pretrain" else f"{self.model}/finetune"


def facts_of(name: str, dataset: Dataset) -> Facts | None:
    """The published figures of a configured data set, known by its download or its name; None for one of your own."""
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
    """Usable videos per split of data set `name`, from the best source there is.

    In this order: `given`, the manifest, the configuration (embedded), the annotation files, published counts. Raises
    ValueError when there is none of them, or when a file that is there cannot be read.
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
    """Whether every annotation file or folder is there (SSv2's older names count)."""
    paths = [dataset.root / name for name in dataset.annotations.values()]
    return all(path.exists() or dataset.row.files(path, dataset.fold) for path in paths)


def _of_annotations(name: str, dataset: Dataset) -> Counts:
    """The counts that the manifest stage would find; where the videos are not there yet, all annotated ones."""
    from mscl.datasets.manifest import build_manifest

    if (dataset.root / dataset.videos).is_dir():
        return _of_table(build_manifest(name, dataset), dataset, f"annotation files below {dataset.root}")
    with tempfile.TemporaryDirectory() as empty:
        table = build_manifest(name, dataset.model_copy(update={"videos": empty}))
    return _of_table(table.assign(status="ok"), dataset, f"annotation files below {dataset.root}; the videos are not there yet")


def _of_table(table, dataset: Dataset, note: str) -> Counts:
    usable = table[table["status"] == "ok"]["split"].value_counts()
    return Counts({s: int(usable.get(s, 0)) for s in dataset.splits}, "measured here", note, int((table["status"] != "ok").sum()))


def _published(name: str, dataset: Dataset, manifest: Path) -> Counts:
    facts = facts_of(name, dataset)
    if facts is None:
        files = ", ".join(str(dataset.root / a) for a in dataset.annotations.values())
        raise ValueError(
            f"datasets.{name}: its videos cannot be counted: there is no manifest {manifest}, not every annotation file ({files}), "
            f"and no published count for this name (there is for kinetics400, ssv2, ucf101 and hmdb51); put the annotation files "
            f"there, or give counts in a rates file: videos: {{{name}: {{{', '.join(f'{s}: 1000' for s in dataset.splits)}}}}}"
        )
    found = {}
    for split in dataset.annotated:
        published = facts.videos.get(PUBLISHED_SPLIT.get(split, split))
        if published is None:
            raise ValueError(
                f"datasets.{name}.annotations: no published count for a split '{split}' of {facts.name} (there is for "
                f"{', '.join(facts.videos)}); put the annotation files there"
            )
        found[split] = published
    after = _filtered(found, dataset, facts.classes)
    estimated = ", subset and holdout estimated" if after != found else ""
    return Counts(after, "published", f"published counts of {facts.name} (mscl/planning/facts.csv){estimated}")


def _filtered(videos: dict[str, int], dataset: Dataset, classes: int) -> dict[str, int]:
    """Counts after holdout and subset, as far as shares tell: the filters themselves look at each clip_id."""
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
    """Rule -> jobs of a run that starts from nothing, as `snakemake -n` counts them."""
    return dict(Counter(job.stage.name for job in planned(config))) | {"all": 1}


def trainings(config: Config, videos: dict[str, Counts]) -> list[Training]:
    """Every pretraining, finetuning and frozen evaluation: steps as `mscl.training.recipe.epoch_batches` cuts them."""
    use, target, found = config.pretrain, videos[config.finetune.dataset].videos, []
    many = sum(videos[d].videos[use.split] for d in use.datasets)
    train, test = target[config.finetune.train], target[config.finetune.test]
    for job in planned(config, "pretrain", "finetune", "frozen"):
        kind, run = job.stage.name, job.values
        steps, trained, seen = 0, 0, 0
        if kind == "pretrain":
            steps, trained = _steps(many, config.pretrain_of(run["model"], run["method"]))
        elif kind == "finetune":
            steps, trained = _steps(train, config.models[run["model"]].finetune)
            seen = test
        else:
            seen = (train + test) * config.analysis.clips
        found.append(Training(kind, **run, steps=steps, trained=trained, seen=seen))
    return found


def _steps(videos: int, recipe: Optim) -> tuple[int, int]:
    """(steps, videos seen with repetition) of a training: whole batches only; fewer videos than one batch are one batch."""
    per_epoch = max(1, videos // recipe.batch)
    return per_epoch * recipe.epochs, per_epoch * min(recipe.batch, videos) * recipe.epochs
