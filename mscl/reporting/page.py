"""The self-contained HTML page: fills in the template."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from mscl.config.foreign import foreign_of
from mscl.config.methods import Switches
from mscl.config.recipes import Finetune, Optim
from mscl.config.schema import Config
from mscl.config.settings import MethodSettings
from mscl.reporting.formats import Table
from mscl.reporting.results import Card, Results
from mscl.reporting.tables import banner, few_said, foreign_notes

SHOWN_FILES = 12  # hashes of a run card shown on the page; its JSON file holds all of them
SWITCHES = {
    "pretrain": "Pretrained",
    "family": "Family",
    "clips": "Clips of a video",
    "flow": "Flow MoCo + cross-modal",
    "flow_contrast": "Flow→flow",
    "rotated": "Rotated flow",
    "lmcl": "LMCL",
    "fra": "FRA negatives",
    "mds": "MDS",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its file name in the report's figures/, title, caption and PNG bytes."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def render(results: Results, tables: dict[str, Table], pictures: dict[str, Sequence[Picture]]) -> str:
    """The page as HTML text. `tables` is keyed by name, `pictures` by section ("gradcam", "curves")."""
    environment = Environment(
        loader=PackageLoader("mscl.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        config=results.config,
        banner=banner(results.config),
        summary=summary(results),
        partly=any(model.methods or model.targets for model in results.config.models.values()),
        foreign=dict.fromkeys(results.config.title(method) for _, method, _ in foreign_of(results.config)),
        switches=switches(results.config),
        labels=SWITCHES,
        tables=tables,
        pictures=pictures,
        missing=results.missing,
        cards=[_card(card) for card in results.cards.values()],
        commits=commits(results),
    )


def summary(results: Results) -> list[tuple[str, str]]:
    """The data, models, methods, seeds and code of the runs, as (label, value) pairs."""
    config = results.config
    done = int(results.runs[[column.key for column in results.columns]].notna().any(axis=1).sum())
    rows = [
        ("Pretraining data", _pretraining_data(config)),
        *(
            (
                f"Target {t.shown}",
                f"{t.dataset}: learnt on {t.train}{few_said(config, t)}, tested on {t.test}: {', '.join(t.measures)}",
            )
            for t in config.targets
            if t is config.draws_of(t)[0]
        ),
    ]
    rows += [(f"Model {name}", _model(config, name)) for name in config.models]
    rows += [
        ("Methods", ", ".join(config.methods)),
        *((f"Only {config.title(method)}", text) for method in config.methods if (text := _own(config, method))),
        *(("Others' weights", note) for note in foreign_notes(config)),
        ("Seeds", ", ".join(map(str, config.seeds))),
        ("Flow", _flow(config)),
        ("Runs finished", f"{done} of {len(results.runs)}"),
        ("Code", ", ".join(commits(results)) or "commit unknown"),
    ]
    return rows


def _model(config: Config, name: str) -> str:
    """A model and the recipes of what it is used for."""
    model, targets = config.models[name], config.targets_of(name)
    said = [f"{model.backbone}, width {model.width}, {model.size} px"]
    if set(config.pretrained_methods) & set(config.methods_of(name)):
        said.append(f"pretraining {_recipe(model.pretrain)}")
    said += _recipes("finetuning", {t.shown: config.finetune_of(t.name, name) for t in targets if t.finetuned})
    said += _recipes("linear evaluation", {t.shown: config.linear_of(t.name, name) for t in targets if t.linear_evaluated})
    said += [f"only {key} {', '.join(names)}" for key, names in (("methods", model.methods), ("targets", model.targets)) if names]
    return "; ".join(said)


def _pretraining_data(config: Config) -> str:
    if not config.pretraining_datasets:
        return "none: no method is pretrained here"
    return f"{', '.join(config.pretraining_datasets)}, split {config.pretrain.split}"


def _recipes(what: str, recipes: dict[str, Finetune]) -> list[str]:
    """One text per recipe, with the names of its targets where they have different ones."""
    found: dict[str, list[str]] = {}
    for target, recipe in recipes.items():
        found.setdefault(f"{_recipe(recipe)}, {recipe.frames} frames", []).append(target)
    return [f"{what}{f' on {_and(names)}' if len(found) > 1 else ''} {said}" for said, names in found.items()]


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _recipe(recipe: Optim) -> str:
    return f"{recipe.epochs} epochs, batch {recipe.batch}, {recipe.optimizer}, learning rate {recipe.lr:g}"


def _own(config: Config, method: str) -> str:
    """The values of `method_settings` that differ for one method, as "contrast.temperature 0.5; …"; empty if none does."""
    own = config.method_settings.get(method, MethodSettings())
    sections = {"contrast": own.contrast, "pretrain": own.pretrain, "augment": own.augment}
    return "; ".join(f"{name}.{key} {value}" for name, part in sections.items() for key, value in part if value is not None)


def _flow(config: Config) -> str:
    flow = config.flow
    return f"{flow.method.upper()}, frame i to i+{flow.gap}, at {flow.size[0]}x{flow.size[1]} (H x W)"


def commits(results: Results) -> list[str]:
    """The commits named in the run cards, as 10 hex digits, marked where the code had local changes."""
    found = {str(card.content.get("git_commit") or "") for card in results.cards.values()} - {""}
    return sorted(f"{c[:10]} with local changes" if c.endswith("+") else c[:10] for c in found)


def switches(config: Config) -> list[tuple[str, list[str]]]:
    """(title, one text per column of `SWITCHES`) of each method; empty texts for what is off or does not apply."""
    return [(config.title(method), _marks(config.switches(method))) for method in config.methods]


def _marks(made: Switches) -> list[str]:
    """The switches of a method as text. A method without pretraining has none; flow→flow needs flow."""
    if not made.pretrain:
        return [""] * len(SWITCHES)
    return ["" if name == "flow_contrast" and not made.flow else _mark(getattr(made, name)) for name in SWITCHES]


def _mark(value: object) -> str:
    if value is True:
        return "yes"
    return "" if value is False or value == "none" else str(value)


def _card(card: Card) -> dict:
    """A run card for the page: its JSON with long lists of files shortened."""
    content = dict(card.content)
    for key in ("inputs", "outputs", "code"):
        files = content.get(key)
        if isinstance(files, dict) and len(files) > SHOWN_FILES:
            kept = dict(list(files.items())[:SHOWN_FILES])
            content[key] = kept | {"…": f"{len(files) - SHOWN_FILES} more in cards/{card.id}.json"}
    title = " · ".join(card.where.values()).replace("seed", "seed ")
    return {"id": card.id, "title": title, "text": json.dumps(content, indent=1, ensure_ascii=False)}
