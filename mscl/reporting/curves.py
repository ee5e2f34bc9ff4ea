"""Training curves, one panel per model, one colour per method."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers and in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
DASHES = ("-", "--", "-.", ":")


def curves(
    histories: Mapping[tuple[str, str, int], pd.DataFrame],
    models: Sequence[str],
    titles: Mapping[str, str],
    column: str,
    label: str,
    scale: float = 1.0,
) -> bytes | None:
    """A PNG of `column` over epochs: thin lines are seeds, thick ones their mean. None when no history has the column.

    `histories` is keyed by (model, method, seed), `titles` gives the methods in their order. The same input gives the same bytes.
    """
    usable = {key: table for key, table in histories.items() if {column, "epoch"} <= set(table.columns) and len(table)}
    shown = [model for model in models if any(key[0] == model for key in usable)]
    if not shown:
        return None
    figure = Figure(figsize=(1.2 + 4.4 * len(shown), 3.1), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, model in zip(figure.subplots(1, len(shown), squeeze=False, sharey=True)[0], shown, strict=True):
        for number, method in enumerate(titles):
            tables = [table for (m, k, _), table in usable.items() if (m, k) == (model, method)]
            _draw(
                axes,
                tables,
                column,
                scale,
                {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]},
                titles[method],
            )
        _clean(axes, model if len(models) > 1 else "", label if axes.get_subplotspec().is_first_col() else "")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw(axes, tables: Sequence[pd.DataFrame], column: str, scale: float, style: dict, method: str) -> None:
    if not tables:
        return
    numbers = [t.assign(**{column: pd.to_numeric(t[column], errors="coerce") * scale}) for t in tables]
    tables = [t.dropna(subset=[column]) for t in numbers]  # not measured after every epoch
    values = [t[column] for t in tables]
    # A single epoch is a point: without a marker it would not be seen.
    marker = "o" if max(len(t) for t in tables) < 3 else ""
    if len(tables) > 1:
        for table, value in zip(tables, values, strict=True):
            axes.plot(table["epoch"], value, linewidth=0.7, alpha=0.35, **style)
    mean = pd.concat([v.set_axis(t["epoch"]) for t, v in zip(tables, values, strict=True)], axis=1).mean(axis=1)
    axes.plot(mean.index, mean, linewidth=1.8, marker=marker, markersize=4, label=method, **style)


def _clean(axes, title: str, label: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(labelsize=8, color="#999999")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
