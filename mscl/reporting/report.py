"""The report: every table in every form, every figure, the run cards and one page that holds them all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mscl.reporting import health, pairs, tables
from mscl.reporting.curves import curves
from mscl.reporting.formats import Table, write, write_table
from mscl.reporting.page import Picture, render, summary
from mscl.reporting.results import Results, read_results
from mscl.reporting.used import used_table
from mscl.stages.jobs import ReportJob

VOLATILE = (
    "compute",
    "used",
)  # tables that differ from run to run: they lie with the cards, and every other file of tables/ does not
STAGES = ("pretrain", "finetune")  # those that have epochs
PRINTED = ("table1", "table2", "table3")
NARROW = {"table1": ("Method", "Origin", "Backbone", "Target", "Top-1 %", "Seeds", "Chance %")}  # what fits 80 columns


def build_report(job: ReportJob, results: Path, out: Path) -> None:
    """Write the whole report to `out` from the results tree `results`.

    tables/<name>.{csv,md,tex} and tables.json, metrics.json (means over seeds), curves/*/*.csv, figures/*.png, cards/*.json and
    cards/{compute,used}.*, report.md, index.html (self-contained). A missing piece is a sentence in the report, not an error.
    The same results give the same bytes; only cards/, report.md and index.html hold times.
    """
    found = read_results(job.config, Path(results))
    made = make_tables(found, Path(results))
    pictures = {"gradcam": _gradcam(found), "curves": _curves(found)}
    out = Path(out)
    for table in made.values():
        write_table(table, out / ("cards" if table.name in VOLATILE else "tables"))
    kept = {name: table for name, table in made.items() if name not in VOLATILE}
    plain = {"banner": tables.KIND[job.config.kind]} | {name: table.plain() for name, table in kept.items()}
    write(out / "tables" / "tables.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    for picture in (p for section in pictures.values() for p in section):
        write(out / "figures" / picture.name, picture.png)
    for card in found.cards.values():
        write(out / "cards" / f"{card.id}.json", json.dumps(card.content, indent=1, ensure_ascii=False) + "\n")
    write(out / "metrics.json", json.dumps(_means(found), indent=1) + "\n")
    courses = _courses(found)
    for name, course in courses.items():
        write(out / "curves" / name, course.to_csv(index=False))
    # What an earlier report left must not look like part of this one.
    _keep(out / "tables", _files(kept) | {"tables.json"})
    _keep(out / "figures", {p.name for section in pictures.values() for p in section})
    _keep(out / "cards", {f"{card}.json" for card in found.cards} | _files(VOLATILE))
    for stage in STAGES:
        _keep(out / "curves" / stage, {Path(name).name for name in courses if name.startswith(f"{stage}/")})
    write(out / "report.md", _markdown(found, made, pictures))
    write(out / "index.html", render(found, made, pictures))


def _files(names: Iterable[str]) -> set[str]:
    return {f"{name}.{suffix}" for name in names for suffix in ("csv", "md", "tex")}


def _means(found: Results) -> dict[str, dict[str, dict[str, float]]]:
    """model -> method -> measure -> mean over the seeds that have it: what `dvc metrics diff` compares."""
    means = found.runs.groupby(["model", "method"], sort=False)[[c.key for c in found.columns]].mean()
    return {
        model: {method: row.dropna().to_dict() for method, row in part.droplevel(0).iterrows()}
        for model, part in means.groupby(level=0, sort=False)
    }


def _courses(found: Results) -> dict[str, pd.DataFrame]:
    """<stage>/<model>-<method>-seed<k>.csv -> the history of that run: one plot each for `dvc plots diff`."""
    histories = dict(zip(STAGES, (found.pretraining, found.finetuning)))
    return {f"{stage}/{m}-{n}-seed{s}.csv": table for stage, runs in histories.items() for (m, n, s), table in runs.items()}


def make_tables(found: Results, results: Path) -> dict[str, Table]:
    """Every table of the report by name, in the order of report.md."""
    every = [
        tables.table1(found),
        pairs.table2(found),
        pairs.table2_published(),
        tables.table3(found),
        tables.runs_table(found),
        health.data_table(found),
        health.unusable_table(found),
        health.flow_error_table(found),
        health.compute_table(found),
        used_table(found, results),
    ]
    return {table.name: table for table in every if table is not None}


def _gradcam(found: Results) -> list[Picture]:
    """Figures 1, 2 … of every model, copied from the analysis."""
    pictures = []
    for model, drawn in found.gradcam.items():
        several = f" ({model})" if len(found.config.models) > 1 else ""
        for note in drawn.get("notes", []):
            found.missing.append(f"GradCAM of {model}: {note}")
        for figure in drawn.get("figures", []):
            path = Path(drawn["folder"]) / figure["file"]
            if not path.exists():
                found.missing.append(f"The GradCAM of {model} lacks {figure['file']}; run the analysis again.")
                continue
            said = "; ".join(
                f"{method} says “{p['class']}” (p = {p['probability']:.2f}, {'right' if p['correct'] else 'wrong'})"
                for method, p in figure["predictions"].items()
            )
            grid = figure.get("grid") or []
            own = f" from its own grid of {' x '.join(map(str, grid))} (T x H x W)" if grid else ""
            still = "; with one step in time the heat cannot change between frames" if grid and grid[0] == 1 else ""
            caption = (
                f"GradCAM for the true class on the last residual stage, upsampled over time and space{own}, "
                f"each clip scaled to its own maximum{still}. "
                f"Video {figure['clip_id']}: {said}. Seed {drawn.get('seed')}. Chosen: {figure['reason']}."
            )
            title = f"Figure {len(pictures) + 1}{several}. “{figure['template']}”"
            pictures.append(Picture(f"{model}_{path.name}", title, caption, path.read_bytes()))
    return pictures


def _curves(found: Results) -> list[Picture]:
    """Loss of pretraining, its k-NN test where one was asked for, and training accuracy of finetuning."""
    config = found.config
    wanted = [
        (
            "pretrain_loss.png",
            "Pretraining loss",
            found.pretraining,
            "loss",
            "loss",
            1.0,
            (
                "Sum of a method's terms: methods with more terms have larger losses, "
                "so levels cannot be compared between methods, only shapes."
            ),
        ),
        (
            "pretrain_knn.png",
            "k-NN accuracy while pretraining",
            found.pretraining,
            "knn_top1",
            "top-1, %",
            100.0,
            "On videos that pretraining does not see, from each video's five nearest others (pretrain.monitor).",
        ),
        (
            "finetune_top1.png",
            "Finetuning",
            found.finetuning,
            "train_top1",
            "training top-1, %",
            100.0,
            "Top-1 on the training split while finetuning.",
        ),
    ]
    pictures, titles = [], {m: config.title(m) for m in config.methods}
    for name, title, histories, column, label, scale, caption in wanted:
        png = curves(histories, list(config.models), titles, column, label, scale)
        if png:
            thin = " Thin lines: seeds; thick: their mean." if len(config.seeds) > 1 else ""
            pictures.append(Picture(name, title, caption + thin, png))
    return pictures


def _markdown(found: Results, made: dict[str, Table], pictures: dict[str, list[Picture]]) -> str:
    """report.md: the page without its run cards."""
    config = found.config
    parts = [
        f"# {config.name}\n",
        f"**{config.kind}**: {tables.KIND[config.kind]}\n",
        *(f"* {what}: {value}" for what, value in summary(found)),
        "",
    ]
    parts += [table.markdown() for table in made.values()]
    for picture in (p for section in pictures.values() for p in section):
        parts.append(f"## {picture.title}\n\n![{picture.title}](figures/{picture.name})\n\n{picture.caption}\n")
    if found.missing:
        parts.append("## Missing\n\n" + "\n".join(f"* {sentence}" for sentence in found.missing) + "\n")
    return "\n".join(parts)


def _keep(folder: Path, names: set[str]) -> None:
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.is_file() and path.name not in names:
            path.unlink()


def print_tables(out: Path) -> None:
    """Print the main tables of a report in the terminal, and where its page is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console, out = Console(), Path(out)
    if not (out / "index.html").exists():
        raise ValueError(f"{out}: no index.html, so no report; run the report stage first")
    stored = json.loads((out / "tables" / "tables.json").read_text(encoding="utf-8"))
    for name in PRINTED:
        table = stored[name]
        shown = [c for c in table["columns"] if c in NARROW.get(name, table["columns"])]
        grid = Grid(title=Text(table["title"], style="bold"), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
        for column in shown:
            grid.add_column(Text(column), overflow="fold")
        for number, row in enumerate(table["rows"]):
            bold = {column for line, column in table["bold"] if line == number}
            cells = (
                Text(cell, style="bold" if c in bold else "") for c, cell in zip(table["columns"], row, strict=True) if c in shown
            )
            grid.add_row(*cells, style="dim" if "published" in row else "")
        console.print(grid if table["rows"] else Text(table["title"], style="bold"))
        for note in table["notes"]:
            console.print(Text(note), style="yellow")
    console.print(Text(stored["banner"]))
    console.print(Text(f"Page: {out / 'index.html'}"), soft_wrap=True)
