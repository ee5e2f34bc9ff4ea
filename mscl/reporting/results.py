"""Reads the results that the configuration asks for. Each missing or unreadable file becomes one sentence in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from mscl.config.measures import MEASURES, measure, short_name
from mscl.config.schema import Config
from mscl.config.targets import Target
from mscl.measures.topk import majority_share, metrics_from_predictions, with_prediction
from mscl.stages.layout import GRADCAM, HISTORY, METRICS, PAIRS, PREDICTIONS, Layout
from mscl.stages.table import TESTED, Planned, planned

Run = tuple[str, str, int]  # model, method, seed
Key = tuple[str, str, str, int]  # target, model, method, seed
NAN = float("nan")
NAMES = dict.fromkeys(("a", "b", "left_method", "right_method", "block"), str)  # columns of names: class 001 is not the number 1


@dataclass(frozen=True)
class Column:
    """One measured quantity; every run has one value of it."""

    key: str  # column name in the CSV files
    title: str  # column title in the shown tables
    stage: str  # the stage whose run card the value links to


FINETUNED = (Column("top1", "Top-1", "finetune"), Column("top5", "Top-5", "finetune"))
LINEAR = (Column("linear_top1", "Linear (SGD) top-1", "linear"), Column("linear_top5", "Linear (SGD) top-5", "linear"))
CARDS = ("pretrain_card", "finetune_card", "linear_card", "frozen_card")  # columns of `Results.runs`: ids of run cards


@dataclass(frozen=True)
class Card:
    """A run card: the record of one run. `id` is its name on the page and, with .json, in the report's cards folder."""

    id: str
    where: dict[str, str]  # "stage" and, where they apply, "model", "method" and "seed"
    content: dict


@dataclass
class Results:
    """Everything that the report shows. Accuracies are shares in [0, 1]."""

    config: Config
    columns: list[Column]  # one per measure of any target, in the order of the configuration
    runs: pd.DataFrame  # one row per target x model x method x seed: `columns` (NaN where missing), videos, skipped, chance, majority, ids of the run cards
    pretraining: dict[Run, pd.DataFrame]  # history.csv of each pretraining
    finetuning: dict[Key, pd.DataFrame]  # history.csv of each finetuning
    linear: dict[Key, pd.DataFrame]  # history.csv of each linear evaluation by SGD
    pairs: dict[tuple[str, str], pd.DataFrame]  # (target, model) -> pairs.csv
    gradcam: dict[tuple[str, str], dict]  # (target, model) -> gradcam.json, with "folder"
    data: dict | None  # data.json
    flow_error: dict | None  # flow_error.json
    cards: dict[str, Card]
    right: dict[Key, pd.Series] = field(
        default_factory=dict
    )  # clip_id -> whether the finetuned model is right about that test video
    missing: list[str] = field(default_factory=list)  # one sentence per missing or unreadable file
    notes: list[str] = field(default_factory=list)  # sentences of the frozen tests on their own values


class Reader:
    """Reads single files below `root`. Collects the run cards and a sentence for each missing file."""

    def __init__(self, config: Config, root: Path):
        self.config, self.root, self.at = config, Path(root), Layout(config, results=root)
        self.missing: list[str] = []
        self.cards: dict[str, Card] = {}

    def json(self, path: Path, what: str) -> dict | None:
        """Read a JSON object; None, and a sentence in `missing`, when it cannot be read. `what` starts the sentence."""
        found = self._read(path, what, lambda: json.loads(path.read_text(encoding="utf-8")))
        return found if isinstance(found, dict) else None

    def table(self, path: Path, what: str) -> pd.DataFrame | None:
        """A CSV or parquet table, or None with a sentence in `missing`."""
        read = pd.read_parquet if path.suffix == ".parquet" else lambda p: pd.read_csv(p, keep_default_na=False, dtype=NAMES)
        return self._read(path, what, lambda: read(path))

    def _read(self, path: Path, what: str, read: Callable[[], Any]) -> Any:
        if not path.exists():
            self.missing.append(f"{what} is missing: no {self._name(path)}; run its stage.")
            return None
        try:
            return read()
        except (OSError, ValueError) as error:
            self.missing.append(
                f"{what} cannot be read: {self._name(path)}: {' '.join(str(error).split())[:120]}; "
                "delete the file and run its stage again."
            )
            return None

    def card(self, folder: str, **where: str) -> str:
        """Read the run card of the results in `folder` and keep it in `cards`. Returns its id, or "" when there is none."""
        content = self.json(Path(self.at.card(folder)), f"The run card of {' '.join(where.values())}")
        if content is None:
            return ""
        identity = "-".join(where.values())
        self.cards[identity] = Card(identity, where, content)
        return identity

    def _name(self, path: Path) -> str:
        """The path as in the configuration, even when the results were copied elsewhere."""
        return (self.config.paths.results / path.relative_to(self.root)).as_posix()


