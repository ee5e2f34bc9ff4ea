"""The compute used by each rule, from the measurements of Snakemake (the `benchmark:` files of the rules)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mscl.reporting.formats import Table, number, table_of
from mscl.reporting.results import Results
from mscl.stages.layout import Layout
from mscl.stages.table import planned

COLUMNS = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "peak_memory_mb"}  # Snakemake's column -> name here
MACHINE = ("rule", "jobs", "wall_hours", "cpu_hours", "peak_memory_mb", "gpu_jobs", "gpu_hours")
CAPTION = (
    "Measured by Snakemake for every job of the workflow. A CPU hour is one core busy for one hour. For a job that was interrupted and "
    "resumed, or that ran again, only the last part is counted, so these numbers are lower bounds. The report stage is not included."
)


def used_table(results: Results, root: Path) -> Table:
    """Per rule: jobs, wall hours, CPU hours, peak memory in MB, GPU jobs and GPU hours. A note gives the number of jobs not measured.

    `root` is the folder of the results.
    """
    at = Layout(results.config, results=root)
    wanted = [job for job in planned(results.config) if job.stage.name != "report"]
    rows = [(job.stage.name, row) for job in wanted if (row := _read(Path(at.benchmark(job.stage.name, job.values))))]
    frame = pd.DataFrame([(name, *row) for name, row in rows], columns=["rule", *COLUMNS.values()])
    rules = dict.fromkeys(job.stage.name for job in wanted)
    records = [_record(results, name, frame[frame["rule"] == name]) for name in rules] if len(frame) else []
    total = frame["seconds"].sum() / 3600, frame["cpu_seconds"].sum() / 3600
    return table_of(
        "used",
        "Compute used",
        records,
        {
            "Rule": lambda r: r["rule"],
            "Jobs": lambda r: str(r["jobs"]),
            "Wall h": lambda r: number(r["wall_hours"], 3),
            "CPU h": lambda r: number(r["cpu_hours"], 3),
            "Peak MB": lambda r: number(r["peak_memory_mb"], 0),
            "GPU jobs": lambda r: number(r["gpu_jobs"], 0),
            "GPU h": lambda r: number(r["gpu_hours"], 3),
        },
        MACHINE,
        caption=f"{CAPTION} Total: {number(total[0], 3)} wall hours, {number(total[1], 3)} CPU hours." if records else "",
        notes=_notes(len(wanted) - len(frame), len(wanted), f"{root}/benchmarks"),
    )


def _record(results: Results, name: str, part: pd.DataFrame) -> dict:
    """The sums of one rule. GPU hours are from run cards; flow jobs have none, so those of RAFT and of programs are unknown (None)."""
    cards = [c.content for c in results.cards.values() if c.where.get("stage") == name and _on_gpu(c.content)]
    unknown = name == "flow" and results.config.flow.on_gpu
    gpu_hours = sum(c.get("wall_seconds", 0) * c.get("processes", 1) for c in cards) / 3600
    return {
        "rule": name,
        "jobs": len(part),
        "wall_hours": part["seconds"].sum() / 3600,
        "cpu_hours": part["cpu_seconds"].sum(min_count=1) / 3600,
        "peak_memory_mb": part["peak_memory_mb"].max(),
        "gpu_jobs": None if unknown else len(cards),
        "gpu_hours": None if unknown else gpu_hours,
    }


def _read(path: Path) -> list[float] | None:
    """Wall time (s), CPU time (s) and peak memory (MB) of a job. NaN if it was too short to measure; None without the file."""
    try:
        table = pd.read_csv(path, sep="\t")
        return [float(pd.to_numeric(table[c], errors="coerce").iloc[-1]) for c in COLUMNS]
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _on_gpu(card: dict) -> bool:
    """Whether the run of this card used a GPU."""
    hardware, job = card.get("hardware"), card.get("job")
    return isinstance(hardware, dict) and bool(hardware.get("gpu")) and isinstance(job, dict) and job.get("device") != "cpu"


def _notes(absent: int, wanted: int, folder: str) -> list[str]:
    why = "the results were copied without this folder, or the jobs were run by an older version"
    if absent == wanted:
        return [f"No job has a measurement in {folder}. Possible reasons: {why}."]
    if absent:
        return [f"{absent} of {wanted} jobs have no measurement in {folder} and are not counted. Possible reasons: {why}."]
    return []
