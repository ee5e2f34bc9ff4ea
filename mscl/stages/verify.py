"""Checks a folder of results against its run cards, by content: inputs, outputs, code and configuration.

A card has the hash of a shard's index, and the index that of its tar, so the tars are read as well. For each
file that differs, the expected hash and the actual hash are printed. A missing input (such as frames that were
not pulled) is reported but is not an error unless `strict` is set. A missing output is an error.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mscl.config.schema import Config
from mscl.machine.files import sha256
from mscl.stages.jobs import Job
from mscl.stages.layout import CARD, Layout
from mscl.stages.table import STAGES, planned
from mscl.store.check import is_index, videos
from mscl.store.check import verify as check_shard

LISTED = 20  # number of missing inputs that are listed; the last line counts all of them


@dataclass
class Findings:
    """The differences and the missing inputs, one sentence each. `hashes` caches the hashes, so that no file is read twice."""

    cards: int = 0
    differ: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    def hash(self, path: str) -> str | None:
        """The sha256 of a file; None if the file is missing."""
        if path not in self.hashes:
            if not Path(path).is_file():
                return None
            self.hashes[path] = sha256(Path(path))
        return self.hashes[path]


def verify(results: Path, config: Config | None, name: str, strict: bool = False, quick: bool = False) -> int:
    """Check the results below `results` and print what differs. Returns 0, or 1 on a difference or, if `strict`, a missing input.

    Every tar that belongs to an index among the inputs is read, unless `quick`. The last line says what was not looked at.
    The settings are compared only if `config`, which messages call `name`, is that of these results. Raises ValueError when there
    is no run card.
    """
    cards = sorted(p for p in Path(results).rglob(CARD) if p.is_file())
    if not cards:
        raise ValueError(f"{results}: no run card (run.json) in this folder; give a folder of results, such as results/demo")
    found, settings = Findings(), _settings(Path(results), config)
    for path in cards:
        _check_card(path, found, settings)
    for path in sorted(set(settings or {}) - {card.resolve() for card in cards}):
        if Path(results).resolve() in path.parents:
            found.differ.append(f"{path}: missing; this run of the configuration has not finished, or its card was deleted")
    stores = _check_stores(found, quick)
    for sentence in found.differ:
        print(f"differs: {sentence}")
    for sentence in found.absent[:LISTED]:
        print(f"missing: {sentence}")
    if len(found.absent) > LISTED:
        print(f"missing: {len(found.absent) - LISTED} more inputs")
    against = (
        name
        if settings
        else f"no configuration ({name} {'belongs to other results' if config else 'is missing'}; give the right one)"
    )
    print(
        f"{results}: checked {found.cards} run cards and {len(found.hashes)} files against {against}; "
        f"differences: {len(found.differ)}, missing inputs: {len(found.absent)}"
    )
    read = (
        f"the tars of {stores} shards (--quick)" if quick else f"whether the images in the tars of {stores} shards can be decoded"
    )
    print(f"not looked at: {read}; the content of the original videos; logs and benchmarks; data that no run card names")
    return int(bool(found.differ) or (strict and bool(found.absent)))


def _settings(results: Path, config: Config | None) -> dict[Path, Job] | None:
    """Path of a run card -> the job of its run in the configuration; None if there is none, or it belongs to other results."""
    if config is None:
        return None
    root = Path(config.paths.results).resolve()
    if root != results.resolve() and root not in results.resolve().parents:
        return None
    at, found = Layout(config), {}
    for run in planned(config):
        if run.stage.carded:
            card = Path(run.stage.makes(at, **run.values)["card"]).resolve()
            found[card] = run.stage.settings(config, run.values)
    return found


def _check_card(path: Path, found: Findings, settings: dict[Path, Job] | None) -> None:
    try:
        card = json.loads(path.read_text())
        stage, inputs, outputs, job = (card[key] for key in ("stage", "inputs", "outputs", "job"))
        parts = [(part.items(), word) for part, word in ((inputs, "input"), (outputs, "output"))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found.differ.append(f"{path}: not a valid run card; run its stage again")
        return
    found.cards += 1
    for files, word in parts:
        for file, expected in files:
            have = found.hash(file)
            if have is None and word == "input":
                found.absent.append(f"{file} (input of {path})")
            elif have != expected:
                found.differ.append(f"{file} ({word} of {path}): expected {expected}, found {have or 'no such file'}")
    _check_code(path, card, found)
    if settings is not None:
        _check_job(path, job, settings.get(path.resolve()), found)


def _check_stores(found: Findings, quick: bool) -> int:
    """Check the tar of every shard index that was read; return how many there are."""
    indexes = sorted(Path(path) for path in found.hashes if is_index(Path(path)))
    for index in () if quick else indexes:
        if index.with_suffix(".tar").exists():
            found.differ += check_shard(index, decode=False)
            missing, other = videos(index)
            found.absent += missing
            found.differ += other
        else:
            found.absent.append(f"{index.with_suffix('.tar')} (tar of {index})")
    return len(indexes)


def _check_code(path: Path, card: dict, found: Findings) -> None:
    """Compare the code as the rules do: without comments and docstrings, and only with the same minor version of Python."""
    stage, expected = card["stage"], card.get("code")
    if stage not in STAGES or not isinstance(expected, dict):
        found.differ.append(f"{path}: has no hashes of the code, so an older version wrote it; run its stage again")
        return
    then, here = (str(v).rsplit(".", 1)[0] for v in (card.get("versions", {}).get("python"), platform.python_version()))
    if then != here:
        found.differ.append(
            f"{path}: made with Python {then}, but this is Python {here}; the code can only be compared with the same version"
        )
        return
    try:
        have = STAGES[stage].code_hashes(STAGES[stage].kind.model_validate(card["job"]))
    except ValueError:
        found.differ.append(f"{path}: an older version wrote its settings; run its stage again")
        return
    for file in sorted({*expected, *have}):
        if expected.get(file) != have.get(file):
            then, now = expected.get(file, "not used"), have.get(file, "not used")
            found.differ.append(f"{file} (code of {path}): expected {then}, found {now}")


def _check_job(path: Path, job: dict, wanted: Job | None, found: Findings) -> None:
    if wanted is None:
        found.differ.append(
            f"{path}: the configuration has no such run; remove the card, or give the right configuration with --config"
        )
        return
    before, now = (dict(flat(values)) for values in (job, wanted.model_dump(mode="json")))
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            expected, have = before.get(key, "missing"), now.get(key, "missing")
            found.differ.append(f"{key} (configuration of {path}): expected {expected}, found {have}")


def flat(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of nested dicts as (dotted key, value)."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value
