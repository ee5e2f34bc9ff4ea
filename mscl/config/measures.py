"""The measures that have a name: one row each, from which the frozen tests and the tables take what they need.

A measure is a function (train features ND, train labels N, test features MD, test labels M) -> {column: share in [0, 1]}.
How to add one: docs/extending.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from mscl.config.module_path import refuse_unknown


@dataclass(frozen=True)
class Measure:
    """One measure of the frozen features of a backbone."""

    function: str  # module path
    columns: dict[str, str]  # what it returns -> title in the tables; what has no title is stored and not shown


MEASURES: dict[str, Measure] = {
    "probe": Measure("mscl.measures.probe:linear_probe", {"top1": "Probe top-1"}),
    "retrieval": Measure("mscl.measures.retrieval:retrieval", {"1": "R@1", "5": "R@5", "10": "R@10"}),
    "knn": Measure("mscl.measures.knn:knn", {"top1": "k-NN top-1"}),
}


def measure(name: str) -> Measure:
    """The row of a measure; one given by module path shows every column that it returns under its own name."""
    return MEASURES.get(name) or Measure(name, {})


def known_measure(name: str) -> str:
    """Check a name in a configuration; raises ValueError."""
    refuse_unknown("measure", name, list(MEASURES))
    return name