def read_results(config: Config, root: Path) -> Results:
    """Read all results below `root`. A missing or unreadable file becomes a sentence in `.missing` and never an error."""
    reader = Reader(config, root)
    found = Results(
        config, _columns(config), pd.DataFrame(), {}, {}, {}, {}, {}, None, None, reader.cards, missing=reader.missing
    )
    pretrained = {tuple(job.values.values()): _read_pretraining(reader, found, job) for job in planned(config, "pretrain")}
    adopted = {tuple(job.values.values()): _read_adopted(reader, job) for job in planned(config, "adopt")}
    rows: dict[Key, dict] = {}
    for job in planned(config, *READERS):
        key = tuple(job.values[name] for name in TESTED)
        row = rows.setdefault(key, _empty_row(*key) | {"pretrain_card": pretrained.get(key[1:], adopted.get(key[1:3], ""))})
        READERS[job.stage.name](reader, found, key, row)
    for job in planned(config, "embed"):
        reader.card(reader.at.embed(**job.values), **_where("embed", job.values))
    order = list(product((t.name for t in config.targets), config.models, config.methods, config.seeds))
    found.runs = pd.DataFrame([rows[key] for key in order if key in rows])
    if found.runs["chance"].min() >= 0.2:  # 5 classes or fewer: nearly every answer is among the best five
        found.columns = [column for column in found.columns if column not in (FINETUNED[1], LINEAR[1])]
    for column in found.columns:
        if column.key not in found.runs:
            found.runs[column.key] = NAN
    for job in planned(config, "analysis"):
        _read_analysis(reader, found, job)
    found.data = reader.json(Path(reader.at.data_health()), "The data summary")
    exact = Path(reader.at.flow_error())
    found.flow_error = reader.json(exact, "The flow error") if exact.exists() else None
    return found


def _columns(config: Config) -> list[Column]:
    """The columns of the named measures. A measure given by module path adds its columns when its results are read."""
    names = dict.fromkeys(name for target in config.targets for name in target.frozen)
    named = [(name, measure(name).columns) for name in names]
    return [
        *(FINETUNED if config.finetuned_targets else ()),
        *(LINEAR if config.linear_targets else ()),
        *(Column(_key(name, c), title, "frozen") for name, columns in named for c, title in columns.items()),
    ]


def main_columns(target: Target) -> list[Column]:
    """One column per measure of a target: top-1 of trained classifiers, and the first column of each built-in measure of frozen features."""
    first = {name: next(iter(MEASURES[name].columns.items())) for name in target.frozen if name in MEASURES}
    return [
        *(FINETUNED[:1] if target.finetuned else ()),
        *(LINEAR[:1] if target.linear_evaluated else ()),
        *(Column(_key(name, column), title, "frozen") for name, (column, title) in first.items()),
    ]


def _key(name: str, column: str) -> str:
    return f"{short_name(name)}_{column}"


def _empty_row(target: str, model: str, method: str, seed: int) -> dict:
    run = {"target": target, "model": model, "method": method, "seed": seed}
    unmeasured = {"videos": 0, "skipped": 0, "chance": NAN, "majority": NAN, "top1": NAN, "top5": NAN}
    return run | unmeasured | dict.fromkeys(CARDS, "")


def _where(stage: str, values: dict[str, Any]) -> dict[str, str]:
    return {"stage": stage} | values | {"seed": f"seed{values['seed']}"}


def _label(reader: Reader, key: Key) -> str:
    on = f" on {key[0]}" if len(reader.config.targets) > 1 else ""
    return f"{key[1]}, {key[2]}, seed {key[3]}{on}"


def _read_pretraining(reader: Reader, found: Results, job: Planned) -> str:
    """Keep the history of a pretraining; the id of its run card, "" when something is missing."""
    run, folder = tuple(job.values.values()), reader.at.pretrain(**job.values)
    history = reader.table(Path(folder, HISTORY), f"The pretraining of {run[0]}, {run[1]}, seed {run[2]}")
    if history is None:
        return ""
    found.pretraining[run] = history
    return reader.card(folder, **_where("pretrain", job.values))


def _read_adopted(reader: Reader, job: Planned) -> str:
    """The id of the run card of others' weights, "" when it is missing."""
    return reader.card(reader.at.adopt(**job.values), stage="adopt", **job.values)


def _read_finetuning(reader: Reader, found: Results, key: Key, row: dict) -> None:
    answers = partial(found.right.__setitem__, key)
    if accuracies := _read_training(reader, "finetune", "finetuning", found.finetuning, key, row, answers):
        row |= accuracies


def _read_linear(reader: Reader, found: Results, key: Key, row: dict) -> None:
    if accuracies := _read_training(reader, "linear", "linear evaluation", found.linear, key, row):
        row |= {column.key: accuracies.pop(column.key.removeprefix("linear_")) for column in LINEAR}
        row |= {} if row["finetune_card"] else accuracies  # the same test videos


