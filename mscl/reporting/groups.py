"""The rows of the accuracy tables: runs that differ only in their seed, and means over folds and draws."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mscl.config.schema import Config, Target
from mscl.reporting.formats import seeds
from mscl.reporting.results import CARDS, Results


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed: a row of a table. For the mean over folds, `runs` has one row per seed, too.

    For the mean over draws of few training videos it has one per seed and draw.
    """

    shown: str  # name of the target
    target: Target
    model: str
    method: str
    runs: pd.DataFrame
    draws: int = 1

    def seeds(self, runs: pd.DataFrame) -> str:
        """What the column Seeds says of those of the runs that are finished."""
        return seeds(len(runs)) if self.draws == 1 else f"{len(runs)} ({runs['seed'].nunique()} x {self.draws} draws)"


def groups(results: Results) -> list[Group]:
    """The rows of the tables in the order of the configuration; behind the folds of a target, their mean.

    Draws of few training videos have one row, their mean.
    """
    found, config = [], results.config
    tested = {key: rows for key, rows in results.runs.groupby(["target", "model", "method"], sort=False)}
    for target in config.targets:
        if not target.draws_of:
            found += [Group(target.name, target, *key[1:], rows) for key, rows in tested.items() if key[0] == target.name]
        elif target is (draws := config.draws_of(target))[-1]:
            shown = f"{target.draws_of}, mean of {len(draws)} draws"
            found += [_mean_of(draws, shown, results, *run) for run in _runs(tested, target)]
        folds = [t for t in config.targets if target.folds_of and t.folds_of == target.folds_of]
        if folds and target is folds[-1]:
            numbers = dict.fromkeys(str(t.fold) for t in folds)
            shown = f"{target.folds_of}, mean of folds {', '.join(numbers)}"
            found += [_mean_of(folds, shown, results, *run) for run in _runs(tested, target)]
    return found


def _runs(tested: dict[tuple, pd.DataFrame], target: Target) -> list[tuple[str, str]]:
    """(model, method) of the runs on a target."""
    return list(dict.fromkeys(key[1:] for key in tested if key[0] == target.name))


def _mean_of(parts: list[Target], shown: str, results: Results, model: str, method: str) -> Group:
    """The mean over folds for each seed, and each draw, for which every fold was measured."""
    draw = {target.name: target.draw for target in parts}
    runs = results.runs
    runs = runs[runs["target"].isin(list(draw)) & (runs["model"] == model) & (runs["method"] == method)]
    each = runs.assign(draw=runs["target"].map(draw)).groupby(["seed", "draw"], sort=False)
    numbers = [*(column.key for column in results.columns), "chance", "majority"]
    means = each[numbers].agg(lambda values: values.mean(skipna=False)).reset_index()
    counts = each[["videos", "skipped"]].sum().reset_index(drop=True)
    cards = each[list(CARDS[1:])].agg("first").reset_index(drop=True)
    draws = len(set(draw.values()))
    return Group(shown, parts[0], model, method, pd.concat([means, counts, cards], axis=1), draws)


def few_said(config: Config, target: Target) -> str:
    """Behind the name of a training split: which few of its videos are used; "" for all."""
    if target.few is None:
        return ""
    draws = len(config.draws_of(target))
    return f" ({target.few.said}{f', {draws} draws' if draws > 1 else ''})"
