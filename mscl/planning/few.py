"""The few training videos of low-shot targets: how many there will be, and whether there are enough. Light, as `mscl check` is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mscl.config.schema import Config
from mscl.config.targets import Target
from mscl.stages.build import source
from mscl.stages.jobs import FOLD


def used_videos(target: Target, there: int, classes: int) -> int:
    """The training videos that a target uses of the `there` usable ones, which are of `classes` classes."""
    if target.few is None:
        return there
    return min(there, target.examples or target.per_class * classes)


def too_few_videos(config: Config) -> Iterator[str]:
    """A sentence for each target with too few usable training videos, where there is a manifest."""
    said = {}
    for target in (target for target in config.targets if target.few):
        videos = _usable(config, target)
        if videos is not None:
            from mscl.training.few import too_few  # here, since it takes pandas

            said[target.shown] = too_few(videos, target.few)
    yield from (f"target {name}: {why}" for name, why in said.items() if why)


def _usable(config: Config, target: Target) -> Counter | None:
    """Usable training videos per class name; None without a manifest that can be read."""
    found = source(config, target.dataset, fold=target.fold)
    if not Path(found.manifest).exists():
        return None
    import pyarrow
    import pyarrow.parquet

    split = "split" if found.fold is None else f"{FOLD}{found.fold}"
    names = [split, "status", "label", "class_name"]
    try:
        columns = pyarrow.parquet.read_table(found.manifest, columns=names).to_pydict()
        rows = zip(*(columns[name] for name in names), strict=True)
    except (OSError, ValueError, KeyError, pyarrow.ArrowException):
        return None
    return Counter(name for of, status, label, name in rows if of == target.train and status == "ok" and label >= 0)
