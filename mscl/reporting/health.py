"""The tables beside the accuracies: the status of the data, the error of the stored flow, and the cost in time and memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from mscl.config.leaks import seen_in_pretraining
from mscl.config.schema import Config
from mscl.config.targets import Target
from mscl.reporting.formats import DASH, Table, table_of
from mscl.reporting.results import Results
from mscl.reporting.tables import of_table

LISTED = 50  # unusable videos shown on the page; the CSV lists all of them
COST_KEYS = ["stage", "target", "model", "method"]  # one row of the cost table each; the seeds are averaged
STAGE_ORDER = ("adopt", "pretrain", "finetune", "linear", "embed", "frozen", "analysis")


def data_table(results: Results) -> Table:
    """Number of videos of each data set and split by status, from data.json (`mscl.datasets.health`)."""
    entries, notes = results.data or {}, of_table(results, "The data summary")
    found = [status for entry in entries.values() for counts in entry.get("counts", {}).values() for status in counts]
    statuses = list(dict.fromkeys(["ok", *found]))
    rows = []
    for name, entry in entries.items():
        for split, counts in entry.get("counts", {}).items():
            rows.append([name, split, str(sum(counts.values())), *(str(counts.get(status, 0)) for status in statuses)])
        notes += [f"{name}: {note}." for note in entry.get("notes", [])]
        if entry.get("flow"):
            notes.append(f"Flow of {name}: " + ", ".join(f"{count} {status}" for status, count in entry["flow"].items()) + ".")
        if entry.get("no_allowed_start"):
            notes.append(f"MDS allows no start in {entry['no_allowed_start']} videos of {name}; their clips start at frame 0.")
    notes += _overlap(results)
    caption = (
        "Annotated videos by status. Only videos with status 'ok' are used for training and testing. "
        "The others are listed below with the reason."
    )
    return Table(
        "data",
        "Videos by status",
        pd.DataFrame(rows, columns=["Data set", "Split", "Videos", *statuses]),
        caption if rows else "",
        notes,
    )


def _overlap(results: Results) -> list[str]:
    """Sentences on test videos, and videos of the monitor, that a training also sees."""
    config, data = results.config, results.data or {}
    found = [note for target in config.targets for note in _seen(config, target, data)]
    return list(dict.fromkeys([*found, *_watched(config, data)]))


def _seen(config: Config, target: Target, data: dict) -> list[str]:
    notes = [*seen_in_pretraining(config, target)]
    for shared in data.get(target.dataset, {}).get("shared", []):
        if (shared["split"], shared.get("fold")) != (target.test, _other_fold(config, target)):
            continue
        videos = f"Test videos of {target.shown}"
        if _pretrains(config, shared):
            notes += _leaks(shared, videos, _pretraining(shared), ", without their labels")
        if (shared["dataset"], shared["other"]) == (target.dataset, target.train):
            notes += _leaks(shared, videos, f"its training split {shared['other']}", "")
    return notes


def _other_fold(config: Config, target: Target) -> int | None:
    """The fold of a target; None if it is the data set's own."""
    return target.fold if target.fold in config.folds(target.dataset) else None


def _watched(config: Config, data: dict) -> list[str]:
    """Sentences on videos of the k-NN monitor that pretraining sees."""
    if (monitor := config.pretrain.monitor) is None:
        return []
    return [
        sentence
        for shared in data.get(monitor.dataset, {}).get("shared", [])
        if shared["split"] == monitor.split and "fold" not in shared and _pretrains(config, shared)
        for sentence in _leaks(shared, "Videos of the k-NN monitor", _pretraining(shared), "")
    ]


def _pretrains(config: Config, shared: dict) -> bool:
    """Whether pretraining uses the other split of an entry of `mscl.datasets.shared`."""
    return shared["other"] == config.pretrain.split and shared["dataset"] in config.pretrain.datasets


def _pretraining(shared: dict) -> str:
    return f"pretraining (split {shared['other']} of {shared['dataset']})"


def _leaks(shared: dict, videos: str, where: str, how: str) -> list[str]:
    """One sentence per kind of what two splits have in common (an entry of `mscl.datasets.shared`), with examples."""
    of_recordings = f"of {shared.get('recordings', 0)} recordings with clips in"
    kinds = {"videos": "whose files are also in", "copies": "that are exact copies of videos in", "clips": of_recordings}
    return [
        f"{videos} {what} {where}{how}: {shared[kind]}, for example {'; '.join(shared['examples'][kind])}."
        for kind, what in kinds.items()
        if kind in shared
    ]


def unusable_table(results: Results) -> Table:
    """Every video that is not used, or used only in part, with the reason."""
    rows = [
        [name, str(item.get("split", DASH)), part, *(str(item.get(k, "")) for k in ("clip_id", "status", "reason"))]
        for name, entry in (results.data or {}).items()
        for key, part in (("not_ok", "frames"), ("flow_not_ok", "flow"))
        for item in entry.get(key, [])
    ]
    frame = pd.DataFrame(rows, columns=["Data set", "Split", "Part", "Video", "Status", "Reason"])
    notes = [] if rows or results.data is None else ["Every annotated video is usable."]
    if len(frame) > LISTED:
        notes.append(f"The first {LISTED} of {len(frame)} videos; unusable.csv lists all of them.")
    return Table("unusable", "Videos not used, or used in part", frame.head(LISTED), "", notes, data=frame, wide=("Reason",))


