"""The accuracy tables. Published and measured rows are always marked."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pandas as pd

from mscl.config.foreign import ForeignWeights, foreign_of
from mscl.config.schema import Config
from mscl.reporting.formats import DASH, Table, mean_sd, number, table_of
from mscl.reporting.groups import Group, few_said, groups
from mscl.reporting.paper import differences
from mscl.reporting.results import Column, Results, cards_in

KIND = {
    "demo": "Demo numbers are not paper numbers: they come from generated videos and tiny networks. They show that the whole "
    "pipeline runs. What they say about the methods is one seed on such videos: the claims tell how much that is.",
    "evidence": "Evidence on generated videos: compare the methods with each other; "
    "do not compare the absolute numbers with the paper's.",
    "real": "Real videos, but not the paper's recipe: the numbers cannot be compared directly with the paper's.",
    "paper": "The paper's data and recipe, as far as they are known: measured rows may be compared with published ones.",
}
LISTED = 12  # differences from the paper that are named
TABLE1_CSV = (
    *("method", "origin", "kind", "backbone", "pretrain", "clip", "views", "epochs", "target"),
    *("top1", "top1_std", "seeds", "test_videos", "chance", "majority", "source"),
)
SPREAD = "Mean ± sample standard deviation over the seeds, in percent; one seed has no error bar."
MAJORITY = (
    "Chance is 1 / number of classes; Majority is the share of the most frequent class among the test videos, which always answering "
    "that class would score. Neither applies to R@k."
)


DRAWN = " Of a mean of draws, over seeds and draws: the column Seeds gives their numbers."


def banner(config: Config) -> str:
    """The sentence on how far the numbers can be compared; for `kind: paper` with every difference from config/paper.yaml."""
    if config.kind != "paper" or not (found := differences(config)):
        return KIND[config.kind]
    more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"Configured as kind: paper, but not the paper's experiment. {KIND['real']} Differences: {'; '.join(found[:LISTED])}{more}."


def kind_of(config: Config) -> str:
    """The kind that the rows are marked with: `paper` only without a difference from the paper's experiment."""
    return "real" if config.kind == "paper" and differences(config) else config.kind


def published() -> pd.DataFrame:
    """The numbers printed in the paper's supplement and abstract. All columns are text."""
    return pd.read_csv(files("mscl.reporting") / "published.csv", dtype=str, keep_default_na=False)


def span(values: pd.Series) -> str:
    """The counts of several runs as text: one number when all are equal, else "least–most"; a dash without any."""
    known = sorted({int(v) for v in values})
    return "–".join(dict.fromkeys(map(str, (known[0], known[-1])))) if known else DASH


def _spread(config: Config) -> str:
    """The sentence on ±, and on the few training videos of targets."""
    few = [f"{t.shown}{few_said(config, t)}" for t in config.targets if t.few and t is config.draws_of(t)[0]]
    drawn = DRAWN if any(t.draws_of for t in config.targets) else ""
    return SPREAD + drawn + (f" Learnt on few training videos, drawn anew for each seed: {'; '.join(few)}." if few else "")


def of_table(results: Results, *begins: str) -> list[str]:
    """The sentences on missing results that begin with one of `begins`."""
    return [sentence for sentence in results.missing if sentence.startswith(begins)]


def table1(results: Results) -> Table:
    """Table 1: measured top-1 on the targets. `mscl.reporting.published` has the published block."""
    config = results.config
    records = [_measured_record(results, group) for group in groups(results) if group.target.finetuned]
    tested = dict.fromkeys(f"split {t.test} of {t.dataset}" for t in config.finetuned_targets)
    beside = any(r.get("published") is not None for r in records)
    shown = {"Published %": lambda r: number(r.get("published"), 1)} if beside else {}
    return table_of(
        "table1",
        "Table 1. Action classification, measured",
        records,
        {
            "Method": lambda r: r["title"],
            "Origin": lambda r: r["origin"],
            "Backbone": lambda r: r["backbone"],
            "Pretrained on": lambda r: r["pretrain"],
            "Clip": lambda r: r["clip"] or DASH,
            "Views": lambda r: r["views"] or DASH,
            "Epochs": lambda r: r["epochs"] or DASH,
            "Target": lambda r: r["target"],
            "Top-1 %": lambda r: mean_sd(r["top1"] / 100, r["top1_std"] / 100),
            **shown,
            "Seeds": lambda r: r["averaged"],
            "Test videos": lambda r: r["test_videos"] or DASH,
            "Chance %": lambda r: number(r["chance"], 1),
            "Majority %": lambda r: number(r["majority"], 1),
            "Source": lambda r: r["source"],
        },
        (*TABLE1_CSV, *_draws(config), *(("published",) if beside else ())),
        caption=f"Top-1 accuracy after finetuning, from this run, on "
        f"{' and '.join(tested) or 'no target: none is finetuned'}. {banner(config)} {_spread(config)} {MAJORITY} Clip is frames x pixels at test time, "
        "Views the clips x crops whose softmax is averaged."
        + (" Published % is what others report for their weights on the same target." if beside else ""),
        notes=of_table(results, "The finetuning of", "metrics.json") + foreign_notes(config),
        wide=("Source",),
    )


