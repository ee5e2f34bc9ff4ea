"""Test videos that pretraining sees, as far as the configuration alone tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mscl.config.schema import Config
    from mscl.config.targets import Target


def seen_in_pretraining(config: Config, target: Target) -> Iterator[str]:
    """A sentence for each way in which pretraining, which sees no labels, uses test videos of the target."""
    pretrained = config.pretrain
    if target.dataset not in config.pretraining_datasets:
        return
    if pretrained.split == target.test:
        yield f"Pretraining sees all test videos, without their labels: both use split {target.test} of {target.dataset}."
    if target.fold in config.folds(target.dataset):
        yield (
            f"Pretraining uses split {pretrained.split} of fold {config.datasets[target.dataset].fold} of {target.dataset}, so it sees "
            f"test videos of fold {target.fold}, without their labels."
        )
