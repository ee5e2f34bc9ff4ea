"""Table 4: the parts of the method one after the other, each with its difference to the row above, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mscl.reporting.formats import DASH, Table, mean_sd, seeds, table_of
from mscl.reporting.paired import NONE, Block, Difference, blocks, difference, once
from mscl.reporting.results import Column, Results, cards_in
from mscl.reporting.tables import SPREAD

LADDER = ("scratch", "moco", "baseline", "lmcl", "lmcl+fra", "lmcl+mds", "mscl", "mscl-released")  # method.md §7
WHOLE = "mscl"


def ladder(methods: Sequence[str]) -> list[tuple[str, str]]:
    """(method, the method that it is compared with) in the order of the table.

    A row of `LADDER` is compared with the row above, the first with none (""). The others (rivals, own methods) follow in their order,
    compared with MSCL, or with the row above where MSCL is not among the methods.
    """
    steps = [method for method in LADDER if method in methods]
    found = list(zip(steps, ["", *steps]))
    for method in methods:
        if method not in LADDER:
            found.append((method, WHOLE if WHOLE in methods else found[-1][0] if found else ""))
    return found


def ablation_table(results: Results) -> Table | None:
    """One block of rows per target, model and measure. None with fewer than two methods."""
    config, records = results.config, []
    for block in blocks(results):
        steps = ladder(list(block.runs))
        for column in block.columns if len(steps) > 1 else ():
            label = f"measured b{len(records)}"
            records += [_record(results, block, column, method, other) | {"group": label} for method, other in steps]
    if not records:
        return None
    shown: dict[str, Any] = {"Target": lambda r: r["target"]} if len(config.targets) > 1 else {}
    shown |= {"Model": lambda r: r["model"]} if len(config.models) > 1 else {}
    shown |= {
        "Measure": lambda r: r["title"],
        "Method": lambda r: config.title(r["method"]),
        "Mean ± sd": lambda r: mean_sd(r["mean"] / 100, r["sd"] / 100),
        "Seeds": lambda r: seeds(r["seeds"], r["draws"]),
        "Δ": lambda r: DASH if math.isnan(r["difference"]) else f"{r['difference']:+.1f}",
        "± s.e.": lambda r: _error(r["found"]),
        "Paired seeds": lambda r: str(r["paired_seeds"]) if r["compared_with"] else DASH,
        "Δ to": lambda r: config.title(r["compared_with"]) if r["compared_with"] else DASH,
    }
    return table_of(
        "ablation",
        "Table 4. Ablation",
        records,
        shown,
        (
            *("target", "model", "measure", "method", "mean", "sd", "seeds"),
            *("compared_with", "difference", "standard_error", "paired_seeds", "videos", "error_from"),
        ),
        caption=f"The parts of the method one after the other. {SPREAD} Δ is the difference to the method in the last column (the row above; for rivals and own "
        "methods, MSCL) in percentage points, over the seeds that both have, with the standard error of this difference paired by seed. With one seed, "
        f"the error is that of one test of so many videos, as explained under the claims; it says nothing about another seed.{once(config)}",
    )


def _error(found: Difference) -> str:
    """The standard error in percentage points, with what it is computed from when there is one seed."""
    if math.isnan(found.error):
        return DASH
    return f"{100 * found.error:.1f}" + (f" ({found.videos} {found.how})" if found.how else "")


def _record(results: Results, block: Block, column: Column, method: str, other: str) -> dict[str, Any]:
    """A row: mean and deviation of a method in percent, and its difference to `other` in percentage points."""
    runs = block.runs[method]
    done = runs[runs[column.key].notna()] if column.key in runs else runs.iloc[:0]
    values = done[column.key] if len(done) else done["seed"].astype(float)
    found = difference(results, block, column, method, other) if other else NONE
    return {
        "target": block.shown,
        "model": block.model,
        "measure": column.key,
        "title": column.title,
        "method": method,
        "mean": 100 * values.mean(),
        "sd": 100 * values.std(ddof=1),
        "seeds": len(done),
        "draws": block.draws,
        "compared_with": other,
        "difference": 100 * found.mean,
        "standard_error": 100 * found.error,
        "paired_seeds": found.seeds,
        "videos": found.videos or None,
        "error_from": "" if not other else "seeds" if found.seeds > 1 else found.how,
        "found": found,
        "cards": {"Mean ± sd": cards_in(done[f"{column.stage}_card"])},
    }
