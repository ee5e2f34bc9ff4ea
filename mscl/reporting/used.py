"""What the whole workflow used, rule by rule, from the files that Snakemake measures into (`benchmark:` of every rule)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mscl.config.schema import Config
from mscl.reporting.formats import Table
from mscl.reporting.results import Results
from mscl.reporting.tables import DASH
from mscl.stages.jobs import flow_datasets, used_datasets

COLUMNS = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "peak_memory_mb"}  # Snakemake's name: ours
CAPTION = (
    "Every job of the workflow as Snakemake measured it; a CPU hour is one core busy for an hour. A job that was interrupted and went on, or ran "
    "again, counts with its last part only, so what was used is at least this. The report itself is not in it."
)


def expected(config: Config) -> list[tuple[str, str]]:
    """(rule, file below results/benchmarks) of every job that this configuration asks for, in the order of the workflow."""
    data, flow = used_datasets(config), flow_datasets(config)
    shards = {d: [f"{n:04d}" for n in range(config.datasets[d].shards)] for d in data}
    runs = [f"{m}/{n}/seed{s}" for m in config.models for n in config.methods for s in config.seeds]
    pretrained = [r for r in runs if config.switches(r.split("/")[1]).pretrain]
    jobs = {
        "download": [d for d in data if config.datasets[d].download],
        "dataset": data,
        "manifest": data,
        "frames": [f"{d}/{s}" for d in data for s in shards[d]],
        "flow": [f"{d}/{s}" for d in flow for s in shards[d]],
        "pretrain": pretrained,
        "finetune": runs,
        "frozen": runs if config.analysis.probe else [],
        "analysis": list(config.models),
    }
    single = ["data_health", *(["flow_error"] if any(config.datasets[d].embedded for d in flow) else [])]
    return [(rule, f"{rule}/{name}.tsv") for rule, names in jobs.items() for name in names] + [(r, f"{r}.tsv") for r in single]


def used_table(results: Results, root: Path) -> Table:
    """Per rule: jobs, wall hours, CPU hours, peak memory, jobs on a GPU. What was not measured here is said in a note."""
    wanted = expected(results.config)
    measured = [(rule, *row) for rule, file in wanted if (row := _read(root / "benchmarks" / file))]
    frame = pd.DataFrame(measured, columns=["rule", *COLUMNS.values()])
    shown, rows = [], []
    for rule in dict.fromkeys(rule for rule, _ in wanted):
        part = frame[frame["rule"] == rule]
        cards = [c.content for c in results.cards.values() if c.where.get("stage") == rule and _on_gpu(c.content)]
        known = None if rule == "flow" and results.config.flow.method == "raft" else len(cards)
        gpu_hours = sum(c.get("wall_seconds", 0) * c.get("processes", 1) for c in cards) / 3600
        hours, cpu = part["seconds"].sum() / 3600, part["cpu_seconds"].sum(min_count=1) / 3600
        row = [rule, len(part), hours, cpu, part["peak_memory_mb"].max(), known, gpu_hours if known is not None else None]
        rows.append(row)
        shown.append([rule, str(len(part)), *(_short(v, digits) for v, digits in zip(row[2:], (3, 3, 0, 0, 3)))])
    names = ["Rule", "Jobs", "Wall h", "CPU h", "Peak MB", "GPU jobs", "GPU h"]
    data = pd.DataFrame(rows, columns=["rule", "jobs", "wall_hours", "cpu_hours", "peak_memory_mb", "gpu_jobs", "gpu_hours"])
    notes = _notes(len(wanted) - len(frame), len(wanted))
    if frame.empty:
        return Table("used", "Compute used", pd.DataFrame(columns=names), "", notes, data.head(0))
    total = (
        f" In all {_short(frame['seconds'].sum() / 3600, 3)} h of jobs, {_short(frame['cpu_seconds'].sum() / 3600, 3)} CPU hours."
    )
    return Table("used", "Compute used", pd.DataFrame(shown, columns=names), CAPTION + total, notes, data)


def _read(path: Path) -> list[float] | None:
    """Wall seconds, CPU seconds and peak memory of a job; NaN where it was too short to be measured; None without the file."""
    try:
        table = pd.read_csv(path, sep="\t")
        return [float(pd.to_numeric(table[c], errors="coerce").iloc[-1]) for c in COLUMNS]
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _on_gpu(card: dict) -> bool:
    hardware, job = card.get("hardware"), card.get("job")
    return isinstance(hardware, dict) and bool(hardware.get("gpu")) and isinstance(job, dict) and job.get("device") != "cpu"


def _notes(absent: int, wanted: int) -> list[str]:
    why = "a tree copied without results/benchmarks has none, nor have jobs of an older version"
    if absent == wanted:
        return [f"No job left a measurement below results/benchmarks: {why}."]
    return (
        [f"{absent} of {wanted} jobs left no measurement below results/benchmarks and are not counted: {why}."] if absent else []
    )


def _short(value: float | None, digits: int) -> str:
    return DASH if value is None or pd.isna(value) else f"{value:,.{digits}f}"
