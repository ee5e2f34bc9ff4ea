"""Differences between two methods, paired by seed, with their standard errors. The claims and the ablation table read them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mscl.config.schema import Config
from mscl.config.targets import Target
from mscl.reporting.formats import DASH
from mscl.reporting.groups import groups
from mscl.reporting.results import CARDS, Column, Results, join_cards, main_columns

LEAST = 3  # seeds for a verdict
LEVEL = 0.975  # of the quantile of Student's t: a two-sided interval of 95 %
PAIRED, UNPAIRED = "videos", "videos, unpaired"  # what the error of a single seed is computed from


@dataclass(frozen=True)
class Difference:
    """A mean difference of two methods over the seeds that both have. Shares; NaN where there is none."""

    mean: float
    error: float  # standard error of `mean`
    seeds: int
    videos: int = 0  # with one seed: the number of test videos that `error` is computed from
    how: str = ""  # with one seed: PAIRED or UNPAIRED; "" for an error over seeds, or none

    @property
    def margin(self) -> float:
        """Half of the 95 % interval over seeds; NaN below 2 seeds."""
        return t_quantile(self.seeds) * self.error if self.seeds > 1 else math.nan

    @property
    def verdict(self) -> str:
        """Whether the first method is better, by the rule of `mscl.reporting.claims.RULE`."""
        if self.seeds == 0:
            return "not measured"
        if self.seeds < LEAST:
            return "not enough seeds"
        if self.mean > self.margin:
            return "holds"
        return "does not hold" if self.mean < -self.margin else f"not decided at {self.seeds} seeds"

    def text(self) -> str:
        """In percentage points, such as "+9.2 ± 3.4"; with one seed, also what the error is computed from."""
        if self.seeds == 0:
            return DASH
        error = "" if math.isnan(self.error) else f" ± {100 * self.error:.1f}"
        return f"{100 * self.mean:+.1f}{error}" + (f" ({self.videos} test {self.how})" if error and self.how else "")


NONE = Difference(math.nan, math.nan, 0)


def t_quantile(seeds: int) -> float:
    """The 97.5 % quantile of Student's t with `seeds` - 1 degrees of freedom."""
    return float(stdtrit(seeds - 1, LEVEL))


def over_seeds(differences: Sequence[float]) -> Difference:
    """Mean and standard error of one difference per seed: sample standard deviation / root of the number (Student, Biometrika 1908)."""
    values = np.asarray(differences, dtype=float)
    if not len(values):
        return NONE
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Difference(float(values.mean()), float(error), len(values))


def mcnemar(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Difference of two accuracies on the same videos, and its standard error √(b + c − (b − c)²/N) / N.

    b of the N videos are right under the first method only, c under the second only (McNemar, Psychometrika 1947). NaN without videos.
    The N values are 1 where a method is right and 0 where not; the share of its draws that are right gives the same error of a mean.
    """
    each = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    n, total = len(each), each.sum()
    return (float(total / n), math.sqrt((each**2).sum() - total**2 / n) / n) if n else (math.nan, math.nan)


def binomial(first: float, second: float, videos: int) -> float:
    """Standard error of the difference of two shares, each of `videos` videos, as if the two were tested on different videos."""
    return math.sqrt((first * (1 - first) + second * (1 - second)) / videos) if videos else math.nan


def once(config: Config) -> str:
    """What a table of differences says of draws of few training videos; "" where no target has several."""
    return " The draws of a seed count as one value: their mean." if any(t.draws_of for t in config.targets) else ""


@dataclass(frozen=True)
class Block:
    """The runs of one model on one target. Of a target with folds or draws, the means over these: one per seed."""

    shown: str  # name of the target in tables
    targets: tuple[Target, ...]  # one, or all folds and draws
    model: str
    runs: dict[str, pd.DataFrame]  # method -> one row per seed
    draws: int = 1  # of few training videos, whose mean a row is

    @property
    def columns(self) -> list[Column]:
        """The first column of each measure."""
        return main_columns(self.targets[0])


def blocks(results: Results) -> Iterator[Block]:
    """One block per target and model, in the order of the tables."""
    found: dict[tuple[str, str], Block] = {}
    for group in groups(results):
        if group.fold_alone:
            continue
        block = found.setdefault((group.shown, group.model), Block(group.shown, group.targets, group.model, {}, group.draws))
        block.runs[group.method] = group.runs if group.draws == 1 else _per_seed(group.runs, results.columns)
    yield from found.values()


def _per_seed(runs: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """One row per seed: the mean over its draws, if all of them were measured. Draws of a seed share its pretraining, so they count once."""
    each = runs.groupby("seed", sort=False)
    means = each[[*(column.key for column in columns), "videos"]].agg(lambda values: values.mean(skipna=False)).reset_index()
    return pd.concat([means, each[list(CARDS[1:])].agg(join_cards).reset_index(drop=True)], axis=1)


def difference(results: Results, block: Block, column: Column, first: str, second: str) -> Difference:
    """`first` minus `second` in one measure, over the seeds that both have; with one seed, the error is that of its test videos."""
    if not {first, second} <= set(block.runs) or column.key not in block.runs[first]:
        return NONE
    both = [block.runs[m].set_index("seed")[[column.key, "videos"]].dropna() for m in (first, second)]
    joined = both[0].join(both[1], how="inner", lsuffix="_first", rsuffix="_second")
    one, other = joined[f"{column.key}_first"], joined[f"{column.key}_second"]
    found = over_seeds(one - other)
    if found.seeds != 1:
        return found
    if column.stage == "finetune":
        return _one_seed(results, block, found, int(joined.index[0]), first, second)
    videos = int(joined[["videos_first", "videos_second"]].min(axis=1).iloc[0])
    return Difference(found.mean, binomial(one.iloc[0], other.iloc[0], videos), 1, videos, UNPAIRED)


def _one_seed(results: Results, block: Block, found: Difference, seed: int, first: str, second: str) -> Difference:
    """The difference of one seed with the error of its test: the mean of the folds' tests. Draws of a fold have the same test videos."""
    tests = []
    for fold in dict.fromkeys(target.fold for target in block.targets):
        names = [target.name for target in block.targets if target.fold == fold]
        right = [_right(results, names, block.model, method, seed) for method in (first, second)]
        if any(one is None for one in right):
            return found
        both = pd.concat(right, axis=1, join="inner")
        tests.append((mcnemar(both.iloc[:, 0], both.iloc[:, 1])[1], len(both)))
    error = math.sqrt(sum(error**2 for error, _ in tests)) / len(tests)
    return Difference(found.mean, error, 1, sum(videos for _, videos in tests), PAIRED)


def _right(results: Results, targets: list[str], model: str, method: str, seed: int) -> pd.Series | None:
    """clip_id -> share of the draws under which a method is right about a test video; None if one of them has no answers."""
    answers = [results.right.get((target, model, method, seed)) for target in targets]
    return None if any(one is None for one in answers) else pd.concat(answers, axis=1, join="inner").mean(axis=1)
