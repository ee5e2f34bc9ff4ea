"""What `mscl check` says beyond the validity of a configuration: its data sets, jobs, missing files, and keys without effect.

Must stay light: pyarrow is imported only if there is a manifest, and nothing else beyond the configuration.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mscl.config.datasets import Dataset
from mscl.config.foreign import foreign_of
from mscl.config.formats import SSV2_OLDER
from mscl.config.leaks import seen_in_pretraining
from mscl.config.schema import Config
from mscl.config.validation import ConfigError, did_you_mean
from mscl.machine.files import sha256
from mscl.planning.few import too_few_videos, used_videos
from mscl.reporting.paper import differences
from mscl.stages.build import adopt_job, given_datasets, used_datasets
from mscl.stages.layout import Layout
from mscl.stages.table import planned


class Counted(NamedTuple):
    """A written manifest: videos and usable videos per split, classes of usable videos per split, and all class names."""

    videos: Counter
    usable: Counter
    classes: dict[str, set[int]]
    names: set[str]


def describe(config: Config) -> list[str]:
    """Lines on data sets, jobs, missing files and keys without effect. Raises `ConfigError` with every contradiction to the data."""
    counted = {name: _counted(Path(Layout(config).manifest(name))) for name in used_datasets(config)}
    if wrong := [*_classes(config, counted), *too_few_videos(config), *_batches(config, counted), *_unfit(config)]:
        raise ConfigError("\n".join(wrong))
    jobs = Counter(job.stage.name for job in planned(config))
    lines = [f"data set {name}: {_size(config.datasets[name], found)}" for name, found in counted.items()]
    lines.append(f"jobs: {sum(jobs.values()):,} ({', '.join(f'{count:,} {stage}' for stage, count in jobs.items())})")
    lines += [f"missing: {sentence}" for sentence in _missing(config)]
    return lines + [
        f"note: {sentence}"
        for sentence in (*_unused(config), *_foreign(config), *_one_class(config, counted), *_seen(config), *_kind(config))
    ]


def _counted(path: Path) -> Counted | None:
    """The counts of a manifest; None if it is not there or cannot be read."""
    if not path.exists():
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_table(path, columns=["split", "status", "label", "class_name"]).to_pydict()
    except (OSError, ValueError, KeyError, pyarrow.ArrowException):
        return None
    rows = list(zip(*(columns[name] for name in ("split", "status", "label", "class_name")), strict=True))
    classes: dict[str, set[int]] = {}
    for split, status, label, _ in rows:
        if status == "ok" and label >= 0:
            classes.setdefault(split, set()).add(label)
    usable = Counter(split for split, status, *_ in rows if status == "ok")
    return Counted(Counter(split for split, *_ in rows), usable, classes, {row[3] for row in rows} - {""})


def _size(data: Dataset, found: Counted | None) -> str:
    """The videos of a data set per split, as far as they are known."""
    if found is not None:
        return ", ".join(f"{split} {count:,} videos ({found.usable[split]:,} usable)" for split, count in found.videos.items())
    if data.embedded:
        return ", ".join(f"{split} {count:,} videos (to be generated)" for split, count in data.embedded.clips.items())
    return f"{', '.join(data.splits)}: not counted yet ({'to be downloaded' if data.download else f'in {data.root}'})"


def _missing(config: Config) -> Iterator[str]:
    """Folders and files that the user provides and that are not there."""
    for name in given_datasets(config):
        data = config.datasets[name]
        if not data.root.is_dir():
            yield f"datasets.{name}.root: no folder {data.root}"
            continue
        for key, file in data.annotations.items():
            path = data.root / file
            if not path.is_dir() and not data.row.files(path, data.fold):
                yield f"datasets.{name}.annotations.{key}: no file {path}"
    if config.flow.network and config.flow.weights and not config.flow.weights.exists():
        yield f"flow.weights: no file {config.flow.weights}"
    if config.flow.command and not shutil.which(config.flow.command[0]):
        yield f"flow.command: no program {config.flow.command[0]}"
    for model, method, given in foreign_of(config):
        if not given.file.is_file():
            yield f"method_settings.{method}.weights.{model}.file: no file {given.file}"


def _unfit(config: Config) -> Iterator[str]:
    """A sentence for each file of others' weights that is there and is another one than meant, or does not fit its model."""
    there = [adopt_job(config, model, method) for model, method, given in foreign_of(config) if given.file.is_file()]
    if not there:
        return
    from mscl.models.adopt import checked

    for job in there:
        try:
            checked(job)
        except ValueError as error:
            yield str(error)


def _foreign(config: Config) -> Iterator[str]:
    """A sentence for each thing about others' weights that is assumed."""
    for model, method, given in foreign_of(config):
        key = f"method_settings.{method}.weights.{model}"
        if given.sha256 is None and given.file.is_file():
            yield f"{key}.sha256: not given, so another file of this name would be taken; this one's is {sha256(given.file)}"
        if given.mean is None:
            yield f"{key}.mean: not given, so clips are normalised as the file says, else by ImageNet's mean and std"