def foreign_notes(config: Config) -> list[str]:
    """A sentence on each method that was not pretrained here."""
    found = {}
    for model, method, given in foreign_of(config):
        where = f" ({given.source})" if given.source else ""
        found.setdefault(method, []).append(f"{model}: {given.file.name}, trained on {given.trained_on}{where}")
    return [
        f"{config.title(method)} was not pretrained by this pipeline: others' weights were taken as they are, {'; '.join(files)}."
        for method, files in found.items()
    ]


def _measured_record(results: Results, group: Group) -> dict[str, Any]:
    """A row of Table 1."""
    config, model, method, runs = results.config, group.model, group.method, group.runs
    recipe = config.finetune_of(group.target.name, model)
    done, trained = runs[runs["top1"].notna()], config.switches(method).pretrain
    foreign = config.foreign(model, method)
    unfinished = (
        "" if len(done) == len(runs) else f"; {len(done)} of {len(runs)} {'seeds' if group.draws == 1 else 'runs'} finished"
    )
    return {
        "method": method,
        "title": config.title(method),
        "origin": "measured",
        "group": "measured",
        "kind": kind_of(config),
        "backbone": f"{model} ({config.models[model].backbone})",
        "pretrain": foreign.trained_on if foreign else "+".join(config.pretrain.datasets) if trained else "none",
        "clip": f"{recipe.frames}x{recipe.test_size}",
        "views": f"{recipe.test_clips}x{recipe.test_crops}",
        "epochs": str(config.pretrain_of(model, method).epochs) if trained else "",
        "target": group.shown,
        "top1": done["top1"].mean() * 100,
        "top1_std": done["top1"].std(ddof=1) * 100,
        "seeds": len(done) if group.draws == 1 else done["seed"].nunique(),
        "averaged": group.seeds(done),
        "draws": group.draws,
        "test_videos": span(done["videos"]),
        "chance": done["chance"].mean() * 100,
        "majority": done["majority"].mean() * 100,
        "source": f"{config.name}, {kind_of(config)}{unfinished}"
        + (f"; weights: {foreign.source}" if foreign and foreign.source else ""),
        "cards": {"Top-1 %": cards_in(done["finetune_card"])},
    } | (_of_others(foreign, group) if foreign else {})


def _of_others(given: ForeignWeights, group: Group) -> dict[str, Any]:
    """What a row of others' weights has besides: the published number, and the run card that has the hash of the file."""
    runs = group.runs
    adopted = cards_in(runs["pretrain_card"]) if "pretrain_card" in runs else []
    cards = {"Top-1 %": cards_in(runs[runs["top1"].notna()]["finetune_card"]), "Pretrained on": adopted}
    return {"published": given.published_on(group.name, group.fold_alone), "cards": cards}


