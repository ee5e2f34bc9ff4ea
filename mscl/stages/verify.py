"""Rechecks a tree of results against its run cards: inputs, outputs, code and configuration, by content.

A file is named with the hash that its card expects and the one found. An input that is not here (frames that nobody
pulled) is said and is no difference, unless asked for; an output that is not here is one.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mscl.config.schema import Config, load_config
from mscl.machine.files import sha256
from mscl.stages import jobs
from mscl.stages.layout import Layout
from mscl.stages.runcard import CODE, stage_code

SHOWN = 20  # sentences on files that are not here; the last line counts all


@dataclass
class Found:
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


def verify(results: Path, config: Path, strict: bool = False) -> int:
    """Print what differs below `results`; return 1 where something does, or, if `strict`, where an input is not here.

    The configuration is compared where `config` is that of these results. Raises ValueError where there is no run card to
    check against, and ConfigError where `config` is not valid.
    """
    cards = sorted(p for p in Path(results).rglob("run.json") if p.is_file())
    if not cards:
        raise ValueError(f"{results}: no run card (run.json) below it; name a folder of results, such as results/demo")
    found, settings = Found(), _settings(Path(results), config)
    for path in cards:
        _check_card(path, found, settings)
    for path in sorted(set(settings or {}) - {card.resolve() for card in cards}):
        if Path(results).resolve() in path.parents:
            found.differ.append(f"{path}: not here; the run that the configuration asks for has not ended, or its card was lost")
    for sentence in found.differ:
        print(f"differs: {sentence}")
    for sentence in found.absent[:SHOWN]:
        print(f"not here: {sentence}")
    if len(found.absent) > SHOWN:
        print(f"not here: {len(found.absent) - SHOWN} more")
    against = f"{config}" if settings else f"no configuration ({config} is not of these results; give theirs by --config)"
    print(
        f"{results}: {found.cards} run cards, {len(found.hashes)} files read, checked against {against}: "
        f"{len(found.differ)} differ, {len(found.absent)} inputs are not here"
    )
    return int(bool(found.differ) or (strict and bool(found.absent)))


def _settings(results: Path, path: Path) -> dict[Path, dict] | None:
    """Run card -> the job that the configuration at `path` gives its run; None where it is not of these results."""
    if not path.exists():
        return None
    config = load_config(path)
    root = Path(config.paths.results).resolve()
    return dict(_jobs(config)) if root == results.resolve() or root in results.resolve().parents else None


def _jobs(config: Config) -> Iterator[tuple[Path, dict]]:
    at = Layout(config)

    def one(folder: str, job) -> tuple[Path, dict]:
        return Path(at.records(folder), "run.json").resolve(), job.model_dump(mode="json")

    for model in config.models:
        yield one(at.analysis(model), jobs.analysis_job(config, model))
        for method in config.methods:
            for seed in config.seeds:
                run = (model, method, seed)
                if config.switches(method).pretrain:
                    yield one(at.pretrain(*run), jobs.pretrain_job(config, *run))
                yield one(at.finetune(*run), jobs.finetune_job(config, *run))
                if config.analysis.probe:
                    yield one(at.frozen(*run), jobs.frozen_job(config, *run))


def _check_card(path: Path, found: Found, settings: dict[Path, dict] | None) -> None:
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


def _check_code(path: Path, card: dict, found: Found) -> None:
    """Code is compared as the rules compare it: without comments and docstrings, and by the same minor version of Python."""
    stage, expected = card["stage"], card.get("code")
    if stage not in CODE or not isinstance(expected, dict):
        found.differ.append(f"{path}: names no code; it is of an older version, run its stage again")
        return
    then, here = (str(v).rsplit(".", 1)[0] for v in (card.get("versions", {}).get("python"), platform.python_version()))
    if then != here:
        found.differ.append(f"{path}: made by Python {then}, this is {here}, and code can be compared by the same one only")
        return
    have = stage_code(stage, (card["job"].get("switches") or {}).get("family"))
    for file in sorted({*expected, *have}):
        if expected.get(file) != have.get(file):
            then, now = expected.get(file, "not run"), have.get(file, "not run")
            found.differ.append(f"{file} (code of {path}): expected {then}, found {now}")


def _check_job(path: Path, job: dict, wanted: dict | None, found: Found) -> None:
    if wanted is None:
        found.differ.append(f"{path}: a run that the configuration does not ask for; remove it, or give its own by --config")
        return
    before, now = (dict(flat(values)) for values in (job, wanted))
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