FLOW_MEASURES = {
    "epe_mean": "Mean end-point error",
    "epe_median": "Median end-point error",
    "epe_object": "Mean end-point error on moving pixels",
    "epe_zero": "Mean end-point error of predicting zero motion",
    "epe_zero_object": "Mean end-point error of predicting zero motion, on moving pixels",
    "epe_relative": "Mean error / mean length of the motion",
    "epe_quantisation": "Mean error of storing the exact flow in 8 bits",
    "object_share": "Share of moving pixels",
    "grid": "Grid of the fields (H x W)",
    "method": "Flow method",
    "clips": "Videos compared",
    "fields": "Fields compared",
}


def flow_error_table(results: Results) -> Table | None:
    """The values of flow_error.json (`mscl.flow.error`); end-point errors in pixels. None when there is no such file."""
    if not isinstance(results.flow_error, dict):
        return None
    known = [*(k for k in FLOW_MEASURES if k in results.flow_error), *(k for k in results.flow_error if k not in FLOW_MEASURES)]
    rows = [[FLOW_MEASURES.get(k, k), _number(results.flow_error[k])] for k in known]
    caption = "The stored optical flow against the exact flow of the generated videos. End-point errors are in pixels of the stored grid."
    data = pd.DataFrame([[k, _number(results.flow_error[k])] for k in known], columns=["measure", "value"])
    return Table("flow_error", "Flow error", pd.DataFrame(rows, columns=["Measure", "Value"]), caption, data=data)


def _number(value: object) -> str:
    """A value of flow_error.json as text; a list, such as a grid, with ' x ' between its numbers."""
    if isinstance(value, list):
        return " x ".join(map(str, value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """A time in seconds as readable text: "4.0 s", "2 min", "2 h 01 min"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def compute_table(results: Results) -> Table:
    """Wall time and peak memory of every stage, model and method, from the run cards.

    The table shows the mean time over the seeds and the largest peak; its CSV has one row per run, in seconds and MB.
    """
    runs = _run_costs(results)
    order = {stage: place for place, stage in enumerate(STAGE_ORDER)}
    groups = sorted(runs.groupby(COST_KEYS, sort=False), key=lambda group: order.get(group[0][0], len(order)))
    records = [_cost_record(key, part) for key, part in groups]
    hardware = sorted({_hardware(card.content.get("hardware")) for card in results.cards.values()} - {""})
    caption = f"Wall time and peak memory; total time {duration(float(runs['wall_seconds'].sum()))}."
    if hardware:
        caption += f" Hardware: {'; '.join(hardware)}."
    table = table_of(
        "compute",
        "Compute",
        records,
        {
            "Stage": lambda r: r["stage"] or DASH,
            **({"Target": lambda r: r["target"] or DASH} if len(results.config.targets) > 1 else {}),
            "Model": lambda r: r["model"] or DASH,
            "Method": lambda r: r["method"] or DASH,
            "Runs": lambda r: str(r["runs"]),
            "Mean time": lambda r: DASH if math.isnan(r["seconds"]) else duration(r["seconds"]),
            "Peak MB": lambda r: DASH if math.isnan(r["memory"]) else f"{r['memory']:.0f}",
        },
        (),
        caption=caption if records else "",
        notes=of_table(results, "The run card"),
    )
    return replace(table, data=runs.drop(columns="id").assign(card=[f"cards/{c}.json" for c in runs["id"]]))


def _run_costs(results: Results) -> pd.DataFrame:
    """One row per run card: stage, model, method, seed, wall time in seconds, peak memory in MB, id of the card."""
    rows = [
        [
            *(card.where.get(key, "").removeprefix("seed") for key in (*COST_KEYS, "seed")),
            card.content.get("wall_seconds"),
            card.content.get("peak_memory_mb"),
            card.id,
        ]
        for card in results.cards.values()
    ]
    runs = pd.DataFrame(rows, columns=[*COST_KEYS, "seed", "wall_seconds", "peak_memory_mb", "id"])
    runs[["wall_seconds", "peak_memory_mb"]] = runs[["wall_seconds", "peak_memory_mb"]].apply(pd.to_numeric, errors="coerce")
    return runs


def _cost_record(key: tuple[str, ...], part: pd.DataFrame) -> dict[str, Any]:
    """One row of the cost table: the runs of one stage, model and method."""
    costs = {"runs": len(part), "seconds": part["wall_seconds"].mean(), "memory": part["peak_memory_mb"].max()}
    return dict(zip(COST_KEYS, key)) | costs | {"cards": {"Mean time": part["id"].tolist()}}


def _hardware(value: object) -> str:
    """The hardware of a run card on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{v} cores" if k == "cores" else str(v) for k, v in value.items() if v not in (None, "", [], {}))
    return str(value or "")
