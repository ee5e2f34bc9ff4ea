"""The rows of the accuracy tables: runs that differ only in their seed, and means over folds and draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from mscl.config.schema import Config
from mscl.config.targets import Target
from mscl.reporting.formats import seeds
from mscl.reporting.results import CARDS, Column, Results, join_cards


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed: a row of a table. For the mean over folds, `runs` has one row per seed, too.

    For the mean over draws of few training videos it has one per seed and draw.
    """

    shown: str  # name of the target in tables
    name: str  # the same in a configuration: of a mean, the common name of the folds or draws
    targets: tuple[Target, ...]  # one, or those of the mean
    model: str
    method: str
    runs: pd.DataFrame

    @property
    def target(self) -> Target:
        """The first of its targets."""
        return self.targets[0]

    @property
    def draws(self) -> int:
        """Over how many draws of few training videos it is the mean."""
        return len({target.draw for target in self.targets})

    @property
    def fold_alone(self) -> bool:
        """Whether it is one fold of a target, whose mean over the folds has a row of its own."""
        return bool(self.target.folds_of) and self.name != self.target.folds_of

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
            found += [
                Group(target.name, target.name, (target,), *key[1:], rows)
                for key, rows in tested.items()
                if key[0] == target.name
            ]
        elif target is (draws := config.draws_of(target))[-1]:
            found += _means(results, tested, target.draws_of, draws)
        folds = [t for t in config.targets if target.folds_of and t.folds_of == target.folds_of]
        if folds and target is folds[-1]:
            found += _means(results, tested, target.folds_of, folds)
    return found


def _means(results: Results, tested: dict[tuple, pd.DataFrame], name: str, parts: list[Target]) -> Iterator[Group]:
    """For each model and method, the mean over those of the folds or draws `parts` that the model is tested on."""
    names = {target.name for target in parts}
    for model, method in dict.fromkeys(key[1:] for key in tested if key[0] in names):
        own = tuple(target for target in parts if (target.name, model, method) in tested)
        yield Group(_shown(name, own), name, own, model, method, _mean_of(own, results.runs, model, method, results.columns))


def _shown(name: str, parts: Sequence[Target]) -> str:
    if name == parts[0].draws_of:
        return f"{name}, mean of {len(parts)} draws"
    return f"{name}, mean of folds {', '.join(dict.fromkeys(str(target.fold) for target in parts))}"


def _mean_of(parts: Sequence[Target], runs: pd.DataFrame, model: str, method: str, columns: list[Column]) -> pd.DataFrame:
    """The mean over folds for each seed, and each draw, for which every fold was measured."""
    draw = {target.name: target.draw for target in parts}
    runs = runs[runs["target"].isin(list(draw)) & (runs["model"] == model) & (runs["method"] == method)]
    each = runs.assign(draw=runs["target"].map(draw)).groupby(["seed", "draw"], sort=False)
    numbers = [*(column.key for column in columns), "chance", "majority"]
    means = each[numbers].agg(lambda values: values.mean(skipna=False)).reset_index()
    counts = each[["videos", "skipped"]].sum().reset_index(drop=True)
    cards = each[list(CARDS)].agg(join_cards).reset_index(drop=True)
    return pd.concat([means, counts, cards], axis=1)


def few_said(config: Config, target: Target) -> str:
    """Behind the name of a training split: which few of its videos are used; "" for all."""
    if target.few is None:
        return ""
    draws = len(config.draws_of(target))
    return f" ({target.few.said}{f', {draws} draws' if draws > 1 else ''})"
