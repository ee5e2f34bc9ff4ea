"""Reads the results tree: exactly what the configuration says should exist, a sentence for what does not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mscl.config.schema import Config
from mscl.measures.topk import metrics_from_predictions
from mscl.stages.layout import Layout

RETRIEVAL = ("1", "5", "10")  # the k of R@k that the tables show
MEASURES = ("top1", "top5", "probe", *(f"r{k}" for k in RETRIEVAL))


@dataclass(frozen=True)
class Card:
    """A run card: what made some files. `id` names it in the page and, with .json, in out/cards."""

    id: str
    where: dict[str, str]  # stage, model, method, seed as far as they apply
    content: dict


@dataclass
class Results:
    """Everything a report is made of."""

    config: Config
    runs: pd.DataFrame  # one row per model x method x seed: the measures (NaN where absent), videos, skipped, chance, card ids
    pretraining: dict[tuple[str, str, int], pd.DataFrame]  # (model, method, seed) -> history
    finetuning: dict[tuple[str, str, int], pd.DataFrame]
    pairs: dict[str, pd.DataFrame]  # model -> pairs.csv
    gradcam: dict[str, dict]  # model -> gradcam.json, with "folder"
    data: dict | None
    flow_error: object | None
    cards: dict[str, Card]
    missing: list[str] = field(default_factory=list)


class Reader:
    """Reads single files below `root`; remembers what is missing and which cards were met."""

    def __init__(self, config: Config, root: Path):
        self.root, self.missing, self.cards = root, [], {}
        self.shown = config.paths.results  # how sentences call the root
        self.at = Layout(config)
        self.at.results = root

    def json(self, path: Path, what: str) -> object | None:
        """A JSON document, or None with a sentence in `missing`."""
        return self._read(path, what, lambda: json.loads(path.read_text(encoding="utf-8")))

    def table(self, path: Path, what: str) -> pd.DataFrame | None:
        """A CSV or parquet table, or None with a sentence in `missing`."""
        return self._read(
            path, what, lambda: pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)
        )

    def _read(self, path: Path, what: str, read):
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

    def card(self, folder: Path, **where: str) -> str:
        """Remember the run card of the results in `folder`; return its id, "" when there is none."""
        content = self.json(Path(self.at.records(folder)) / "run.json", f"The run card of {' '.join(where.values())}")
        if not isinstance(content, dict):
            return ""
        identity = "-".join(where.values())
        self.cards[identity] = Card(identity, where, content)
        return identity

    def _name(self, path: Path) -> str:
        return (self.shown / path.relative_to(self.root)).as_posix()


def read_results(config: Config, root: Path) -> Results:
    """Read the results tree at `root`; a missing piece becomes a sentence in `.missing`, never an error."""
    reader, rows, pretraining, finetuning = Reader(config, root), [], {}, {}
    for model in config.models:
        for method in config.methods:
            for seed in config.seeds:
                key = (model, method, seed)
                rows.append(_read_run(reader, config, *key, pretraining, finetuning))
    pairs, gradcam = {}, {}
    for model in config.models:
        folder = Path(reader.at.analysis(model))
        table = reader.table(folder / "pairs.csv", f"The table of confusing pairs of {model}")
        drawn = reader.json(folder / "gradcam.json", f"The GradCAM of {model}")
        if table is not None:
            pairs[model] = table
        if isinstance(drawn, dict):
            gradcam[model] = drawn | {"folder": folder}
        if table is not None or drawn is not None:
            reader.card(folder, stage="analysis", model=model)
    data = reader.json(root / "data.json", "The health of the data")
    exact = Path(reader.at.flow_error())
    error = reader.json(exact, "The flow error") if exact.exists() else None
    return Results(
        config,
        pd.DataFrame(rows),
        pretraining,
        finetuning,
        pairs,
        gradcam,
        data if isinstance(data, dict) else None,
        error,
        reader.cards,
        reader.missing,
    )


def _read_run(reader: Reader, config: Config, model: str, method: str, seed: int, pretraining: dict, finetuning: dict) -> dict:
    """Measures, histories and cards of one model, method and seed."""
    where = {"model": model, "method": method, "seed": f"seed{seed}"}
    label = f"{model}, {method}, seed {seed}"
    row: dict = {"model": model, "method": method, "seed": seed} | dict.fromkeys(MEASURES, float("nan"))
    row |= {"videos": 0, "skipped": 0, "chance": float("nan"), "pretrain_card": "", "finetune_card": "", "frozen_card": ""}

    if config.switches(method).pretrain:
        folder = Path(reader.at.pretrain(model, method, seed))
        history = reader.table(folder / "history.csv", f"The pretraining of {label}")
        if history is not None:
            pretraining[model, method, seed] = history
            row["pretrain_card"] = reader.card(folder, stage="pretrain", **where)

    folder = Path(reader.at.finetune(model, method, seed))
    metrics = reader.json(folder / "metrics.json", f"The finetuning of {label}")
    if isinstance(metrics, dict):
        row |= {"chance": metrics.get("chance", float("nan"))} | _accuracies(reader, folder, metrics, label)
        row["finetune_card"] = reader.card(folder, stage="finetune", **where)
        history = reader.table(folder / "history.csv", f"The finetuning history of {label}")
        if history is not None:
            finetuning[model, method, seed] = history

    folder = Path(reader.at.frozen(model, method, seed))
    if config.analysis.probe:
        metrics = reader.json(folder / "metrics.json", f"The probe and retrieval of {label}")
        if isinstance(metrics, dict):
            row["probe"] = metrics.get("probe_top1", float("nan"))
            row |= {f"r{k}": metrics.get("retrieval", {}).get(k, float("nan")) for k in RETRIEVAL}
            row["frozen_card"] = reader.card(folder, stage="frozen", **where)
    return row


def _accuracies(reader: Reader, folder: Path, metrics: dict, label: str) -> dict:
    """Top-1 and top-5 counted again from the predictions; a disagreement with metrics.json is reported."""
    predictions = reader.table(folder / "predictions.parquet", f"The predictions of {label}")
    kept = {k: metrics.get(k, float("nan")) for k in ("top1", "top5")} | {k: metrics.get(k, 0) for k in ("videos", "skipped")}
    if predictions is None:
        return kept
    try:
        counted = metrics_from_predictions(predictions, int(metrics["classes"]))
    except (KeyError, ValueError) as error:
        reader.missing.append(f"The predictions of {label} cannot be counted ({error}); finetune again.")
        return kept
    if any(abs(counted[k] - kept[k]) > 1e-6 for k in ("top1", "top5")):
        reader.missing.append(
            f"metrics.json of {label} says top-1 {kept['top1']:.4f} where its predictions give {counted['top1']:.4f}; "
            "the predictions are shown. Finetune again."
        )
    return counted