def table3(results: Results) -> Table:
    """Table 3: every measure of every method, mean and standard deviation over the seeds."""
    config = results.config
    other = [
        f"{r.metric} {r.value} ({r.method}, {r.backbone})"
        for r in published().itertuples()
        if r.table == "headline" and "UCF101" in r.metric
    ]
    notes = of_table(results, "The frozen tests", "The predictions") + results.notes + foreign_notes(config)
    if not any(target.frozen for target in config.targets):
        notes.append("The frozen features were not evaluated: no target asks for a measure of them.")

    if len(config.seeds) == 1:
        notes.append("One seed: no error bar on any of these numbers.")

    def percent(column: Column) -> Callable[[dict[str, Any]], str]:
        return lambda r: mean_sd(r[column.key] / 100, r[f"{column.key}_std"] / 100)

    return table_of(
        "table3",
        "Table 3. All measures",
        [_measures_record(results, group) for group in groups(results)],
        _target(config)
        | {
            "Model": lambda r: r["model"],
            "Method": lambda r: r["title"],
            "Seeds": lambda r: r["averaged"],
            **{column.title: percent(column) for column in results.columns},
            "Chance": lambda r: number(r["chance"], 1),
            "Majority": lambda r: number(r["majority"], 1),
        },
        (
            "target",
            "model",
            "method",
            "kind",
            "seeds",
            *(f"{c.key}{s}" for c in results.columns for s in ("", "_std")),
            "chance",
            "majority",
            *_draws(config),
        ),
        caption=f"All measures on {' and '.join(dict.fromkeys(t.shown for t in config.targets))}, in percent. {_measured_how(config)} {banner(config)} {_spread(config)} {MAJORITY} Published on other data sets, "
        f"for orientation only: {'; '.join(other)}.",
        notes=notes,
    )


def _measured_how(config: Config) -> str:
    """Which columns of Table 3 are measured after finetuning, and which on the frozen backbone."""
    finetuned, frozen = bool(config.finetuned_targets), any(t.frozen or t.linear_evaluated for t in config.targets)
    said = ["Top-1 and top-5 are measured after finetuning"] if finetuned else []
    if frozen:
        said.append(
            f"{'the others use' if finetuned else 'All use'} the frozen backbone (randomly initialised for a method without pretraining)"
        )
    return "; ".join(said) + "."


def _draws(config: Config) -> tuple[str, ...]:
    """The column of the CSV with the number of draws, where a target has several."""
    return ("draws",) if any(t.draws_of for t in config.targets) else ()


def _target(config: Config) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The column that names the target, where there are several."""
    return {"Target": lambda r: r["target"]} if len(config.targets) > 1 else {}


def _measures_record(results: Results, group: Group) -> dict[str, Any]:
    """A row of Table 3: mean and sample standard deviation of each measure over the seeds, in percent."""
    runs = group.runs
    measured = runs[[column.key for column in results.columns]].notna().any(axis=1)
    record = {
        "target": group.shown,
        "model": group.model,
        "method": group.method,
        "title": results.config.title(group.method),
        "kind": kind_of(results.config),
        "seeds": int(measured.sum()) if group.draws == 1 else runs[measured]["seed"].nunique(),
        "averaged": group.seeds(runs[measured]),
        "draws": group.draws,
        "chance": runs["chance"].mean() * 100,
        "majority": runs["majority"].mean() * 100,
        "group": "measured",
        "cards": {c.title: cards_in(runs[runs[c.key].notna()][f"{c.stage}_card"]) for c in results.columns},
    }
    for column in results.columns:
        record |= {column.key: 100 * runs[column.key].mean(), f"{column.key}_std": 100 * runs[column.key].std(ddof=1)}
    return record


def runs_table(results: Results) -> Table:
    """One row per run."""
    records = []
    for row in results.runs.to_dict("records"):
        linked = {
            c.title: [row[f"{c.stage}_card"]] for c in results.columns if row[f"{c.stage}_card"] and not pd.isna(row[c.key])
        }
        records.append(row | {"group": "measured", "cards": linked})

    def percent(column: Column) -> Callable[[dict[str, Any]], str]:
        return lambda r: number(100 * r[column.key], 1)

    return table_of(
        "runs",
        "Every run",
        records,
        _target(results.config)
        | {
            "Model": lambda r: r["model"],
            "Method": lambda r: results.config.title(r["method"]),
            "Seed": lambda r: str(r["seed"]),
            **{column.title: percent(column) for column in results.columns},
            "Test videos": lambda r: str(r["videos"]),
            "Skipped": lambda r: str(r["skipped"]),
        },
        ("target", "model", "method", "seed", *(c.key for c in results.columns), "videos", "skipped", "chance", "majority"),
        caption="One row per target, model, method and seed, in percent. The CSV holds shares in [0, 1].",
    )
