"""The claims box: what the paper and the design of its method claim, and whether it holds in this run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mscl.config.schema import Config
from mscl.reporting.formats import DASH, Table, table_of
from mscl.reporting.paired import LEAST, Block, Difference, blocks, difference, once, t_quantile
from mscl.reporting.results import Column, Results

RIVALS = ("rho-moco", "modist", "corp-m", "corp-f")  # families of the supplement's Table 1
DESIGN = "its design"  # no source that we have states it with a number, but the method is built for it
ONE_SEED = "one seed: no error bar over seeds"
RULE = (
    f"Differences are in percentage points, over the seeds that both methods have, ± the standard error. A claim holds if the mean difference over at least "
    f"{LEAST} seeds is more than t standard errors above 0, does not hold if it is more than t below 0, and is not decided in between; "
    f"t is the 97.5 % quantile of Student's t with n − 1 degrees of freedom ({t_quantile(3):.2f} for 3 seeds, {t_quantile(5):.2f} for 5, "
    f"{t_quantile(10):.2f} for 10). So of claims about equal methods, about 1 in 40 is said to hold by chance."
)
RULE_ONE = (
    " With one seed, ± is the standard error of one test: after finetuning of a paired test (McNemar's form: √(b + c − (b − c)²/N) / N, where b and c of the N "
    "videos are right under one method only), otherwise as if the two methods had been tested on different videos. "
    "It says nothing about another seed, so no claim is decided by it."
)
LONG = (
    *("claim", "better", "worse", "stated_in", "target", "model", "measure"),
    *("difference", "standard_error", "seeds", "t", "videos", "error_from", "verdict"),
)


@dataclass(frozen=True)
class Claim:
    """One claim: method `better` scores higher than method `worse`."""

    text: str
    better: str
    worse: str
    stated: str  # where


CLAIMS = (
    Claim("MSCL > baseline", "mscl", "baseline", "supplement §2"),
    Claim("baseline > MoCo", "baseline", "moco", DESIGN),
    Claim("MSCL > MoCo", "mscl", "moco", DESIGN),
    Claim("MSCL > scratch", "mscl", "scratch", DESIGN),
    Claim("LMCL helps: lmcl > baseline", "lmcl", "baseline", DESIGN),
    Claim("FRA helps: lmcl+fra > lmcl", "lmcl+fra", "lmcl", DESIGN),
    Claim("FRA helps beside MDS: MSCL > lmcl+mds", "mscl", "lmcl+mds", DESIGN),
    Claim("MDS helps: lmcl+mds > lmcl", "lmcl+mds", "lmcl", DESIGN),
    Claim("MDS helps beside FRA: MSCL > lmcl+fra", "mscl", "lmcl+fra", DESIGN),
)


def claims_of(config: Config, model: str) -> list[Claim]:
    """The claims that the methods of a model can test; those on rivals follow the first four."""
    run = config.methods_of(model)
    rivals = [m for m in run if config.switches(m).pretrain and config.switches(m).family in RIVALS]
    against = [Claim(f"MSCL > {config.title(m)}", "mscl", m, "supplement, Table 1") for m in rivals]
    return [claim for claim in (*CLAIMS[:4], *against, *CLAIMS[4:]) if {claim.better, claim.worse} <= set(run)]


def cell(found: Difference) -> str:
    """A cell of the box: the difference, its error, the number of seeds, and the verdict after the last colon."""
    if found.seeds == 0:
        return found.verdict
    return f"{found.text()}; {ONE_SEED if found.seeds == 1 else f'n = {found.seeds}'}: {found.verdict}"


def claims_table(results: Results) -> Table | None:
    """One row per claim, target and model, with a column per measure; its CSV has a row per measure. None if no claim can be tested."""
    records, long = [], []
    titles: dict[str, Column] = {}
    for block in blocks(results):
        for claim in claims_of(results.config, block.model):
            found = {c.key: difference(results, block, c, claim.better, claim.worse) for c in block.columns}
            titles |= {c.key: c for c in block.columns}
            records.append({"claim": claim, "block": block, "found": found, "group": f"b{len(records)}"})
            long += [_long(claim, block, titles[key], one) for key, one in found.items()]
    if not records:
        return None
    several = len(results.config.targets) > 1, len(results.config.models) > 1
    shown: dict[str, Any] = {"Claim": lambda r: r["claim"].text}
    shown |= {"Target": lambda r: r["block"].shown} if several[0] else {}
    shown |= {"Model": lambda r: r["block"].model} if several[1] else {}
    shown |= {c.title: lambda r, key=key: cell(r["found"][key]) if key in r["found"] else DASH for key, c in titles.items()}
    shown |= {"Stated in": lambda r: r["claim"].stated}
    one = any(row["seeds"] == 1 for row in long)
    table = table_of(
        "claims",
        "What the run says about each claim",
        records,
        shown,
        (),
        caption=RULE + once(results.config) + (RULE_ONE if one else ""),
        notes=["One seed: no error bar over seeds. None of these claims can be decided."] if _all_single(long) else [],
        wide=(*(c.title for c in titles.values()), "Stated in"),
    )
    table.data, table.groups = pd.DataFrame(long, columns=list(LONG)), []
    return table


def _all_single(long: list[dict]) -> bool:
    return {row["seeds"] for row in long} == {1}


def _long(claim: Claim, block: Block, column: Column, found: Difference) -> dict:
    """A row of claims.csv; the difference and its error are in percentage points."""
    return {
        "claim": claim.text,
        "better": claim.better,
        "worse": claim.worse,
        "stated_in": claim.stated,
        "target": block.shown,
        "model": block.model,
        "measure": column.key,
        "difference": 100 * found.mean,
        "standard_error": 100 * found.error,
        "seeds": found.seeds,
        "t": t_quantile(found.seeds) if found.seeds >= LEAST else None,
        "videos": found.videos or None,
        "error_from": "seeds" if found.seeds > 1 else found.how,
        "verdict": found.verdict,
    }
