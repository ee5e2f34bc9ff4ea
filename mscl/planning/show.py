"""Print the plan as tables: with lines on a terminal, as plain columns in a pipe."""

from __future__ import annotations

import sys
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from mscl.planning.training import KINDS

WIDTH = 150  # characters per line in a pipe
# {rate: (description, factor from the stored unit, unit)}
UNITS = {
    "raw_frames": ("frames per video", 1, ""),
    "extract_seconds": ("frame extraction per video", 1, "CPU s"),
    "frame_bytes": ("size of a stored frame", 1e-3, "kB"),
    "field_seconds": ("time per flow field", 1, "{} s"),
    "field_bytes": ("size of a stored flow field", 1e-3, "kB"),
}


def show(plan: dict, console: Console | None = None) -> None:
    """Print all tables of a plan (from `make_plan`), the total hours and the warnings."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    for title, table in TABLES.items():
        console.print(f"[bold]{title}[/bold]")
        console.print(table(plan))
        console.print()
    hours = plan["hours"]
    machine = f"{hours['cpus']} CPUs" + (f" and {hours['gpus']} GPU(s)" if hours["gpu"] else "")
    console.print(
        f"Total: {_short(hours['gpu'])} GPU hours and {_short(hours['cpu'])} CPU hours; about {_time(hours['wall'])} on {machine}, "
        "one stage after the other.\nNot included: download time, waiting time in a queue, the start of each job, and the fit of the "
        "ridge probe and of the logistic regression, GradCAM and the report (minutes each)."
    )
    for warning in plan["warnings"]:
        console.print(f"[bold]Note[/bold]: {warning}.", markup=True)


def _table(*columns: str) -> Table:
    """An empty table. The first column and columns with a trailing space in the name hold text, the others numbers."""
    lines = box.SIMPLE_HEAD if sys.stdout.isatty() else None
    table = Table(box=lines, pad_edge=False, padding=(0, 2, 0, 0))
    for k, name in enumerate(columns):
        table.add_column(name.strip(), justify="left" if k == 0 or name.endswith(" ") else "right", overflow="fold")
    return table


def _datasets(plan: dict) -> Table:
    names = ("data set", "videos", "by split ", "shards", "videos/shard", "frames/video", "flow fields/video", "counted from ")
    table = _table(*names)
    for name, data in plan["datasets"].items():
        table.add_row(
            name,
            f"{data['total']['value']:,.0f}",
            ", ".join(f"{split} {n:,}" for split, n in data["videos"].items()),
            str(data["shards"]),
            f"{data['videos_per_shard']:,.1f}",
            f"{data['frames_per_video']:,.0f}",
            f"{data['fields_per_video']:,.0f}",
            f"{data['total']['origin']}: {data['total']['note']}",
        )
    return table


def _jobs(plan: dict) -> Table:
    table = _table("rule", "jobs")
    for rule, n in plan["jobs"].items():
        table.add_row(rule, f"{n:,}")
    table.add_row("total", f"{sum(plan['jobs'].values()):,}")
    return table


def _disk(plan: dict) -> Table:
    table = _table("", "download", "frames", "flow", "files", "origin ")
    for name, data in plan["datasets"].items():
        parts = [data["download"], data["frames_bytes"], data.get("flow_bytes")]
        origins = ", ".join(f"{k} {p['origin']}" for k, p in zip(("download", "frames", "flow"), parts) if p)
        table.add_row(name, *(_bytes(p) for p in parts), f"{data['files']:,}", origins)
    disk = plan["disk"]
    table.add_row("all", *(_bytes(disk.get(k)) for k in ("download", "frames", "flow")), f"{disk['shard_files']:,}", "")
    table.add_row("weights", _bytes(disk["weights"]), "", "", "", disk["weights"]["note"])
    table.add_row("checkpoints", _bytes(disk["checkpoints"]), "", "", "", disk["checkpoints"]["note"])
    table.add_row("total", _bytes(disk["total"]), "", "", "", disk["total"]["origin"])
    return table


def _hours(plan: dict) -> Table:
    hours = plan["hours"]
    table = _table("stage", "CPU hours", "GPU hours", "in parallel", "wall clock", "origin ")
    for stage, found in hours["stages"].items():
        if not found["device_hours"]:
            continue
        on = [_short(found["device_hours"]) if found["device"] == device else "" for device in ("cpu", "gpu")]
        wall = "" if found["wall"] is None else _time(found["wall"])
        table.add_row(stage, *on, str(found["at_once"]), wall, found["hours"]["origin"])
    table.add_row("training, tests", "", "", "", _time(hours["training_wall"]), "each test after its training; longest run first")
    table.add_row("total", _short(hours["cpu"]), _short(hours["gpu"]), "", _time(hours["wall"]))
    return table


def _runs(plan: dict) -> Table:
    hours = f"{plan['device'].upper()} hours"
    table = _table("run", "method ", "runs", "steps", "videos seen", "GFLOP/video", f"{hours} each", "total", "origin ")
    for key, runs in groupby(sorted(plan["runs"], key=_row), key=_row):
        same = list(runs)
        first, total = same[0], sum(r["hours"]["value"] for r in same)
        table.add_row(
            " ".join(name for name in key[1:4] if name),
            ", ".join(dict.fromkeys(r["method"] for r in same)),
            str(len(same)),
            f"{first['steps']:,}" if first["steps"] else "",
            f"{first['videos_seen']:,}",
            f"{first['gflop_per_video']:.1f}",
            _short(first["hours"]["value"]),
            _short(total),
            first["hours"]["origin"],
        )
    return table


def _row(run: dict) -> tuple:
    """The key by which runs are grouped into one row: runs with the same cost."""
    return (KINDS.index(run["kind"]), run["kind"], run["target"], run["model"], run["steps"], run["hours"]["value"])


def _rates(plan: dict) -> Table:
    table = _table("rate", "value", "origin ", "note")
    table.columns[3].justify = "left"
    for name, data in plan["datasets"].items():
        for key, rate in data["rates"].items():
            what, scale, unit = UNITS[key]
            unit = unit.format(plan["hours"]["stages"]["flow"]["device"].upper())
            table.add_row(f"{name}: {what}", f"{rate['value'] * scale:,.4g} {unit}", rate["origin"], rate["note"])
    speed = plan["speed"]
    if any(not r["step_seconds"]["note"] for r in plan["runs"]):
        table.add_row(
            f"{plan['device'].upper()}, sustained speed in training",
            f"{speed['value']:,.4g} TFLOP/s",
            speed["origin"],
            speed["note"],
        )
    networks = {(r["model"], _network(r)): r for r in reversed(plan["runs"]) if r["steps"]}
    for (model, what), run in sorted(networks.items()):
        step, load = run["step_seconds"], run["loading_seconds"]
        note = step["note"] or f"{run['gflop_per_video']:.1f} GFLOP (counted) at {speed['value']:g} TFLOP/s"
        table.add_row(
            f"{model}/{what}: training per video", f"{step['value']:,.3g} {plan['device'].upper()} s", step["origin"], note
        )
        table.add_row(f"{model}/{what}: loading per video", f"{load['value']:,.3g} CPU s", load["origin"], load["note"])
    return table


def _network(run: dict) -> str:
    return run["method"] if run["kind"] == "pretrain" else f"{run['kind']}/{run['target']}"


def _bytes(part: dict | None) -> str:
    if part is None:
        return ""
    value = part["value"]
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 1e3:,.1f} kB"


def _short(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def _time(hours: float) -> str:
    """A time in days, hours or minutes."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


TABLES = {
    "Videos": _datasets,
    "Jobs (without existing results)": _jobs,
    "Disk": _disk,
    "Time by stage": _hours,
    "Training": _runs,
    "Rates and assumptions": _rates,
}
