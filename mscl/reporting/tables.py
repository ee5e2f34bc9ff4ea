"""The tables of accuracy: published rows beside measured ones, never mixed up."""

from __future__ import annotations

import math
from importlib.resources import files

import pandas as pd

from mscl.config.methods import title
from mscl.config.schema import Config
from mscl.reporting.formats import Table
from mscl.reporting.results import RETRIEVAL, Results

KIND = {
    "demo": "Demo numbers are not paper numbers: they show that the whole path runs, on generated videos and tiny "
    "networks, and say nothing about the method.",
    "evidence": "Evidence on generated videos: differences between methods can be read, "
    "absolute numbers cannot be compared with the paper's.",
    "real": "Real videos, but not the paper's recipe: numbers cannot be compared with the paper's one to one.",
    "paper": "The paper's data and recipe, as far as they are known: measured rows may be compared with published ones.",
}
NAMES = {"top1": "Top-1", "top5": "Top-5", "probe": "Probe top-1", "r1": "R@1", "r5": "R@5", "r10": "R@10"}
STAGE_OF = {"top1": "finetune", "top5": "finetune", "probe": "frozen"} | {f"r{k}": "frozen" for k in RETRIEVAL}
SPREAD = "Mean ± sample standard deviation over the seeds, in percent; no ± with one seed."
DASH = "–"


def published() -> pd.DataFrame:
    """The numbers printed in the paper's supplement and abstract, as text."""
    return pd.read_csv(files("mscl.reporting") / "published.csv", dtype=str, keep_default_na=False)


def percent(values: pd.Series) -> str:
    """Mean ± sample standard deviation of shares, in percent; a dash when there is none."""
    known = values.dropna()
    if known.empty:
        return DASH
    mean = f"{100 * known.mean():.1f}"
    return mean if len(known) == 1 else f"{mean} ± {100 * known.std(ddof=1):.1f}"


def span(values: pd.Series) -> str:
    """A count that is the same in every run, or its range."""
    known = sorted({int(v) for v in values})
    return DASH if not known else str(known[0]) if len(known) == 1 else f"{known[0]}–{known[-1]}"


def groups(results: Results) -> list[tuple[str, str, pd.DataFrame]]:
    """(model, method, its runs) in the configuration's order."""
    runs = results.runs
    return [
        (m, k, runs[(runs["model"] == m) & (runs["method"] == k)]) for m in results.config.models for k in results.config.methods
    ]


def of_table(results: Results, *begins: str) -> list[str]:
    """What is missing that begins with one of the words."""
    return [sentence for sentence in results.missing if sentence.startswith(begins)]


def table1(results: Results) -> Table:
    """Top-1 on SSv2 as published, and on the target data set as measured."""
    config, shown, data, cards = results.config, [], [], {}
    papers = published()
    for row in papers[papers["metric"] == "SSv2 top-1"].itertuples():
        note = f"{row.source}; {row.note}" if row.note else row.source
        shown.append(
            [
                row.method,
                "published",
                row.backbone,
                row.pretrain,
                row.size or DASH,
                row.epochs or DASH,
                "SSv2",
                row.value,
                DASH,
                DASH,
                DASH,
                note,
            ]
        )
        data.append(
            [
                row.method,
                "published",
                "",
                row.backbone,
                row.pretrain,
                row.size,
                row.epochs,
                "SSv2",
                float(row.value),
                None,
                0,
                None,
                None,
                note,
            ]
        )
    for model, method, runs in groups(results):
        done = runs[runs["top1"].notna()]
        recipe, trained = config.models[model], config.switches(method).pretrain
        source, epochs = ("+".join(config.pretrain.datasets), str(recipe.pretrain.epochs)) if trained else ("none", DASH)
        size = f"{recipe.finetune.frames}x{recipe.finetune.test_size}"
        chance = done["chance"].mean() * 100
        note = f"{config.name}, {config.kind}" + (
            "" if len(done) == len(runs) else f"; {len(done)} of {len(runs)} seeds finished"
        )
        cards[len(shown), "Top-1 %"] = [c for c in done["finetune_card"] if c]
        shown.append(
            [
                title(method),
                "measured",
                f"{model} ({recipe.backbone})",
                source,
                size,
                epochs,
                config.finetune.dataset,
                percent(done["top1"]),
                str(len(done)),
                span(done["videos"]),
                DASH if math.isnan(chance) else f"{chance:.1f}",
                note,
            ]
        )
        mean, std = done["top1"].mean() * 100, done["top1"].std(ddof=1) * 100
        data.append(
            [
                method,
                "measured",
                config.kind,
                f"{model} ({recipe.backbone})",
                source,
                size,
                epochs if trained else "",
                config.finetune.dataset,
                mean,
                std,
                len(done),
                span(done["videos"]),
                chance,
                note,
            ]
        )
    columns = [
        "Method",
        "Origin",
        "Backbone",
        "Pretrained on",
        "Clip",
        "Epochs",
        "Target",
        "Top-1 %",
        "Seeds",
        "Test videos",
        "Chance %",
        "Source",
    ]
    machine = [
        "method",
        "origin",
        "kind",
        "backbone",
        "pretrain",
        "clip",
        "epochs",
        "target",
        "top1",
        "top1_std",
        "seeds",
        "test_videos",
        "chance",
        "source",
    ]
    target = f"split {config.finetune.test} of {config.finetune.dataset}"
    caption = (
        f"Top-1 accuracy after finetuning. Published rows are SSv2 numbers copied from their source. "
        f"Measured rows are {target}, by this run. "
        f"{KIND[config.kind]} {SPREAD} Clip is frames x pixels at test."
    )
    return Table(
        "table1",
        "Table 1. Action classification",
        pd.DataFrame(shown, columns=columns),
        caption,
        of_table(results, "The finetuning of", "metrics.json"),
        pd.DataFrame(data, columns=machine),
        cards,
        groups=[row[1] for row in shown],
        wide=("Source",),
    )


