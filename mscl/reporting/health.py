"""The tables that are not accuracies: what the data was, how exact the flow is, what it cost."""

from __future__ import annotations

import math

import pandas as pd

from mscl.reporting.formats import DASH, Table
from mscl.reporting.results import Results
from mscl.reporting.tables import of_table

LISTED = 50  # unusable videos shown on the page; the CSV holds all


def data_table(results: Results) -> Table:
    """Videos of each data set and split by status, from data.json (`mscl.datasets.health`)."""
    entries, notes = results.data or {}, of_table(results, "The health of the data")
    statuses = list(
        dict.fromkeys(["ok", *(s for e in entries.values() for counts in e.get("counts", {}).values() for s in counts)])
    )
    rows = []
    for name, entry in entries.items():
        for split, counts in entry.get("counts", {}).items():
            rows.append([name, split, str(sum(counts.values())), *(str(counts.get(status, 0)) for status in statuses)])
        notes += [f"{name}: {note}." for note in entry.get("notes", [])]
        if entry.get("flow"):
            notes.append(f"Flow of {name}: " + ", ".join(f"{count} {status}" for status, count in entry["flow"].items()) + ".")
        if entry.get("no_allowed_start"):
            notes.append(f"MDS allows no start in {entry['no_allowed_start']} videos of {name}; they start at frame 0.")
    caption = "Annotated videos by status. Only 'ok' videos are trained or tested on; the others are named below with the reason."
    return Table(
        "data",
        "Videos by status",
        pd.DataFrame(rows, columns=["Data set", "Split", "Videos", *statuses]),
        caption if rows else "",
        notes,
    )


def unusable_table(results: Results) -> Table:
    """Every video that could not be used whole, and why."""
    rows = [
        [name, str(item.get("split", DASH)), part, *(str(item.get(k, "")) for k in ("clip_id", "status", "reason"))]
        for name, entry in (results.data or {}).items()
        for key, part in (("not_ok", "frames"), ("flow_not_ok", "flow"))
        for item in entry.get(key, [])
    ]
    frame = pd.DataFrame(rows, columns=["Data set", "Split", "Part", "Video", "Status", "Reason"])
    notes = [] if rows or results.data is None else ["Every annotated video could be used."]
    if len(frame) > LISTED:
        notes.append(f"The first {LISTED} of {len(frame)}; unusable.csv holds all.")
    return Table("unusable", "Videos not used, or not whole", frame.head(LISTED), "", notes, data=frame, wide=("Reason",))


FLOW_MEASURES = {
    "epe_mean": "Mean end-point error",
    "epe_median": "Median end-point error",
    "epe_object": "Mean end-point error where something moves",
    "epe_zero": "Mean end-point error of answering no motion",
    "epe_zero_object": "Mean end-point error of answering no motion, where something moves",
    "epe_relative": "Mean error / mean length of the motion",
    "epe_quantisation": "Mean error of storing the exact flow in 8 bits",
    "object_share": "Share of pixels where something moves",
    "grid": "Grid of the fields (H x W)",
    "method": "Flow method",
    "clips": "Videos compared",
    "fields": "Fields compared",
}


def flow_error_table(results: Results) -> Table | None:
    """What flow_error.json (`mscl.flow.error`) says. None when there is no such file."""
    if not isinstance(results.flow_error, dict):
        return None
    known = [*(k for k in FLOW_MEASURES if k in results.flow_error), *(k for k in results.flow_error if k not in FLOW_MEASURES)]
    rows = [[FLOW_MEASURES.get(k, k), _number(results.flow_error[k])] for k in known]
    caption = (
        "Stored optical flow against the exact flow of the generated videos. End-point errors are in pixels of the stored grid."
    )
    data = pd.DataFrame([[k, _number(results.flow_error[k])] for k in known], columns=["measure", "value"])
    return Table("flow_error", "Flow error", pd.DataFrame(rows, columns=["Measure", "Value"]), caption, data=data)


def _number(value: object) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def compute_table(results: Results) -> Table:
    """Time and memory of every stage, from the run cards: means over the seeds; the CSV holds each run."""
    keys = ["stage", "model", "method"]
    columns = [*keys, "seed", "wall_seconds", "peak_memory_mb", "id"]
    rows = [
        [
            *(card.where.get(k, "").removeprefix("seed") for k in (*keys, "seed")),
            card.content.get("wall_seconds"),
            card.content.get("peak_memory_mb"),
            card.id,
        ]
        for card in results.cards.values()
    ]
    runs, shown, cards = pd.DataFrame(rows, columns=columns), [], {}
    runs[["wall_seconds", "peak_memory_mb"]] = runs[["wall_seconds", "peak_memory_mb"]].apply(pd.to_numeric, errors="coerce")
    order = {stage: place for place, stage in enumerate(("pretrain", "finetune", "frozen", "analysis"))}
    for key, part in sorted(runs.groupby(keys, sort=False), key=lambda item: order.get(item[0][0], len(order))):
        cards[len(shown), "Mean time"] = part["id"].tolist()
        seconds, memory = part["wall_seconds"].mean(), part["peak_memory_mb"].max()
        shown.append(
            [
                *(k or DASH for k in key),
                str(len(part)),
                DASH if math.isnan(seconds) else duration(seconds),
                DASH if math.isnan(memory) else f"{memory:.0f}",
            ]
        )
    frame = pd.DataFrame(shown, columns=["Stage", "Model", "Method", "Runs", "Mean time", "Peak MB"])
    hardware = sorted({_hardware(card.content.get("hardware")) for card in results.cards.values()} - {""})
    caption = f"Wall time and peak memory; {duration(float(runs['wall_seconds'].sum()))} in all." + (
        f" Hardware: {'; '.join(hardware)}." if hardware else ""
    )
    data = runs.drop(columns="id").assign(card=[f"cards/{c}.json" for c in runs["id"]])
    return Table("compute", "Compute", frame, caption if shown else "", of_table(results, "The run card"), data, cards)


def _hardware(value: object) -> str:
    """A run card's hardware on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{v} cores" if k == "cores" else str(v) for k, v in value.items() if v not in (None, "", [], {}))
    return str(value or "")
