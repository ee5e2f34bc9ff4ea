"""A table and its four forms: CSV, Markdown, LaTeX (booktabs) and, by the page's template, HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from mscl.machine.files import atomic_write

DASH = "–"
_LATEX = {
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "—": "---",
    "ρ": r"$\rho$",
    "→": r"$\to$",
    "†": r"$^{\dagger}$",
    "²": r"$^2$",
    "…": r"\dots{}",
}


@dataclass
class Table:
    """A table to show.

    `shown` holds the cells as text; `data` the same table for machines (numbers; goes to the CSV, by default
    `shown`). `cards` maps (row, column) to the run cards a cell came from, `bold` names cells to set bold,
    `wide` columns of long text, `groups` is an optional word per row that the page uses to tell rows apart.
    """

    name: str
    title: str
    shown: pd.DataFrame
    caption: str = ""
    notes: list[str] = field(default_factory=list)
    data: pd.DataFrame | None = None
    cards: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    bold: set[tuple[int, str]] = field(default_factory=set)
    wide: tuple[str, ...] = ()
    groups: list[str] = field(default_factory=list)

    @property
    def right(self) -> list[str]:
        """Columns of numbers, set flush right."""
        number = re.compile(r"^[-–]?$|^(\d+ h )?[\d.,]+( ± [\d.,]+)?( min| s)?$")
        return [c for c in self.shown.columns if c not in self.wide and all(number.match(str(v)) for v in self.shown[c])]

    def csv(self) -> str:
        """Machine-readable, with a column of the run cards of each row."""
        data = (self.shown if self.data is None else self.data).copy()
        if self.cards and len(data) == len(self.shown) and "card" not in data:
            rows = [
                sorted({card for (row, _), cards in self.cards.items() if row == number for card in cards})
                for number in range(len(data))
            ]
            data["cards"] = [";".join(f"cards/{card}.json" for card in cards) for cards in rows]
        return data.to_csv(index=False, lineterminator="\n")

    def plain(self) -> dict:
        """The shown table as plain lists, for other programs."""
        rows = self.shown.astype(str).values.tolist()
        return {
            "title": self.title,
            "columns": list(self.shown.columns),
            "rows": rows,
            "bold": sorted(map(list, self.bold)),
            "caption": self.caption,
            "notes": self.notes,
        }

    def markdown(self, base: str = "") -> str:
        """GitHub's table, linked cards (below `base`) after each number; then the caption and the notes."""
        shown = self.shown.astype(str).map(lambda text: re.sub(r"([\\|*_<>\[\]`])", r"\\\1", text).replace("\n", " "))
        for row, column in self.bold:
            shown.iat[row, shown.columns.get_loc(column)] = f"**{shown.iat[row, shown.columns.get_loc(column)]}**"
        for (row, column), cards in self.cards.items():
            links = " ".join(f"[[{n}]]({base}cards/{card}.json)" for n, card in enumerate(cards, 1))
            shown.iat[row, shown.columns.get_loc(column)] += f" {links}" if links else ""
        align = ["right" if c in self.right else "left" for c in shown.columns]
        body = shown.to_markdown(index=False, colalign=align, disable_numparse=True) if len(shown) else ""
        return (
            "\n\n".join([f"## {self.title}", *([body] if body else []), *([self.caption] if self.caption else []), *self.notes])
            + "\n"
        )

    def latex(self) -> str:
        """A booktabs table with every special character escaped; needs \\usepackage{booktabs}."""
        style = (
            Styler(self.shown.astype(str), uuid_len=0)
            .hide(axis="index")
            .format(latex_escape)
            .format_index(latex_escape, axis="columns")
        )
        marks = pd.DataFrame("", index=self.shown.index, columns=self.shown.columns)
        for row, column in self.bold:
            marks.iat[row, marks.columns.get_loc(column)] = "textbf:--rwrap"
        style = style.apply(lambda _: marks, axis=None)
        width = max(0.2, 0.9 - 0.1 * len(self.shown.columns)) / max(1, len(self.wide))
        form = "".join(
            f"p{{{width:.2f}\\linewidth}}" if c in self.wide else "r" if c in self.right else "l" for c in self.shown.columns
        )
        text = style.to_latex(hrules=True, column_format=form or "l")
        comments = [f"% {line}" for line in (self.title, self.caption, *self.notes) if line]
        return "\n".join([" ".join(line.split()) for line in comments]) + "\n" + text


def table_of(
    name: str,
    title: str,
    records: Sequence[dict[str, Any]],
    shown: Mapping[str, Callable[[dict[str, Any]], str]],
    data: Sequence[str],
    **rest: Any,
) -> Table:
    """A table of records: `shown` maps each column to what it says of a record, `data` names the values for machines.

    A record may have "cards" (column -> run cards), "bold" (columns) and "group". `rest` goes to `Table`.
    """
    frame = pd.DataFrame([[say(r) for say in shown.values()] for r in records], columns=list(shown))
    machine = pd.DataFrame([[r.get(key) for key in data] for r in records], columns=list(data))
    return Table(
        name,
        title,
        frame,
        data=machine,
        cards={(n, column): cards for n, r in enumerate(records) for column, cards in r.get("cards", {}).items()},
        bold={(n, column) for n, r in enumerate(records) for column in r.get("bold", ())},
        groups=[r["group"] for r in records if "group" in r],
        **rest,
    )


def number(value: float | None, digits: int) -> str:
    """A number with so many digits; a dash where there is none."""
    return DASH if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def mean_sd(mean: float, deviation: float) -> str:
    """Two shares in percent; a dash where there is no mean, no ± where there is no deviation."""
    if pd.isna(mean):
        return DASH
    return f"{100 * mean:.1f}" if pd.isna(deviation) else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def latex_escape(text: object) -> str:
    """Text that LaTeX prints as it stands."""
    plain = re.sub(r"[\\&%$#_{}~^<>]", lambda m: _SPECIAL[m.group()], " ".join(str(text).split()))
    return "".join(_LATEX.get(letter, letter) for letter in plain)


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def write(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then give it its own."""
    with atomic_write(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_table(table: Table, folder: Path) -> None:
    """<name>.csv, .md and .tex below `folder`."""
    for suffix, text in (("csv", table.csv()), ("md", table.markdown("../")), ("tex", table.latex())):
        write(folder / f"{table.name}.{suffix}", text)