def measures(config: Config) -> list[str]:
    """The measures this configuration asks for."""
    return list(NAMES) if config.analysis.probe else ["top1", "top5"]


def table3(results: Results) -> Table:
    """Every measure of every method, over the seeds."""
    config, shown, data, cards = results.config, [], [], {}
    wanted = measures(config)
    for model, method, runs in groups(results):
        for name in wanted:
            cards[len(shown), NAMES[name]] = [c for c in runs[runs[name].notna()][f"{STAGE_OF[name]}_card"] if c]
        chance = runs["chance"].mean() * 100
        shown.append(
            [
                model,
                title(method),
                str(int(runs["top1"].notna().sum())),
                *(percent(runs[n]) for n in wanted),
                DASH if math.isnan(chance) else f"{chance:.1f}",
            ]
        )
        spread = {
            f"{n}{suffix}": 100 * value for n in wanted for suffix, value in (("", runs[n].mean()), ("_std", runs[n].std(ddof=1)))
        }
        data.append(
            {"model": model, "method": method, "kind": config.kind, "seeds": int(runs["top1"].notna().sum())}
            | spread
            | {"chance": chance}
        )
    columns = ["Model", "Method", "Seeds", *(NAMES[n] for n in wanted), "Chance"]
    other = [
        f"{r.metric} {r.value} ({r.method}, {r.backbone})"
        for r in published().itertuples()
        if r.table == "headline" and "UCF101" in r.metric
    ]
    caption = (
        f"All measures on {config.finetune.dataset}, in percent. Top-1 and top-5 after finetuning; "
        "probe and retrieval on the frozen backbone (untrained where a method has no pretraining). "
        f"{KIND[config.kind]} {SPREAD} Published on another data set, for orientation only: {'; '.join(other)}."
    )
    notes = of_table(results, "The probe", "The predictions")
    if not config.analysis.probe:
        notes.append("The probe and retrieval were not measured: analysis.probe is false.")
    return Table(
        "table3",
        "Table 3. All measures",
        pd.DataFrame(shown, columns=columns),
        caption,
        notes,
        pd.DataFrame(data),
        cards,
        groups=["measured"] * len(shown),
    )


def runs_table(results: Results) -> Table:
    """Every run by itself."""
    wanted, shown, cards = measures(results.config), [], {}
    for row in results.runs.to_dict("records"):
        for name in wanted:
            card = row[f"{STAGE_OF[name]}_card"]
            cards[len(shown), NAMES[name]] = [card] if card and not math.isnan(row[name]) else []
        numbers = [DASH if math.isnan(row[n]) else f"{100 * row[n]:.1f}" for n in wanted]
        shown.append([row["model"], title(row["method"]), str(row["seed"]), *numbers, str(row["videos"]), str(row["skipped"])])
    columns = ["Model", "Method", "Seed", *(NAMES[n] for n in wanted), "Test videos", "Skipped"]
    data = results.runs[["model", "method", "seed", *wanted, "videos", "skipped", "chance"]]
    return Table(
        "runs",
        "Every run",
        pd.DataFrame(shown, columns=columns),
        "One row per model, method and seed, in percent (the CSV holds shares).",
        data=data,
        cards=cards,
        groups=["measured"] * len(shown),
    )
