"""Print the plan as tables: with lines on a terminal, as plain columns in a pipe."""

from __future__ import annotations

import sys
from collections import Counter
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
    "decode_seconds": ("decoding a video again", 1, "CPU s"),
    "frame_bytes": ("size of a stored frame", 1e-3, "kB"),
    "field_seconds": ("time per flow field", 1, "{} s"),
    "field_bytes": ("size of a stored flow field", 1e-3, "kB"),
}


def show(plan: dict, everything: bool = False, console: Console | None = None) -> None:
    """Print the summary of a plan (from `make_plan`), with `everything` all its tables, and the warnings."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    summary = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, text in summary_of(plan):
        summary.add_row(name, text)
    console.print(summary)
    for title, table in TABLES.items() if everything else ():
        console.print(f"\n[bold]{title}[/bold]")
        console.print(table(plan))
    for warning in plan["warnings"]:
        console.print(f"[bold]Note[/bold]: {warning}.", markup=True)
    if not everything:
        console.print("--all shows all tables: videos, jobs, disk, stages, every training, rates and assumptions.")


def summary_of(plan: dict) -> list[tuple[str, str]]:
    """The summary of a plan in ten lines at most: (what, text)."""
    hours, disk, runs = plan["hours"], plan["disk"], plan["runs"]
    kinds = Counter(run["kind"] for run in runs)
    stages = sorted(hours["stages"].items(), key=lambda stage: -stage[1]["device_hours"])
    parts = sorted(((k, p) for k, p in disk.items() if isinstance(p, dict) and k != "total"), key=lambda part: -part[1]["value"])
    spent = {
        device: ", ".join(
            f"{name} {_short(s['device_hours'])}" for name, s in stages if s["device"] == device and s["device_hours"] >= 0.05
        )
        for device in ("gpu", "cpu")
    }
    trained = [run for run in runs if run["memory_bytes"]]
    longest = max(runs, key=lambda run: run["hours"]["value"] / run["processes"], default=None)
    machine = f"{hours['cpus']} CPUs" + (f" and {hours['gpus']} GPU(s)" if hours["gpu"] else "")
    found = [
        (
            "Plan",
            f"{plan['name']}: {sum(plan['jobs'].values()):,} jobs; " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
        ),
        ("Videos", ", ".join(f"{name} {data['total']['value']:,.0f}" for name, data in plan["datasets"].items())),
        ("Disk", f"{_bytes(disk['total'])} ({', '.join(f'{name} {_bytes(part)}' for name, part in parts)})"),
        *(
            (f"{device.upper()} hours", f"{_short(hours[device])} ({spent[device]})")
            for device in ("gpu", "cpu")
            if spent[device]
        ),
        (
            "Time",
            f"{_time(hours['wall'])} on {machine}, one stage after the other, without downloads and waiting{_longest(longest)}",
        ),
    ]
    if trained:
        most = max(trained, key=lambda run: run["memory_bytes"])
        shown = _bytes({"value": most["memory_bytes"]})
        found.append(
            (f"{plan['device'].upper()} memory", f"up to {shown} in one process ({_network_of(most)}), within about 20 %")
        )
    found.append(("Assumed", _assumed(plan)))
    if plan["savings"]:
        found.append(("Would save", "; ".join(_saving(row, hours["stages"]["flow"]["device"]) for row in plan["savings"])))
    return found


def _longest(run: dict | None) -> str:
    return "" if run is None else f"; longest run {_time(run['hours']['value'] / run['processes'])} ({_network_of(run)})"


def _network_of(run: dict) -> str:
    return f"{run['kind']} {run['model']}/{run['method']}"


def _assumed(plan: dict) -> str:
    """What the figures rest on that nobody has measured."""
    used = plan["speed"]["origin"] == "assumed" and any(not run["step_seconds"]["note"] for run in plan["runs"])
    found = [f"{plan['speed']['value']:g} TFLOP/s in training"] if used else []
    keys = {key for data in plan["datasets"].values() for key, rate in data["rates"].items() if "assumed" in rate["origin"]}
    found += [UNITS[key][0] for key in UNITS if key in keys]
    if any("assumed" in run["loading_seconds"]["origin"] for run in plan["runs"]):
        found.append("time to load a video")
    if not found:
        return "nothing"
    return ", ".join(found) + (
        ": GPU hours may be wrong by several times; measure (docs/planning.md)" if plan["hours"]["gpu"] else ""
    )


def _saving(row: dict, device: str) -> str:
    what = [f"{_short(row['hours'])} {device.upper()} hours"] if row["hours"] >= 0.05 else []
    what += [f"{_short(row['cpu_hours'])} CPU hours"] if row["cpu_hours"] >= 0.05 else []
    what += [_bytes({"value": row["disk"]})] if row["disk"] >= 1e6 else []
    return f"{row['change']} {' and '.join(what) or 'little'}"


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
    table = _table("run", "method ", "runs", "steps", "videos seen", "GFLOP/video", f"{hours} each", "total", "memory", "origin ")
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
            _bytes({"value": first["memory_bytes"]}) if first["memory_bytes"] else "",
            first["hours"]["origin"],
        )
    return table


def _savings(plan: dict) -> Table:
    device = plan["hours"]["stages"]["flow"]["device"].upper()
    table = _table("change", f"flow, {device} hours", "frames, CPU hours", "disk")
    for row in plan["savings"]:
        table.add_row(row["change"], _short(row["hours"]), _short(row["cpu_hours"]), _bytes({"value": row["disk"]}))
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
    "Training (memory: of one process)": _runs,
    "What the cheapest changes would save": _savings,
    "Rates and assumptions": _rates,
}
