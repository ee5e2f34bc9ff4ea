"""The report: every table in every format, every figure, the run cards, and one HTML page with all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mscl.reporting import health, pairs, tables
from mscl.reporting.ablation import ablation_table
from mscl.reporting.claims import claims_table
from mscl.reporting.curves import curves
from mscl.reporting.formats import Table, write, write_table
from mscl.reporting.page import Picture, render, summary
from mscl.reporting.published import orientation_table, table1_published
from mscl.reporting.results import Results, Run, read_results
from mscl.reporting.used import used_table
from mscl.stages.jobs import ReportJob
from mscl.stages.layout import finetuning_curves, linear_curves

VOLATILE = ("compute", "used")  # tables of times, which differ from run to run: stored in cards/, not in tables/
FLOW = (
    "Beneath: the optical flow from each shown frame to the next frame of the clip, by DIS; colour is direction (right red, down yellow, left blue), white is no "
    "motion, and the largest motion of the clip has the full colour."
)
STAGES = ("pretrain", "finetune", "linear")  # the stages with a training history
PRINTED = ("table1", "table1_published", "table2", "table3")
NARROW = {
    "table1": ("Method", "Origin", "Backbone", "Target", "Top-1 %", "Seeds", "Chance %"),
    "table1_published": ("Method", "Origin", "Backbone", "Target", "Top-1 %"),
}  # the columns that fit a terminal 80 characters wide


def build_report(job: ReportJob, results: Path, out: Path) -> None:
    """Write the whole report to the folder `out` from the results in the folder `results`.

    Files: tables/<name>.{csv,md,tex} and tables.json, metrics.json (means over seeds), curves/*/*.csv, figures/*.png,
    cards/*.json and cards/{compute,used}.*, report.md, index.html (self-contained). A missing result is reported in the report
    and is not an error. The same results give the same bytes; only cards/, report.md and index.html contain times.
    """
    found = read_results(job.config, Path(results))
    made = make_tables(found, Path(results))
    pictures = {"strip": _strip(found), "gradcam": _gradcam(found), "curves": _curves(found)}
    out = Path(out)
    for table in made.values():
        write_table(table, out / ("cards" if table.name in VOLATILE else "tables"))
    kept = {name: table for name, table in made.items() if name not in VOLATILE}
    plain = {"banner": tables.banner(job.config)} | {name: table.plain() for name, table in kept.items()}
    write(out / "tables" / "tables.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    for picture in (p for section in pictures.values() for p in section):
        write(out / "figures" / picture.name, picture.png)
    for card in found.cards.values():
        write(out / "cards" / f"{card.id}.json", json.dumps(card.content, indent=1, ensure_ascii=False) + "\n")
    write(out / "metrics.json", json.dumps(_means(found), indent=1) + "\n")
    courses = _courses(found)
    for name, course in courses.items():
        write(out / "curves" / name, course.to_csv(index=False))
    # Files of an earlier report must not look like part of this one.
    _keep(out / "tables", _files(kept) | {"tables.json"})
    _keep(out / "figures", {p.name for section in pictures.values() for p in section})
    _keep(out / "cards", {f"{card}.json" for card in found.cards} | _files(VOLATILE))
    for stage in STAGES:
        _keep(out / "curves" / stage, {Path(name).name for name in courses if name.startswith(f"{stage}/")})
    write(out / "report.md", _markdown(found, made, pictures))
    write(out / "index.html", render(found, made, pictures))


def _files(names: Iterable[str]) -> set[str]:
    return {f"{name}.{suffix}" for name in names for suffix in ("csv", "md", "tex")}


def _means(found: Results) -> dict[str, Any]:
    """target -> model -> method -> measure -> mean over the seeds that have it, a share in [0, 1]. `dvc metrics diff` compares these."""
    means: dict[str, Any] = {}
    for (target, model, method), row in (
        found.runs.groupby(["target", "model", "method"], sort=False)[[c.key for c in found.columns]].mean().iterrows()
    ):
        means.setdefault(target, {}).setdefault(model, {})[method] = row.dropna().to_dict()
    return means


def _courses(found: Results) -> dict[str, pd.DataFrame]:
    """<stage>/[<target>-]<model>-<method>-seed<k>.csv -> the history of that run. `dvc plots diff` draws one plot per file."""
    histories = dict(zip(STAGES, (found.pretraining, found.finetuning, found.linear)))
    return {
        f"{stage}/{'-'.join(run[:-1])}-seed{run[-1]}.csv": table
        for stage, runs in histories.items()
        for run, table in runs.items()
    }


def make_tables(found: Results, results: Path) -> dict[str, Table]:
    """Every table of the report by name, in the order of report.md. `results` is the folder of the results."""
    every = [
        claims_table(found),
        tables.table1(found),
        table1_published(),
        pairs.table2(found),
        pairs.table2_published(),
        tables.table3(found),
        ablation_table(found),
        orientation_table(),
        tables.runs_table(found),
        health.data_table(found),
        health.unusable_table(found),
        health.flow_error_table(found),
        health.compute_table(found),
        used_table(found, results),
    ]
    return {table.name: table for table in every if table is not None}


def _strip(found: Results) -> list[Picture]:
    """The first analysis's frames and flow of two classes, as a list of one picture; empty without one."""
    for (target, _), drawn in found.gradcam.items():
        strip = drawn.get("strip")
        if strip and (path := Path(drawn["folder"]) / strip["file"]).exists():
            named = f" of {target}" if len(found.config.targets) > 1 else ""
            title = f"“{strip['classes'][0]}” and “{strip['classes'][1]}”"
            caption = f"Two test videos{named} ({' and '.join(strip['clip_ids'])}), as the models see them. {FLOW} Why these classes: {strip['reason']}."
            return [Picture(path.name, title, caption, path.read_bytes())]
    return []


def _gradcam(found: Results) -> list[Picture]:
    """The GradCAM figures of every model, copied from the analysis and numbered from 1."""
    pictures: list[Picture] = []
    for (target, model), drawn in found.gradcam.items():
        named = [model] * (len(found.config.models) > 1) + [target] * (len(found.config.targets) > 1)
        several = f" ({', '.join(named)})" if named else ""
        for note in drawn.get("notes", []):
            found.missing.append(f"GradCAM of {model}: {note}")
        for figure in drawn.get("figures", []):
            path = Path(drawn["folder"]) / figure["file"]
            if not path.exists():
                found.missing.append(f"The GradCAM of {model} has no file {figure['file']}; run the analysis again.")
                continue
            title = f"Figure {len(pictures) + 1}{several}. “{figure['template']}”"
            caption = _gradcam_caption(figure, drawn.get("seed"))
            pictures.append(
                Picture("_".join([*named, path.name]) if named else f"{model}_{path.name}", title, caption, path.read_bytes())
            )
    return pictures


def _gradcam_caption(figure: Mapping[str, Any], seed: int | None) -> str:
    """How the heat was computed, what each method predicted, and why this video was chosen."""
    predicted = "; ".join(
        f"{method} predicts “{p['class']}” (p = {p['probability']:.2f}, {'right' if p['correct'] else 'wrong'})"
        for method, p in figure["predictions"].items()
    )
    grid = figure.get("grid") or []
    own = f" from its own grid of {' x '.join(map(str, grid))} (T x H x W)" if grid else ""
    beneath = f"{FLOW} " if figure.get("flow") else ""
    still = "; with a single time step the heat is the same in all frames" if grid and grid[0] == 1 else ""
    return (
        f"GradCAM for the true class at the last residual stage, upsampled over time and space{own}. "
        f"Each clip is scaled to its own maximum{still}. {beneath}"
        f"Video {figure['clip_id']}: {predicted}. Seed {seed}. Reason for this video: {figure['reason']}."
    )


@dataclass(frozen=True)
class Plot:
    """One figure of training curves: a column of the histories against the epoch."""

    file: str
    title: str
    histories: dict[Run, pd.DataFrame]
    column: str
    label: str  # of the y axis
    scale: float
    caption: str


def _plots(found: Results) -> list[Plot]:
    """The pretraining loss, the k-NN accuracy during pretraining, and the training accuracy of finetuning."""
    return [
        Plot(
            file="pretrain_loss.png",
            title="Pretraining loss",
            histories=found.pretraining,
            column="loss",
            label="loss",
            scale=1.0,
            caption="Sum of the loss terms of a method. Methods with more terms have larger losses: "
            "compare the shapes of the curves between methods, not their levels.",
        ),
        Plot(
            file="pretrain_knn.png",
            title="k-NN accuracy during pretraining",
            histories=found.pretraining,
            column="knn_top1",
            label="top-1, %",
            scale=100.0,
            caption="On videos that are not used for pretraining: each video is classified by its five nearest neighbours "
            "among the others (pretrain.monitor).",
        ),
        *(
            Plot(
                file=f"{file}.png",
                title="Finetuning" if len(found.config.targets) == 1 else f"Finetuning on {target}",
                histories={key[1:]: table for key, table in found.finetuning.items() if key[0] == target},
                column="train_top1",
                label="training top-1, %",
                scale=100.0,
                caption="Top-1 accuracy on the training split during finetuning.",
            )
            for target, file in finetuning_curves(found.config).items()
        ),
        *(
            Plot(
                file=f"{file}.png",
                title="Linear evaluation" if len(found.config.targets) == 1 else f"Linear evaluation on {target}",
                histories={key[1:]: table for key, table in found.linear.items() if key[0] == target},
                column="train_top1",
                label="training top-1, %",
                scale=100.0,
                caption="Top-1 accuracy on the training split while a linear classifier is trained on the frozen backbone.",
            )
            for target, file in linear_curves(found.config).items()
        ),
    ]


def _curves(found: Results) -> list[Picture]:
    """The figures of training curves; a figure without any data is left out."""
    config = found.config
    pictures, titles = [], {m: config.title(m) for m in config.methods}
    for plot in _plots(found):
        png = curves(plot.histories, list(config.models), titles, plot.column, plot.label, plot.scale)
        if png:
            thin = " Thin lines: single seeds; thick lines: their mean." if len(config.seeds) > 1 else ""
            pictures.append(Picture(plot.file, plot.title, plot.caption + thin, png))
    return pictures


def _markdown(found: Results, made: dict[str, Table], pictures: dict[str, list[Picture]]) -> str:
    """The text of report.md: the page without the run cards."""
    config = found.config
    parts = [
        f"# {config.name}\n",
        f"**{config.kind}**: {tables.banner(config)}\n",
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
    """Delete the files in `folder` that are not in `names`."""
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.is_file() and path.name not in names:
            path.unlink()


def print_tables(out: Path) -> None:
    """Print the main tables of the report in the folder `out`, and the path of its page. Raises ValueError without a report."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console, out = Console(), Path(out)
    if not (out / "index.html").exists():
        raise ValueError(f"{out}: no report here (index.html is missing); run the report stage first")
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
