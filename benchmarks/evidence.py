"""The table of all runs of config/evidence.yaml, and the differences between the methods.

    snakemake --cores all --configfile config/evidence.yaml
    python benchmarks/evidence.py results/evidence > benchmarks/<date>-evidence.md

Reads only metrics and run cards. The standard error of a mean is s/√n over the seeds. The standard error of a difference is the
root of the sum of the squared standard errors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

MEASURES = {
    "finetuned top-1": ("finetune", "top1"),
    "linear probe top-1": ("frozen", "probe_top1"),
    "retrieval R@1": ("frozen", "retrieval_1"),
}
ORDER = ["scratch", "moco", "baseline", "mscl"]


def read(results: Path) -> pd.DataFrame:
    """One row per model, method and seed, with every measure (shares in [0, 1]) and the wall time of pretraining in minutes."""
    rows = []
    for path in sorted(results.glob("finetune/*/*/*/seed*/metrics.json")):
        target, model, method, seed = path.parts[-5:-1]
        tuned = json.loads(path.read_text())
        frozen = json.loads((results / "frozen" / target / model / method / seed / "metrics.json").read_text())
        card = results / "cards" / "pretrain" / model / method / seed / "run.json"
        minutes = json.loads(card.read_text())["wall_seconds"] / 60 if card.exists() else 0.0
        values = {
            "finetune": tuned,
            "frozen": {f"{m}_{k}": v for m, found in frozen["measures"].items() for k, v in found.items()},
        }
        row = {"model": model, "method": method, "seed": int(seed[4:])}
        row |= {name: values[stage][key] for name, (stage, key) in MEASURES.items()}
        rows.append(row | {"test videos": tuned["videos"], "chance": tuned["chance"], "pretraining, minutes": minutes})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    return table.sort_values(["model", "method", "seed"], key=lambda c: c.map(ORDER.index) if c.name == "method" else c)


def differences(runs: pd.DataFrame, ours: str = "mscl") -> pd.DataFrame:
    """For each measure and other method: the mean difference, its standard error, and their ratio."""
    grouped = runs.groupby("method")[list(MEASURES)]
    mean, error = grouped.mean(), grouped.sem()
    rows = []
    for measure in MEASURES:
        for rival in [m for m in ORDER if m in mean.index and m != ours]:
            gap = mean.loc[ours, measure] - mean.loc[rival, measure]
            sem = (error.loc[ours, measure] ** 2 + error.loc[rival, measure] ** 2) ** 0.5
            rows.append(
                {
                    "measure": measure,
                    "difference": f"{ours} - {rival}",
                    "mean": gap,
                    "standard error": sem,
                    "in standard errors": gap / sem,
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results/evidence")
    runs = read(results)
    if runs.empty:
        raise SystemExit(f"{results}: no finished run; run the workflow first")
    card = json.loads(next(results.glob("cards/finetune/*/*/*/seed*/run.json")).read_text())
    print(f"Hardware: {card['hardware']}. Versions: " + ", ".join(f"{k} {v}" for k, v in card["versions"].items()))
    print(f"Commit: {card['git_commit']}\n\n## Every run\n")
    print(runs.to_markdown(index=False, floatfmt=".3f"))
    print("\n## Mean over seeds, with the standard error of the mean\n")
    grouped = runs.groupby("method", sort=False)[list(MEASURES)]
    print((grouped.mean().map("{:.3f}".format) + " ± " + grouped.sem().map("{:.3f}".format)).to_markdown())
    print("\n## Differences\n")
    print(differences(runs).to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
