"""Tables of published numbers alone, apart from what the run measured: the paper's on SSv2, and other methods' for orientation."""

from __future__ import annotations

from typing import Any

from mscl.reporting.formats import DASH, Table, table_of
from mscl.reporting.tables import published

KEYS = ("method", "backbone", "pretrain", "epochs")  # what a row of the table of orientation is told apart by


def table1_published() -> Table:
    """The SSv2 numbers of the supplement's Table 1 and of the abstract."""
    papers = published()
    papers = papers[(papers["metric"] == "SSv2 top-1") & papers["table"].isin(["table1", "headline"])]
    return table_of(
        "table1_published",
        "Table 1. Action classification, published",
        [row | {"group": "published"} for row in papers.to_dict("records")],
        {
            "Method": lambda r: r["method"],
            "Origin": lambda r: "published",
            "Backbone": lambda r: r["backbone"],
            "Pretrained on": lambda r: r["pretrain"],
            "Clip": lambda r: r["size"] or DASH,
            "Epochs": lambda r: r["epochs"] or DASH,
            "Target": lambda r: "SSv2",
            "Top-1 %": lambda r: r["value"],
            "Source": _source,
        },
        ("method", "backbone", "pretrain", "size", "epochs", "value", "source", "note"),
        caption="Top-1 accuracy on SSv2 after finetuning, copied from the source. Only what this run measured on the whole of SSv2, with the paper's recipe, "
        "may be compared with it.",
        wide=("Source",),
    )


def orientation_table() -> Table:
    """The numbers that others have published, one row per pretrained network and one column per measure."""
    papers = published()
    papers = papers[papers["table"].isin(["headline", "orientation"])]
    metrics = list(dict.fromkeys(papers["metric"]))
    records: list[dict[str, Any]] = []
    for _, rows in papers.groupby(list(KEYS), sort=False):
        first = rows.iloc[0].to_dict()
        records.append(first | dict(zip(rows["metric"], rows["value"], strict=True)) | {"group": "published"})
    return table_of(
        "orientation",
        "Table of orientation: published by others, under other recipes",
        records,
        {
            "Method": lambda r: r["method"],
            "Backbone": lambda r: r["backbone"],
            "Pretrained on": lambda r: r["pretrain"],
            "Epochs": lambda r: r["epochs"] or DASH,
            **{metric: lambda r, metric=metric: r.get(metric, DASH) for metric in metrics},
            "Source": _source,
        },
        (*KEYS, *metrics, "source", "note"),
        caption="Nothing in this table was measured by this run. Recipes, networks and clips differ from those of the run and between the rows, "
        "so a difference to a measured number is no difference between methods. In percent, as printed in the source.",
        wide=("Source",),
    )


def _source(row: dict[str, Any]) -> str:
    return f"{row['source']}; {row['note']}" if row["note"] else row["source"]
