"""What a training is made from, by hash: a checkpoint or a partial result of anything else is not resumed."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from mscl.machine.files import sha256
from mscl.stages.jobs import Job, Source, dumps
from mscl.training.checkpoint import digest


def identity_of(
    job: Job, code: str, sources: Iterable[Source], videos: pd.DataFrame | Iterable[str], **more: str
) -> dict[str, str]:
    """Settings, code, videos (names, or the rows of a manifest with their labels), the content of every store, and what else counts.

    A source that has no flow is read without. Raises ValueError from a store's index that is not there.
    """
    if isinstance(videos, pd.DataFrame):
        videos = [f"{clip} {label}" for clip, label in zip(videos.clip_id, videos.label)]
    found = {"job": dumps(job), "code": code, "list of videos": digest(*videos)}
    return found | _stores(sources) | {name.replace("_", " "): value for name, value in more.items()}


def _stores(sources: Iterable[Source]) -> dict[str, str]:
    """Hashes of all shards of each store, in order: of their indexes, which hold the hashes of their tars."""
    found: dict[str, str] = {}
    for source in sources:
        for kind, indexes in (("frames", source.frame_indexes()), ("flow", source.flow_indexes())):
            name = f"{kind} of data set '{source.name}'"
            if indexes and name not in found:
                found[name] = digest(*map(sha256, indexes))
    return found
