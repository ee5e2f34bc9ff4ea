"""Folders of published weights, on a disk or on the Hugging Face hub: what `python -m mscl publish` writes is read here.

Only two files of such a folder are read, by names that are fixed here: nothing in it can name a file, or code, to load.
"""

from __future__ import annotations

import json
import os
import re
from os import PathLike
from pathlib import Path

from mscl.machine.files import sha256

MODEL, CONFIG, MODEL_CARD = "model.safetensors", "config.json", "README.md"
CLIPS = ("frames", "stride", "size", "step", "short_side")  # of clips and of the frames that they are made of, in config.json
KIND = "mscl"  # `model_type` in config.json
HUB = "hf://"
ON_THE_HUB = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[^\s@]+)")


def weights_file(source: str | PathLike) -> Path:
    """The file of weights that `source` means: a file as it is, a folder of `mscl publish`, or one as hf://user/name@revision.

    The file of a folder is compared with the sha256 in its config.json. Raises ValueError, one sentence, for a folder that is
    incomplete, changed or of something else, and for one that cannot be fetched.
    """
    source = os.fspath(source)
    if source.startswith(HUB):
        return _checked(_fetched(source), source)
    path = Path(source)
    return _checked(path, source) if path.is_dir() else path


def clips_of(weights: Path) -> dict[str, int]:
    """What the clips of the pretraining were, by CLIPS, of the weights of a published folder; nothing for another file."""
    config = weights.with_name(CONFIG)
    if weights.name != MODEL or not config.is_file():
        return {}
    try:
        values = dict(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    return {key: values[key] for key in CLIPS if isinstance(values.get(key), int)}


def _fetched(source: str) -> Path:
    """The folder of the hub in the local cache, with the two files that are read."""
    found = ON_THE_HUB.fullmatch(source)
    if found is None:
        raise ValueError(f"{source}: not of the form hf://user/name@revision; the revision is a commit, a tag, or main")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ValueError(
            f"{source}: needs the package huggingface_hub; run pip install huggingface_hub, or download the folder and give its path"
        ) from None
    try:
        folder = Path(hf_hub_download(found["name"], CONFIG, revision=found["revision"])).parent
        hf_hub_download(found["name"], MODEL, revision=folder.name)  # of the same commit, after which the cache names its folders
        return folder
    except Exception as error:  # noqa: BLE001 the hub's errors have no common class
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"{source}: cannot be fetched ({why}); check name, revision and network, or download the folder and give its path"
        ) from None


def _checked(folder: Path, said: str) -> Path:
    """The weights in a folder, if its config.json is one of ours and has their hash."""
    config, model = _inside(folder, CONFIG, said), _inside(folder, MODEL, said)
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        kind, expected = values["model_type"], values["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = expected = None
    if kind != KIND or not isinstance(expected, str):
        raise ValueError(f"{said}: {CONFIG} is not one that mscl publish writes; give the file of weights itself")
    if (found := sha256(model)) != expected:
        raise ValueError(f"{said}: {MODEL} has sha256 {found}, and {CONFIG} says {expected}; get the folder again")
    return model


def _inside(folder: Path, name: str, said: str) -> Path:
    """A file of the folder. A link out of it is refused, unless it leads into the hub's cache, which keeps the files beside its folders."""
    path, root = folder / name, folder.resolve()
    if not path.is_file():
        raise ValueError(f"{said}: no {name} in this folder; get the folder again, or give the file of weights itself")
    real, stored = path.resolve(), root.parents[1] / "blobs" if len(root.parents) > 1 else None
    if root not in real.parents and real.parent != stored:
        raise ValueError(f"{said}: {name} is a link to a file outside the folder; replace it by the file")
    return path
