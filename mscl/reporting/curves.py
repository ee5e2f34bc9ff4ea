"""Training curves: one panel per model, one colour per method."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The Okabe-Ito palette: readable for colour-blind readers and in grey print.
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
    """A PNG of `column` against the epoch: one thin line per seed, one thick line for their mean.

    `histories` is keyed by (model, method, seed); each table has a column "epoch". `titles` maps each method to its name in the
    legend, in the order of drawing. Values are multiplied by `scale`; `label` names the y axis. Returns None when no history has
    the column. The same input gives the same bytes.
    """
    drawable = {key: table for key, table in histories.items() if {column, "epoch"} <= set(table.columns) and len(table)}
    shown = [model for model in models if any(key[0] == model for key in drawable)]
    if not shown:
        return None
    figure = Figure(figsize=(1.2 + 4.4 * len(shown), 3.1), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, model in zip(figure.subplots(1, len(shown), squeeze=False, sharey=True)[0], shown, strict=True):
        for number, method in enumerate(titles):
            tables = [table for (m, k, _), table in drawable.items() if (m, k) == (model, method)]
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
            _draw(axes, tables, column, scale, style, titles[method])
        _clean(axes, model if len(models) > 1 else "", label if axes.get_subplotspec().is_first_col() else "")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw(axes: Axes, tables: Sequence[pd.DataFrame], column: str, scale: float, style: dict[str, str], method: str) -> None:
    """Draw one method in one panel: a line per seed and their mean."""
    if not tables:
        return
    numbers = [t.assign(**{column: pd.to_numeric(t[column], errors="coerce") * scale}) for t in tables]
    tables = [t.dropna(subset=[column]) for t in numbers]  # some measures are taken only every few epochs
    values = [t[column] for t in tables]
    # One epoch gives a single point, which is invisible without a marker.
    marker = "o" if max(len(t) for t in tables) < 3 else ""
    if len(tables) > 1:
        for table, value in zip(tables, values, strict=True):
            axes.plot(table["epoch"], value, linewidth=0.7, alpha=0.35, **style)
    mean = pd.concat([v.set_axis(t["epoch"]) for t, v in zip(tables, values, strict=True)], axis=1).mean(axis=1)
    axes.plot(mean.index, mean, linewidth=1.8, marker=marker, markersize=4, label=method, **style)


def _clean(axes: Axes, title: str, label: str) -> None:
    """Remove the frame, set a light grid, and label the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(labelsize=8, color="#999999")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