def _read_training(
    reader: Reader, stage: str, what: str, histories: dict, key: Key, row: dict, right: Callable[[pd.Series], None] | None = None
) -> dict:
    """The accuracies of a classifier trained on clips, and what chance is; its card goes to `row`, its history to `histories`.

    `right` is given whether it is right about each test video, by clip_id.
    """
    folder, label = getattr(reader.at, stage)(*key), _label(reader, key)
    metrics = reader.json(Path(folder, METRICS), f"The {what} of {label}")
    if metrics is None:
        return {}
    found = {"chance": metrics.get("chance", NAN)} | _accuracies(reader, Path(folder), metrics, label, what, right)
    row[f"{stage}_card"] = reader.card(folder, **_where(stage, dict(zip(TESTED, key))))
    history = reader.table(Path(folder, HISTORY), f"The {what} history of {label}")
    if history is not None:
        histories[key] = history
    return found


def _read_frozen(reader: Reader, found: Results, key: Key, row: dict) -> None:
    folder = reader.at.frozen(*key)
    metrics = reader.json(Path(folder, METRICS), f"The frozen tests of {_label(reader, key)}")
    if metrics is None:
        return
    measured = metrics.get("measures", {})
    for count in ("chance", "majority", "videos", "skipped"):  # of a target without finetuning
        if not row["finetune_card"] and not row["linear_card"]:
            row[count] = metrics.get(count, row[count])
    for name in reader.config.target(key[0]).frozen:
        for column, title in columns_of(name, measured.get(name, {})).items():
            shown = Column(_key(name, column), title, "frozen")
            value = measured.get(name, {}).get(column)
            row[shown.key] = NAN if value is None else value
            if shown not in found.columns:
                found.columns.append(shown)
    found.notes += [f"The frozen tests of {_label(reader, key)}: {note}." for note in metrics.get("notes", [])]
    row["frozen_card"] = reader.card(folder, **_where("frozen", dict(zip(TESTED, key))))


def cards_in(ids: pd.Series) -> list[str]:
    """The run cards that a column of `CARDS` names; the row of a mean names those of all its parts."""
    return list(dict.fromkeys(card for joined in ids for card in joined.split("\n") if card))


def join_cards(ids: pd.Series) -> str:
    """The cell of a mean in such a column."""
    return "\n".join(cards_in(ids))


READERS = {"finetune": _read_finetuning, "linear": _read_linear, "frozen": _read_frozen}


def columns_of(name: str, measured: dict[str, float]) -> dict[str, str]:
    """Column -> title of a measure, from its row in MEASURES. A measure given by module path shows all columns that it returned."""
    if name in MEASURES:
        return measure(name).columns
    return {column: f"{short_name(name)} {column}" for column in measured}


def _accuracies(reader: Reader, folder: Path, metrics: dict, label: str, what: str, right: Callable | None) -> dict:
    """Top-1, top-5 and the share of the most frequent class, recomputed from the predictions. A difference from metrics.json is reported."""
    predictions = reader.table(folder / PREDICTIONS, f"The predictions of {label}")
    kept = {k: metrics.get(k, NAN) for k in ("top1", "top5", "majority")} | {k: metrics.get(k, 0) for k in ("videos", "skipped")}
    if predictions is None:
        return kept
    try:
        counted = metrics_from_predictions(predictions, int(metrics["classes"]))
    except (KeyError, ValueError) as error:
        reader.missing.append(f"The predictions of {label} cannot be counted ({error}); run {what} again.")
        return kept
    if any(abs(counted[k] - kept[k]) > 1e-6 for k in ("top1", "top5")):
        reader.missing.append(
            f"{METRICS} of {label} has top-1 {kept['top1']:.4f}, but its predictions give {counted['top1']:.4f}; "
            f"the tables show the latter. Run {what} again."
        )
    answered = with_prediction(predictions)
    if right:
        each = [int(top[0]) == true for top, true in zip(answered["top"], answered["label"], strict=True)]
        right(pd.Series(each, index=answered["clip_id"], dtype=bool))
    return counted | {"majority": majority_share(answered["label"])}


def _read_analysis(reader: Reader, found: Results, job: Planned) -> None:
    key, folder = (job.values["target"], job.values["model"]), reader.at.analysis(**job.values)
    name = key[1] if len(reader.config.targets) == 1 else f"{key[1]} on {key[0]}"
    table = reader.table(Path(folder, PAIRS), f"The table of confusing pairs of {name}")
    drawn = reader.json(Path(folder, GRADCAM), f"The GradCAM of {name}")
    if table is not None:
        found.pairs[key] = table
    if drawn is not None:
        found.gradcam[key] = drawn | {"folder": Path(folder)}
    if table is not None or drawn is not None:
        reader.card(folder, **({"stage": "analysis"} | job.values))
