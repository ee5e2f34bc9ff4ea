"""The tables that are not accuracies: what the data was, how exact the flow is, what it cost."""

from __future__ import annotations

import math
from numbers import Real

import pandas as pd

from mscl.reporting.formats import Table
from mscl.reporting.results import Results
from mscl.reporting.tables import DASH, of_table

LISTED = 50  # unusable videos shown on the page; the CSV holds all


def data_table(results: Results) -> Table:
    """Videos of each data set and split by status, from data.json (`mscl.datasets.health`)."""
    entries, notes = results.data or {}, of_table(results, "The health of the data")
    statuses = list(dict.fromkeys(["ok", *(s for e in entries.values() for counts in e.get("counts", {}).values() for s in counts)]))
    rows = []
    for name, entry in entries.items():
        for split, counts in entry.get("counts", {}).items():
            rows.append([name, split, str(sum(counts.values())), *(str(counts.get(status, 0)) for status in statuses)])
        if entry.get("flow"):
            notes.append(f"Flow of {name}: " + ", ".join(f"{count} {status}" for status, count in entry["flow"].items()) + ".")
        if entry.get("no_allowed_start"):
            notes.append(f"MDS allows no start in {entry['no_allowed_start']} videos of {name}; they start at frame 0.")
    caption = "Annotated videos by status. Only 'ok' videos are trained or tested on; the others are named below with the reason."
    return Table("data", "Videos by status", pd.DataFrame(rows, columns=["Data set", "Split", "Videos", *statuses]), caption if rows else "", notes)


def unusable_table(results: Results) -> Table:
    """Every video that could not be used whole, and why."""
    rows = [
        [name, str(item.get("split", DASH)), part, *(str(item.get(k, "")) for k in ("clip_id", "status", "reason"))]
        for name, entry in (results.data or {}).items() for key, part in (("not_ok", "frames"), ("flow_not_ok", "flow")) for item in entry.get(key, [])
    ]
    frame = pd.DataFrame(rows, columns=["Data set", "Split", "Part", "Video", "Status", "Reason"])
    notes = [] if rows or results.data is None else ["Every annotated video could be used."]
    if len(frame) > LISTED:
        notes.append(f"The first {LISTED} of {len(frame)}; unusable.csv holds all.")
    return Table("unusable", "Videos not used, or not whole", frame.head(LISTED), "", notes, data=frame, wide=("Reason",))


def flow_error_table(results: Results) -> Table | None:
    """What flow_error.json holds: a row per entry of it. None when there is no such file."""
    if results.flow_error is None:
        return None
    frame = pd.DataFrame(_records(results.flow_error))
    shown = frame.map(_number).rename(columns=lambda c: str(c).replace("_", " "))
    caption = "Stored optical flow against the exact flow of the generated videos; errors are end-point errors in pixels unless a column says otherwise."
    return Table("flow_error", "Flow error", shown, caption, data=frame)


def _records(value: object, where: tuple[str, ...] = ()) -> list[dict]:
    """Rows of a nested document: a dict of plain values is a row, a dict or a list of dicts gives a row each."""
    if isinstance(value, list):
        return [row for item in value if isinstance(item, dict) for row in _records(item, where)]
    if not isinstance(value, dict):
        return []
    plain = {k: v for k, v in value.items() if not isinstance(v, (dict, list))}
    nested = {k: v for k, v in value.items() if isinstance(v, dict) or (isinstance(v, list) and v and isinstance(v[0], dict))}
    own = [({"of": " / ".join(where)} if where else {}) | plain] if plain else []
    return own + [row for key, item in nested.items() for row in _records(item, (*where, str(key)))]


def _number(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    return f"{value:.4g}" if isinstance(value, Real) and not isinstance(value, (bool, int)) else str(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def compute_table(results: Results) -> Table:
    """Time and memory of every stage, from the run cards."""
    shown, data, cards = [], [], {}
    for card in results.cards.values():
        seconds, memory = card.content.get("wall_seconds"), card.content.get("peak_memory_mb")
        cards[len(shown), "Time"] = [card.id]
        who = [card.where.get(k, "").removeprefix("seed") or DASH for k in ("stage", "model", "method", "seed")]
        shown.append([*who, DASH if seconds is None else duration(seconds), DASH if memory is None else f"{memory:,.0f}"])
        data.append([*who, seconds, memory])
    frame = pd.DataFrame(shown, columns=["Stage", "Model", "Method", "Seed", "Time", "Peak MB"])
    machine = pd.DataFrame(data, columns=["stage", "model", "method", "seed", "wall_seconds", "peak_memory_mb"])
    total = duration(float(pd.to_numeric(machine["wall_seconds"], errors="coerce").sum()))
    hardware = sorted({_hardware(card.content.get("hardware")) for card in results.cards.values()} - {""})
    caption = f"Wall time and peak memory of each run; {total} in all." + (f" Hardware: {'; '.join(hardware)}." if hardware else "")
    return Table("compute", "Compute", frame, caption if len(frame) else "", of_table(results, "The run card"), machine, cards)


def _hardware(value: object) -> str:
    """A run card's hardware on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v not in (None, "", [], {}))
    return str(value or "")
