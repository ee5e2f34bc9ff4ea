"""Table 2: confusing pairs, as measured and as published."""

from __future__ import annotations

import pandas as pd

from mscl.config.methods import title
from mscl.measures.confusion import FORMULA, NO_PAIRS
from mscl.reporting.formats import Table
from mscl.reporting.results import Results
from mscl.reporting.tables import of_table, published


def table2(results: Results) -> Table:
    """The measured confusing pairs of every model."""
    config, shown, data, bold, cards, parts = results.config, [], [], set(), {}, []
    names: list[str] = []
    for model, pairs in results.pairs.items():
        ranked = pairs[pairs["block"] != ""]
        names = [str(pairs[f"{s}_method"].iloc[0]) for s in ("left", "right")] if len(pairs) else names
        for row in ranked.itertuples():
            line = len(shown)
            counts = {"left": row.left_confused, "right": row.right_confused}
            shares = {"left": row.left_proportion, "right": row.right_proportion}
            best = min(shares, key=shares.get) if shares["left"] != shares["right"] else ""
            alone = row.left_method == row.right_method
            shown.append(
                [
                    model,
                    title(row.left_method if row.block == "left" else row.right_method),
                    f"{row.a} | {row.b}",
                    *map(str, counts.values()),
                    str(row.right_videos),
                ]
            )
            parts.append(row.block)
            if best and not alone:
                bold.add((line, {"left": "Baseline", "right": "MSCL"}[best]))
            runs = results.runs[(results.runs["model"] == model)]
            for side, column in (("left", "Baseline"), ("right", "MSCL")):
                method = getattr(row, f"{side}_method")
                cards[line, column] = [c for c in runs[runs["method"] == method]["finetune_card"] if c]
            data.append(row._asdict() | {"model": model})
    left, right = map(title, names or ("baseline", "mscl"))
    columns = ["Model", "Most confusing to", "Confusing pair", "Baseline", "MSCL", "Videos"]
    frame = pd.DataFrame(shown, columns=columns)
    titles = {"Baseline": left, "MSCL": right}
    if left == right:
        frame, cards = frame.drop(columns="Baseline"), {k: v for k, v in cards.items() if k[1] != "Baseline"}
    frame = frame.rename(columns=titles)
    if len(results.pairs) < 2:
        frame = frame.drop(columns="Model")
    seeds = len(config.seeds)
    over = "one seed" if seeds == 1 else f"{seeds} seeds"
    caption = (
        f"First the pairs most confusing to {left} on which {right} is better, "
        f"then the pairs most confusing to {right} on which it is not; the better count "
        f"is bold. Counts over {over}; Videos is the denominator. {FORMULA}"
    )
    notes = of_table(results, "The table of confusing pairs")
    notes += [f"{model}: {NO_PAIRS}" for model, pairs in results.pairs.items() if pairs.empty]
    machine = pd.DataFrame(data).drop(columns="Index", errors="ignore")
    return Table(
        "table2",
        "Table 2. Confusing pairs, measured",
        frame,
        caption if len(frame) else FORMULA,
        notes,
        machine if len(machine) else None,
        {(row, titles[column]): found for (row, column), found in cards.items()},
        {(row, titles[column]) for row, column in bold},
        wide=("Confusing pair",),
        groups=parts,
    )


def table2_published() -> Table:
    """The supplement's Table 2."""
    papers = published()
    papers = papers[papers["table"] == "table2"]
    wide = papers.pivot(index="metric", columns="method", values="value").loc[list(dict.fromkeys(papers["metric"]))]
    frame = wide.reset_index().rename(columns={"metric": "Confusing pair"})[["Confusing pair", "Baseline", "MSCL"]]
    bold = {(row, "MSCL" if int(pair.MSCL) < int(pair.Baseline) else "Baseline") for row, pair in enumerate(frame.itertuples())}
    half = len(frame) // 2
    caption = (
        "Published: the supplement's Table 2, SSv2, R50, copied. "
        "Top rows: most confusing to the baseline; bottom rows: most confusing to MSCL."
    )
    frame.columns.name = None
    return Table(
        "table2_published",
        "Table 2. Confusing pairs, published",
        frame,
        caption,
        bold=bold,
        wide=("Confusing pair",),
        groups=["left published"] * half + ["right published"] * (len(frame) - half),
    )
