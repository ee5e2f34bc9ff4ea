"""Rechecks a tree of results against its run cards: inputs, outputs, code and configuration, by content.

A card has the hash of a shard's index, and the index that of its tar, so the tars are read as well.

A file is named with the hash that its card expects and the one found. A missing input (frames that
nobody pulled) is reported but is not an error, unless asked for; a missing output is one.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mscl.config.schema import load_config
from mscl.machine.files import sha256
from mscl.stages.jobs import Job
from mscl.stages.layout import CARD, Layout
from mscl.stages.table import STAGES, planned
from mscl.store.check import is_index
from mscl.store.check import verify as check_shard

LISTED = 20  # sentences on files that are not here; the last line counts all


@dataclass
class Findings:
    """Sentences on what differs and on what is not here; `hashes` spares reading a file twice."""

    cards: int = 0
    differ: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    def hash(self, path: str) -> str | None:
        """sha256 of a file, None where it is not here."""
        if path not in self.hashes:
            if not Path(path).is_file():
                return None
            self.hashes[path] = sha256(Path(path))
        return self.hashes[path]


def verify(results: Path, config: Path, strict: bool = False, quick: bool = False) -> int:
    """Print what differs below `results`; return 1 where something does, or, if `strict`, where an input is not here.

    Every tar that an index among the inputs belongs to is read, unless `quick`. The last line says what was not looked at.

    The configuration is compared where `config` is that of these results. Raises ValueError where there is no run card to
    check against, and ConfigError where `config` is not valid.
    """
    cards = sorted(p for p in Path(results).rglob(CARD) if p.is_file())
    if not cards:
        raise ValueError(f"{results}: no run card (run.json) below it; name a folder of results, such as results/demo")
    found, settings = Findings(), _settings(Path(results), config)
    for path in cards:
        _check_card(path, found, settings)
    for path in sorted(set(settings or {}) - {card.resolve() for card in cards}):
        if Path(results).resolve() in path.parents:
            found.differ.append(f"{path}: not here; the run that the configuration asks for has not ended, or its card was lost")
    stores = _check_stores(found, quick)
    for sentence in found.differ:
        print(f"differs: {sentence}")
    for sentence in found.absent[:LISTED]:
        print(f"not here: {sentence}")
    if len(found.absent) > LISTED:
        print(f"not here: {len(found.absent) - LISTED} more")
    against = f"{config}" if settings else f"no configuration ({config} is not of these results; give theirs by --config)"
    print(
        f"{results}: {found.cards} run cards, {len(found.hashes)} files read, checked against {against}: "
        f"{len(found.differ)} differ, {len(found.absent)} inputs are not here"
    )
    read = (
        f"the tars of {stores} shards (--quick)" if quick else f"whether the images in the tars of {stores} shards can be decoded"
    )
    print(f"not looked at: {read}; the original videos; logs and benchmarks; data that no run card names")
    return int(bool(found.differ) or (strict and bool(found.absent)))


def _settings(results: Path, path: Path) -> dict[Path, Job] | None:
    """Run card -> the job that the configuration at `path` gives its run; None where it is not of these results."""
    if not path.exists():
        return None
    config = load_config(path)
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
        found.differ.append(f"{path}: not a run card, or a damaged one; run its stage again")
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
        else:
            found.absent.append(f"{index.with_suffix('.tar')} (tar of {index})")
    return len(indexes)


def _check_code(path: Path, card: dict, found: Findings) -> None:
    """Code is compared as the rules compare it: without comments and docstrings, and by the same minor version of Python."""
    stage, expected = card["stage"], card.get("code")
    if stage not in STAGES or not isinstance(expected, dict):
        found.differ.append(f"{path}: names no code; it is of an older version, run its stage again")
        return
    then, here = (str(v).rsplit(".", 1)[0] for v in (card.get("versions", {}).get("python"), platform.python_version()))
    if then != here:
        found.differ.append(f"{path}: made by Python {then}, this is {here}, and code can be compared by the same one only")
        return
    try:
        have = STAGES[stage].code_hashes(STAGES[stage].kind.model_validate(card["job"]))
    except ValueError:
        found.differ.append(f"{path}: its settings are of an older version; run its stage again")
        return
    for file in sorted({*expected, *have}):
        if expected.get(file) != have.get(file):
            then, now = expected.get(file, "not run"), have.get(file, "not run")
            found.differ.append(f"{file} (code of {path}): expected {then}, found {now}")


def _check_job(path: Path, job: dict, wanted: Job | None, found: Findings) -> None:
    if wanted is None:
        found.differ.append(f"{path}: a run that the configuration does not ask for; remove it, or give its own by --config")
        return
    before, now = (dict(flat(values)) for values in (job, wanted.model_dump(mode="json")))
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            expected, have = before.get(key, "absent"), now.get(key, "absent")
            found.differ.append(f"{key} (configuration of {path}): expected {expected}, found {have}")


def flat(value, key: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of nested dicts as (dotted key, value)."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value
