"""Tables and their output formats: CSV, Markdown and LaTeX (booktabs). The page's template writes the HTML."""

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
_NUMBER = re.compile(r"[-+]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d+)?")
_LATEX = {
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "—": "---",
    "ρ": r"$\rho$",
    "→": r"$\to$",
    "†": r"$^{\dagger}$",
    "²": r"$^2$",
    "Δ": r"$\Delta$",
    "√": r"$\surd$",
    "−": "$-$",
    "…": r"\dots{}",
}


@dataclass
class Table:
    """One table of the report.

    `shown` holds the cells as text. `data` holds the values for programs and goes to the CSV; without it the CSV holds `shown`.
    `cards` maps (row, column) to the ids of the run cards that the cell was computed from. `bold` lists the (row, column) cells
    in bold. `wide` lists the columns of long text. `groups`, if given, has one CSS class per row for the page.
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
        """The columns of numbers, which are aligned right."""
        number = re.compile(r"^[-–]?$|^[-+]?(\d+ h )?[\d.,]+( ± [\d.,]+)?( min| s)?$")
        return [c for c in self.shown.columns if c not in self.wide and all(number.match(str(v)) for v in self.shown[c])]

    def csv(self) -> str:
        """The table as CSV, with the run cards of each row in a last column `cards`."""
        data = (self.shown if self.data is None else self.data).copy()
        if self.cards and len(data) == len(self.shown) and "card" not in data:
            rows = [
                sorted({card for (row, _), cards in self.cards.items() if row == number for card in cards})
                for number in range(len(data))
            ]
            data["cards"] = [";".join(f"cards/{card}.json" for card in cards) for cards in rows]
        for place, column in enumerate(data.columns):
            if not pd.api.types.is_numeric_dtype(data[column]):
                data.isetitem(place, data[column].map(neutral))
        return data.rename(columns=neutral).to_csv(index=False, lineterminator="\n")

    def plain(self) -> dict:
        """The table as plain lists and strings, ready for JSON."""
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
        """A GitHub table with links to the run cards (below `base`) after each number, then the caption and the notes."""
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
        text = style.to_latex(hrules=True, column_format=self._latex_columns() or "l")
        comments = [f"% {line}" for line in (self.title, self.caption, *self.notes) if line]
        return "\n".join([" ".join(line.split()) for line in comments]) + "\n" + text

    def _latex_columns(self) -> str:
        """LaTeX's column specification: paragraphs for long text, numbers right, the rest left."""
        width = max(0.2, 0.9 - 0.1 * len(self.shown.columns)) / max(1, len(self.wide))
        kinds = dict.fromkeys(self.shown.columns, "l") | dict.fromkeys(self.right, "r")
        kinds |= dict.fromkeys(self.wide, f"p{{{width:.2f}\\linewidth}}")
        return "".join(kinds[c] for c in self.shown.columns)


def table_of(
    name: str,
    title: str,
    records: Sequence[dict[str, Any]],
    shown: Mapping[str, Callable[[dict[str, Any]], str]],
    data: Sequence[str],
    **rest: Any,
) -> Table:
    """A table with one row per record.

    `shown` maps each column to the function that gives its text for a record. `data` names the record's values that go to the
    CSV. A record may have "cards" (column -> ids of run cards), "bold" (columns) and "group". `rest` is passed to `Table`.
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


def neutral(cell: Any) -> Any:
    """A text cell that a spreadsheet would run as a formula, with an apostrophe before it; numbers and all others unchanged."""
    if not isinstance(cell, str) or not re.match(r"\s*[=+@\-]|[\t\r]", cell) or _NUMBER.fullmatch(cell.strip()):
        return cell
    return f"'{cell}"


def number(value: float | None, digits: int) -> str:
    """`value` with `digits` decimals; a dash for None or NaN."""
    return DASH if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def mean_sd(mean: float, deviation: float) -> str:
    """Mean and standard deviation, given as shares in [0, 1], as percent. A dash without a mean; no ± without a deviation."""
    if pd.isna(mean):
        return DASH
    return f"{100 * mean:.1f}" if pd.isna(deviation) else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def seeds(count: int, draws: int = 1) -> str:
    """The number of seeds of a row, each a mean of `draws`; with one, the words that there is no error bar over seeds."""
    if draws > 1:
        return f"{count} x {draws} draws" + (", no error bar over seeds" if count == 1 else "")
    return "1, no error bar" if count == 1 else str(count)


def latex_escape(text: object) -> str:
    """`text` with LaTeX's special characters escaped."""
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
    """Write a file atomically: under a temporary name first, then renamed."""
    with atomic_write(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_table(table: Table, folder: Path) -> None:
    """Write <name>.csv, <name>.md and <name>.tex in `folder`."""
    for suffix, text in (("csv", table.csv()), ("md", table.markdown("../")), ("tex", table.latex())):
        write(folder / f"{table.name}.{suffix}", text)
