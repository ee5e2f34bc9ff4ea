"""Table 2: confusing pairs, as measured and as published."""

from __future__ import annotations

from functools import partial
from typing import Any

from mscl.measures.confusion import FORMULA, NO_PAIRS
from mscl.reporting.formats import Table, table_of
from mscl.reporting.results import Results, cards_in
from mscl.reporting.tables import of_table, published
from mscl.stages.build import compared

SIDES = ("left", "right")  # the columns of Table 2: baseline, MSCL


def table2(results: Results) -> Table:
    """The measured confusing pairs of every model. When only one method was run, it has a single column of counts."""
    config = results.config
    methods = {model: _methods(results, model) for model in dict.fromkeys(model for _, model in results.pairs)}
    same = len(set(methods.values())) < 2
    own = next(iter(methods.values()), None) or _methods(results, next(iter(config.models)))
    titles = dict(zip(SIDES, map(config.title, own) if same else ("First method", "Second method")))
    records = [
        _record(results, target, model, row, titles)
        for (target, model), pairs in results.pairs.items()
        for row in pairs[pairs["block"] != ""].to_dict("records")
    ]
    left, right = titles.values()
    counts = {title: partial(_count, side) for side, title in titles.items()}
    shown = {
        "Target": lambda r: r["target"],
        "Model": lambda r: r["model"],
        **({} if same else {"Methods": lambda r: " and ".join(map(config.title, methods[r["model"]]))}),
        "Most confusing to": lambda r: titles[r["block"]],
        "Confusing pair": lambda r: f"{r['a']} | {r['b']}",
        **counts,
        "Videos": lambda r: str(r["right_videos"]),
    }
    for place, name in enumerate(("Target", "Model")):
        if len({key[place] for key in results.pairs}) < 2:
            del shown[name]
    seeds = len(config.seeds)
    caption = (
        f"First the pairs that {left} confuses most and {right} confuses less; "
        f"then the pairs that {right} confuses most and does not confuse less than {left}. The better count "
        f"is bold. Counts over {'one seed' if seeds == 1 else f'{seeds} seeds'}; Videos is the denominator. {FORMULA}"
    )
    notes = of_table(results, "The table of confusing pairs")
    notes += [f"{model} on {target}: {NO_PAIRS}" for (target, model), pairs in results.pairs.items() if pairs.empty]
    columns = [c for pairs in list(results.pairs.values())[:1] for c in pairs.columns]
    return table_of(
        "table2",
        "Table 2. Confusing pairs, measured",
        records,
        shown,
        (*columns, "target", "model") if records else tuple(shown),
        caption=caption if records else FORMULA,
        notes=notes,
        wide=("Confusing pair",),
    )


def _count(side: str, record: dict[str, Any]) -> str:
    """The number of confused videos of one side, as text."""
    return str(record[f"{side}_confused"])


def _methods(results: Results, model: str) -> tuple[str, str]:
    """The two compared methods of a model: those of its pairs.csv, else those that the configuration gives."""
    for (_, of), pairs in results.pairs.items():
        if of == model and len(pairs):
            return str(pairs["left_method"].iloc[0]), str(pairs["right_method"].iloc[0])
    return compared(results.config, model)


def _record(results: Results, target: str, model: str, row: dict[str, Any], titles: dict[str, str]) -> dict[str, Any]:
    """A row of pairs.csv with its run cards, and with the better side in bold."""
    runs = results.runs[(results.runs["target"] == target) & (results.runs["model"] == model)]
    cards = {titles[s]: cards_in(runs[runs["method"] == row[f"{s}_method"]]["finetune_card"]) for s in SIDES}
    shares = {side: row[f"{side}_proportion"] for side in SIDES}
    differ = shares["left"] != shares["right"] and row["left_method"] != row["right_method"]
    best = [titles[min(shares, key=shares.get)]] if differ else []
    return row | {"target": target, "model": model, "cards": cards, "bold": best, "group": row["block"]}


def table2_published() -> Table:
    """Table 2 as printed in the supplement."""
    papers = published()
    papers = papers[papers["table"] == "table2"]
    wide = papers.pivot(index="metric", columns="method", values="value").loc[list(dict.fromkeys(papers["metric"]))]
    half = len(wide) // 2
    records = [
        {
            "pair": pair,
            "Baseline": row["Baseline"],
            "MSCL": row["MSCL"],
            "bold": ["MSCL" if int(row["MSCL"]) < int(row["Baseline"]) else "Baseline"],
            "group": "left published" if number < half else "right published",
        }
        for number, (pair, row) in enumerate(wide.iterrows())
    ]
    return table_of(
        "table2_published",
        "Table 2. Confusing pairs, published",
        records,
        {"Confusing pair": lambda r: r["pair"], "Baseline": lambda r: r["Baseline"], "MSCL": lambda r: r["MSCL"]},
        ("pair", "Baseline", "MSCL"),
        caption="Copied from the supplement's Table 2 (SSv2, R50). "
        "Top rows: the pairs that the baseline confuses most. Bottom rows: the pairs that MSCL confuses most.",
        wide=("Confusing pair",),
    )
