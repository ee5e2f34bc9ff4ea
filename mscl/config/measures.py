"""The table of built-in measures of frozen features. The frozen tests and the report's tables read it.

A measure is a function (train features (N, D), train labels (N,), test features (M, D), test labels (M,)) -> {column: share in
[0, 1]}. If it has a parameter `groups`, it gets the recordings of the train videos, (N,) numbers, so that it can keep them together
where it splits these videos. docs/extending.md explains how to add one.
"""

from __future__ import annotations

from dataclasses import dataclass

from mscl.config.module_path import refuse_unknown


@dataclass(frozen=True)
class Measure:
    """One measure of the frozen features of a backbone."""

    function: str  # its module path
    columns: dict[str, str]  # returned column -> title in the tables; columns without a title are stored but not shown


# Stand beside these in the measures of a target: top-1 and top-5 of a classifier that is trained on clips, by the stage of that name.
FINETUNE, LINEAR = "finetune", "linear"
TRAINED = (FINETUNE, LINEAR)

MEASURES: dict[str, Measure] = {
    "probe": Measure("mscl.measures.probe:linear_probe", {"top1": "Probe top-1"}),
    "retrieval": Measure("mscl.measures.retrieval:retrieval", {"1": "R@1", "5": "R@5", "10": "R@10"}),
    "logistic": Measure("mscl.measures.logistic:logistic", {"top1": "Logistic top-1"}),
    "knn": Measure("mscl.measures.knn:knn", {"top1": "k-NN top-1"}),
}


def measure(name: str) -> Measure:
    """The row of a measure. A measure given by module path has no titles: the tables show all columns that it returns."""
    return MEASURES.get(name) or Measure(name, {})


def short_name(name: str) -> str:
    """What the tables call a measure: its name, or that of its function."""
    return name.rpartition(":")[2]


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names` if the tables can tell their columns apart; else raise ValueError."""
    for n, name in enumerate(names):
        same = next((other for other in names[:n] if short_name(other) == short_name(name)), None)
        if same == name:
            raise ValueError(f"'{name}' is listed twice; remove one")
        if same:
            raise ValueError(
                f"'{same}' and '{name}' would both be '{short_name(name)}' in the tables; rename the function of one"
            )
    return names


def known_measure(name: str) -> str:
    """Return `name` if it is a training, a known measure, or a module path that exists; else raise ValueError."""
    refuse_unknown("measure", name, [*TRAINED, *MEASURES])
    return name
