"""`python -m mscl publish`: a pretraining becomes a folder that others can load and cite (docs/weights.md).

The weights are the very bytes that the run card names. Nothing is written unless the card, the results and the tests belong together.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mscl.config.backbones import BACKBONES
from mscl.config.schema import Config
from mscl.machine.files import sha256, sync
from mscl.models.export import Weights, network_of, read_weights
from mscl.models.published import CONFIG, KIND, MODEL, MODEL_CARD
from mscl.reporting.model_card import render
from mscl.reporting.model_card_tables import Card
from mscl.reporting.results import Card as RunCard
from mscl.reporting.results import Results, read_results
from mscl.stages.jobs import PretrainJob
from mscl.stages.layout import MADE, METRICS, WEIGHTS, Layout
from mscl.stages.table import STAGES, planned

LICENCE = "apache-2.0"  # of what this project generates itself


@dataclass(frozen=True)
class Run:
    """A pretraining of a configuration, by its values."""

    model: str
    method: str
    seed: int

    @property
    def values(self) -> dict[str, str | int]:
        return vars(self)


def publish(folder: Path, out: Path, config: Config, source: str, licence: str | None = None) -> str:
    """Write the pretraining in `folder` (or its weights.safetensors) to the new folder `out`; returns what was written, in a sentence.

    `config`, which messages call `source`, is that of the results. Raises ValueError, one sentence, where it is not, where files are
    not those of the run cards, where tests were of other weights, for a backbone of the user's own, and without a licence for
    weights that were not trained on generated videos only.
    """
    licence = _licence(config, licence)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: exists already; give a new folder")
    run, at = _run_of(folder, config, source), Layout(config)
    backbone = config.models[run.model].backbone
    if backbone not in BACKBONES:
        raise ValueError(
            f"{folder}: backbone {backbone!r} is your own code, without which nobody can load the weights; publish both yourself"
        )
    found = read_results(config, config.paths.results)
    cards = _checked_cards(found, run, at, source)
    file = Path(at.pretrain(**run.values)) / WEIGHTS
    weights = read_weights(file)
    described = _config_json(config, run, weights, sha256(file))
    text = render(Card(found, run.model, run.method, run.seed, licence, described, cards, out.name, source))
    _write(out, file, described, text)
    return f"{out}: {weights.backbone} of width {weights.width}, {MODEL} has sha256 {described['sha256']}; read {out / MODEL_CARD} before you pass it on"


def _licence(config: Config, given: str | None) -> str:
    if given is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", given):
            raise ValueError(f"--license {given}: give an identifier such as apache-2.0, cc-by-nc-4.0 or other")
        return given
    foreign = [name for name in config.pretraining_datasets if not config.datasets[name].embedded]
    if foreign:
        raise ValueError(
            f"--license: the weights were trained on {', '.join(foreign)}, whose publishers have terms of their own; read them and give the"
            " licence of the weights, such as --license cc-by-nc-4.0"
        )
    return LICENCE


def _run_of(folder: Path, config: Config, source: str) -> Run:
    """The pretraining whose results are in `folder`."""
    wanted = (folder.parent if folder.name == WEIGHTS else folder).resolve()
    at = Layout(config)
    for job in planned(config, "pretrain"):
        if Path(at.pretrain(**job.values)).resolve() == wanted:
            return Run(**job.values)
    raise ValueError(
        f"{folder}: no pretraining of {source}, whose results are in {at.results}/pretrain/<model>/<method>/seed<k>; "
        "give such a folder, and the configuration of these results with --config"
    )


def _checked_cards(found: Results, run: Run, at: Layout, source: str) -> dict[str, str]:
    """Id of each run card of the method on the model -> its sha256, if they and their files belong together; else ValueError."""
    runs = found.runs[(found.runs["model"] == run.model) & (found.runs["method"] == run.method)]
    cards: dict[str, str] = {}
    for seed in dict.fromkeys([run.seed, *runs["seed"]]):
        folder, tests = at.pretrain(run.model, run.method, seed), list(_tests(runs[runs["seed"] == seed], found, at))
        card = found.cards.get(f"pretrain-{run.model}-{run.method}-seed{seed}")
        if card is None and not tests and seed != run.seed:
            continue  # another seed, not finished
        made = _check_outputs(card, "pretrain", folder, cards, at)
        _check_settings(card, found.config, Run(run.model, run.method, seed), source)
        for test in tests:
            _check_outputs(*test, cards, at)
            if not _made_from(test[0], made[WEIGHTS], found):
                raise ValueError(f"{test[2]}: tested other weights than those in {folder}; run its stage again")
    return cards


def _tests(rows: pd.DataFrame, found: Results, at: Layout) -> Iterator[tuple[RunCard | None, str, str]]:
    """(run card, stage, folder) of every finished test in rows of `Results.runs`."""
    for row in rows.itertuples():
        for stage in ("finetune", "linear", "frozen"):
            folder = getattr(at, stage)(row.target, row.model, row.method, row.seed)
            card = found.cards.get(getattr(row, f"{stage}_card"))
            if card is not None or Path(folder, METRICS).exists():
                yield card, stage, folder


def _check_outputs(card: RunCard | None, stage: str, folder: str, cards: dict[str, str], at: Layout) -> dict[str, str]:
    """Compare the results in a folder with its run card, which is added to `cards`; file name -> sha256."""
    if card is None:
        raise ValueError(f"{folder}: no run card ({at.card(folder)}); run its stage again, so that its results can be traced")
    told = {Path(path).name: digest for path, digest in card.content.get("outputs", {}).items()}
    for name in MADE[stage].values():
        file = Path(folder, name)
        if not file.is_file() or sha256(file) != told.get(name):
            raise ValueError(f"{file}: not the file of its run card ({at.card(folder)}); run {stage} again, or restore the file")
    cards[card.id] = sha256(Path(at.card(folder)))
    return told


def _check_settings(card: RunCard, config: Config, run: Run, source: str) -> None:
    """The settings of the card must be those of the configuration: the model card tells of these."""
    wanted = STAGES["pretrain"].settings(config, run.values)
    try:
        had = PretrainJob.model_validate(card.content["job"])
    except (KeyError, ValueError):
        raise ValueError(f"{card.id}: an older version wrote the settings of its run card; run pretrain again") from None
    for key in PretrainJob.model_fields:
        if getattr(had, key) != getattr(wanted, key):
            raise ValueError(
                f"{source}: {key} is not what {card.id} was trained with; give the configuration of these results with --config"
            )


def _made_from(card: RunCard, weights: str, found: Results) -> bool:
    """Whether a test read these weights: directly, or the features that `embed` computed with them."""
    inputs = set(card.content.get("inputs", {}).values())
    made = [c.content for c in found.cards.values() if c.where["stage"] == "embed" and weights in c.content["inputs"].values()]
    return weights in inputs or any(inputs & set(content["outputs"].values()) for content in made)


def _config_json(config: Config, run: Run, weights: Weights, digest: str) -> dict:
    """What programs need: the network, and the clips it was trained with."""
    model, net = config.models[run.model], network_of(weights)
    frames = [config.datasets[name].frames for name in config.pretrain.datasets]
    return {
        "model_type": KIND,
        "architectures": [weights.backbone],
        "backbone": weights.backbone,
        "width": weights.width,
        "feature_dim": net.feature_dim,
        "parameters": sum(p.numel() for p in net.parameters()),
        "method": run.method,
        "mean": list(weights.colours.mean),
        "std": list(weights.colours.std),
        "frames": config.clip.frames,
        "stride": config.clip.stride,
        "size": model.size,
        "step": min(f.step for f in frames),
        "short_side": min(f.short_side for f in frames),
        "sha256": digest,
    }


def _write(out: Path, file: Path, described: dict, text: str) -> None:
    """The folder, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        part.mkdir()
        shutil.copyfile(file, part / MODEL)
        if sha256(part / MODEL) != described["sha256"]:
            raise ValueError(f"{file}: changed while it was copied; run the command again")
        (part / CONFIG).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        (part / MODEL_CARD).write_text(text, encoding="utf-8")
        for path in part.iterdir():
            sync(path)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