def known_classes(data: Dataset, found: Counted | None) -> set[str] | None:
    """The class names of a data set from its manifest, its `labels` file or its class folders; None if none of them is there."""
    if found is not None:
        return found.names
    if data.row.folders and "labels" not in data.annotations:
        return {
            folder.name for folder in data.class_folders() if folder not in {data.root / a for a in data.annotations.values()}
        } or None
    if "labels" not in data.annotations:
        return None
    path = data.root / data.annotations["labels"]
    path = path if path.is_file() else path.with_name(SSV2_OLDER + path.name)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if data.format == "ssv2":
            return {_plain(template) for template in json.loads(text)}
    except (OSError, ValueError):
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {line.split(maxsplit=1)[-1] for line in lines} if data.format == "ucf101" else set(lines)


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _classes(config: Config, counted: dict[str, Counted | None]) -> Iterator[str]:
    """A sentence for each class in `subset.classes` and `analysis.gradcam` that the data set does not have."""
    wanted = [(f"datasets.{n}.subset.classes", n, config.datasets[n].subset.classes) for n in counted]
    drawn = [t.dataset for t in config.finetuned_targets[:1]]  # classes of one target are no mistake on another
    for key, name, classes in [*wanted, *(("analysis.gradcam", target, config.analysis.gradcam) for target in drawn)]:
        if not classes or (known := known_classes(config.datasets[name], counted[name])) is None:
            continue
        for wrong in (c for c in classes if c not in known and _plain(c) not in known):
            shown = sorted(known) if len(known) <= 20 else sorted(known, key=lambda k: (k[:3] != wrong[:3], k))[:20]
            yield f"{key}: data set '{name}' has no class '{wrong}'{did_you_mean(_plain(wrong), shown)}"


def _batches(config: Config, counted: dict[str, Counted | None]) -> Iterator[str]:
    """A sentence for each training whose batch is larger than its usable videos, where all of them are counted."""
    sources = [counted[name] for name in config.pretraining_datasets]
    seen = set()
    for name in config.models:
        for stage, targets, recipe in (
            ("finetune", config.finetuned_targets, config.finetune_of),
            ("linear", config.linear_targets, config.linear_of),
        ):
            tested = config.targets_of(name)
            for target in (t for t in targets if t in tested and counted[t.dataset] is not None):
                found, batch = counted[target.dataset], recipe(target.name, name).batch
                there = used_videos(target, found.usable[target.train], len(found.classes.get(target.train, ())))
                if batch > there:
                    seen.add(_too_few(f"models.{name}.{stage}.batch", batch, there, target.train))
        if None in sources:
            continue
        there = sum(found.usable[config.pretrain.split] for found in sources)
        for method in config.pretrained_of(name):
            if (batch := config.pretrain_of(name, method).batch) > there:
                seen.add(_too_few(f"models.{name}.pretrain.batch", batch, there, config.pretrain.split))
    yield from sorted(seen)


def _too_few(key: str, batch: int, there: int, split: str) -> str:
    return f"{key}: {batch} is more than the {there:,} usable videos of split '{split}'; use a smaller batch or more videos"


def _one_class(config: Config, counted: dict[str, Counted | None]) -> Iterator[str]:
    tested = [(counted[t.dataset], split, t) for t in config.targets for split in (t.train, t.test)]
    for found, split, target in (each for each in tested if each[0]):
        if len(found.classes.get(split, ())) < 2:
            count = len(found.classes.get(split, ()))
            yield f"target {target.name}: the usable videos of split '{split}' are of {count} class(es), so no accuracy can be measured"


def _seen(config: Config) -> Iterator[str]:
    for target in config.targets:
        if target.draw == 1 or not target.draws_of:
            yield from (f"targets.{target.shown}: {said.removesuffix('.')}" for said in seen_in_pretraining(config, target))


def _kind(config: Config) -> Iterator[str]:
    if config.kind == "paper" and (found := differences(config)):
        yield f"kind: paper, but {len(found)} setting(s) differ from config/paper.yaml, and the report will say so: {found[0]}"


def _unused(config: Config) -> Iterator[str]:
    """A sentence for each given key that no chosen method uses."""
    made = [config.switches(method) for method in config.pretrained_methods]
    given = config.model_fields_set
    sections = {
        "flow": any(s.flow for s in made),
        "mds": any(s.mds for s in made),
        "clip": bool(made),
        "augment": bool(made),
        "contrast": bool(made),
    }
    for key in (key for key, used in sections.items() if key in given and not used):
        yield f"{key}: no chosen method uses this section"
    raft = {"weights", "sha256", "iterations", "batch", "precision"} & config.flow.model_fields_set
    if raft and not config.flow.network and sections["flow"]:
        yield f"flow.{', flow.'.join(sorted(raft))}: used only with method: raft or raft-small"
    for name in config.method_settings:
        if name not in config.methods:
            yield f"method_settings.{name}: not under methods, so it is not run"
    for name in config.datasets:
        if name not in used_datasets(config):
            yield f"datasets.{name}: not used by pretrain or a target"
    for n, target in enumerate(config.targets):
        if "clips" in target.model_fields_set and not target.frozen:
            yield f"targets.{n}.clips: it has no measure of frozen features, so it is not used"
        if "linear" in target.model_fields_set and not target.linear_evaluated:
            yield f"targets.{n}.linear: linear is not among its measures, so it is not used"
