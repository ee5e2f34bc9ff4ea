"""Weights for others and from others: one backbone under the names of torchvision, MMAction2 or PySlowFast.

A file is read whole or refused: every weight of the network must be there under its name and in its shape, and
nothing but a known head may be left over. What shapes cannot tell is the stride: a network whose weights fit may
still have been trained with another one, in particular in time.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from mscl.config.backbones import BACKBONES
from mscl.machine.files import atomic_write
from mscl.models.colours import Colours, noted
from mscl.models.finite import non_finite
from mscl.models.layouts import FORMS, Form, is_beside, prefixes
from mscl.models.networks.backbone import Backbone
from mscl.models.networks.build import backbone_class

NESTED = ("state_dict", "model_state", "model")  # where MMAction2, PySlowFast and torchvision's references keep the weights
COUNTER = "num_batches_tracked"  # old files lack it, and nothing here reads it
LISTED = 8  # keys that were left out, in a sentence


@dataclass
class Weights:
    """A backbone's weights under our names, on the CPU in float32, and what else lay in its file."""

    backbone: str
    width: int
    state: dict[str, Tensor]
    classifier: dict[str, Tensor]  # weight (classes, feature_dim) and bias, or nothing
    left_out: list[str]  # keys of other heads, key encoders, queues
    colours: Colours  # as mscl noted them, else ImageNet's


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors, and what mscl noted about them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}
            note = json.loads((file.metadata() or {}).get("mscl", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); get it again") from None
    return tensors, note if isinstance(note, dict) else {}


def _read_torch(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of torch.save, which is read without running what it may hold."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torn bytes raise nearly anything; torch's own text advises what is unsafe
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ValueError(
                f"{path}: holds Python objects beside weights, which could run code when read; save its state dict alone"
            ) from None
        raise ValueError(f"{path}: not a whole file of torch.save; get it again") from None
    if isinstance(held, dict) and {"model", "optimizer", "at"} <= held.keys():
        raise ValueError(f"{path}: a checkpoint to resume from; take the weights.safetensors that its training ends with")
    for key in NESTED:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items()):
        raise ValueError(f"{path}: no state dict in it; save one with torch.save(model.state_dict(), …)")
    return held


@dataclass(frozen=True)
class Found:
    """One reading of a file: whose names they are, what stands in front of them, and the network that they should be of."""

    form: Form
    prefix: str
    backbone: str
    width: int

    @property
    def label(self) -> str:
        return f"{self.backbone} of width {self.width}"

    def key(self, ours: str) -> str:
        """The key in the file of one of our keys."""
        return self.prefix + self.form.name(ours)

    def empty(self) -> Backbone:
        """The network without memory for its weights; nothing is drawn for them either."""
        with torch.device("meta"):
            return backbone_class(self.backbone)(self.width)

    def misfits(self, tensors: dict[str, Tensor]) -> list[str]:
        """What does not fit, a clause per key, the network's own keys first."""
        state, wrong = self.empty().state_dict(), []
        for ours, want in state.items():
            have = tensors.get(self.key(ours))
            if have is None and not ours.endswith(COUNTER):
                wrong.append(f"{self.key(ours)} is missing, which {self.label} needs")
            elif have is not None and have.shape != want.shape:
                wrong.append(f"{self.key(ours)} is {tuple(have.shape)} where {self.label} has {tuple(want.shape)}")
        used = {self.key(ours) for ours in state}
        return wrong + [
            f"{k} has no place in {self.label}" for k in tensors if k not in used and not is_beside(k, self.form, self.prefix)
        ]


def _readings(path: Path, tensors: dict[str, Tensor], note: dict, backbone: str | None, width: int | None) -> list[Found]:
    """Every known layout whose first names are in the file. Raises ValueError where there is none, or two networks."""
    said = note.get("backbone")
    if said is not None and said not in BACKBONES:
        raise ValueError(
            f"{path}: weights of backbone {said!r}; mscl has {' and '.join(BACKBONES)}, and code that a file names is not loaded"
        )
    if backbone and backbone not in BACKBONES:  # one of the user's own, under its own names
        kind, form = backbone_class(backbone), FORMS["torchvision"]
        with torch.device("meta"):
            mark = next(iter(kind(width).state_dict()))
        return [Found(form, front, backbone, width) for front in prefixes(tensors, form, mark)] or _unknown(
            path, tensors, backbone
        )
    found = []
    for form in FORMS.values():
        for name in (name for name in form.reads if name == (backbone or said or name)):
            kind = backbone_class(name)
            fronts = prefixes(tensors, form, kind.mark, kind.width_from)
            if len(fronts) > 1:
                raise ValueError(
                    f"{path}: several networks in it, under {' and '.join(f'{f!r}' for f in fronts)}; save the one to take alone"
                )
            found += [Found(form, front, name, _width(path, tensors, note, form, front, name)) for front in fronts]
    return found or _unknown(path, tensors, backbone or "backbone")


def _unknown(path: Path, tensors: dict[str, Tensor], wanted: str) -> NoReturn:
    first = next(iter(tensors), None)
    raise ValueError(
        f"{path}: no {wanted} under the names of mscl, torchvision, MMAction2 or PySlowFast in it"
        + (f" (its first key is {first})" if first else " (it is empty)")
    )


def _width(path: Path, tensors: dict[str, Tensor], note: dict, form: Form, prefix: str, backbone: str) -> int:
    stem = tensors[prefix + form.name(backbone_class(backbone).width_from)]
    width = note.get("width", stem.shape[0] if stem.ndim else 0)
    if not str(width).isdecimal() or int(width) < 1:
        raise ValueError(f"{path}: {backbone} of width {width!r}; a width is a whole number from 1")
    return int(width)


def _recognise(path: Path, tensors: dict[str, Tensor], note: dict, backbone: str | None, width: int | None) -> Found:
    """The reading that fits; ValueError naming the first key of the nearest one when it is another network's."""
    found = _readings(path, tensors, note, backbone, width)
    if width is not None:
        found = [Found(f.form, f.prefix, f.backbone, width) for f in found]
    wrong = [f.misfits(tensors) for f in found]
    best = min(range(len(found)), key=lambda n: len(wrong[n]))
    if wrong[best]:
        more = f" (and {len(wrong[best]) - 1} more keys do not fit)" if len(wrong[best]) > 1 else ""
        raise ValueError(f"{path}: another network's weights: {wrong[best][0]}{more}; nothing is loaded")
    return found[best]


def _state(tensors: dict[str, Tensor], found: Found) -> dict[str, Tensor]:
    """The network's state under our names, in tensors of its own."""
    state = {}
    for ours, want in found.empty().state_dict().items():
        have = tensors.get(found.key(ours))
        if have is None:  # a counter
            state[ours] = torch.zeros((), dtype=torch.long)
        else:
            state[ours] = have.to(want.dtype, copy=True, memory_format=torch.contiguous_format)
    return state


def _classifier(heads: dict[str, Tensor], found: Found, feature_dim: int) -> dict[str, tuple[str, Tensor]]:
    """leaf -> (key, tensor) of a classifier of the pooled features; nothing where there is none, or one for something else."""
    keys = {leaf: [p + f"{found.form.classifier}.{leaf}" for p in (found.prefix, _outside(found))] for leaf in ("weight", "bias")}
    there = {leaf: next(((k, heads[k]) for k in each if k in heads), None) for leaf, each in keys.items()}
    if None in there.values():
        return {}
    weight, bias = there["weight"][1], there["bias"][1]
    return there if weight.shape == (bias.numel(), feature_dim) else {}


def _outside(found: Found) -> str:
    """What stands in front of what a library keeps beside its backbone."""
    return found.prefix.removesuffix(found.form.prefix)


def read_weights(path: str | PathLike, backbone: str | None = None, width: int | None = None) -> Weights:
    """Read a backbone from any of the known forms; a `.safetensors` file, else one of torch.save.

    `backbone` and `width` say which network it must be; without them the file does. A backbone given by module path needs its width.
    Raises ValueError, one sentence naming file and key, for a missing, torn, foreign or unfitting file, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    tensors, note = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})
    found = _recognise(path, tensors, note, backbone, width)
    if name := non_finite(tensors):
        raise ValueError(f"{path}: {name} holds values that are not finite; get another file")
    net = found.empty()
    used = {found.key(ours) for ours in net.state_dict()}
    heads = {k: v for k, v in tensors.items() if k not in used}
    classifier = _classifier(heads, found, net.feature_dim)
    taken = {key for key, _ in classifier.values()}
    return Weights(
        found.backbone,
        found.width,
        _state(tensors, found),
        {leaf: tensor.float().contiguous() for leaf, (_, tensor) in classifier.items()},
        [k for k in heads if k not in taken],
        _colours(path, note),
    )


def _colours(path: Path, note: dict) -> Colours:
    try:
        return noted(note)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; get it again") from None


def load_backbone(path: str | PathLike) -> Backbone:
    """The RGB backbone of a file of weights, on the CPU in float32 and in eval mode.

    Takes mscl's own files, torchvision's `r3d_18` and `r2plus1d_18`, and the names of MMAction2 and PySlowFast (docs/weights.md);
    `.safetensors`, or a state dict written by torch.save. Heads, classifiers, key encoders and queues are left out. The network
    maps clips (B, 3, T, H, W) to features (B, feature_dim); `maps(clips)` gives the outputs of its last three
    stages, each (B, C, T, H, W). It wants RGB in [0, 1] normalised by `colours` of the network: mscl's weights ImageNet's mean
    (.485, .456, .406) and standard deviation (.229, .224, .225); other people's what they were trained with.

    Raises ValueError, one sentence naming file and key, for a missing, torn, foreign or unfitting file, or values that are not finite.
    """
    return network_of(read_weights(path))


def network_of(weights: Weights) -> Backbone:
    """The network that holds these weights, in eval mode."""
    with torch.device("meta"):
        net = backbone_class(weights.backbone)(weights.width)
    net.load_state_dict(weights.state, assign=True)
    net.colours = weights.colours
    return net.eval()


def export_weights(path: Path, to: str, out: Path) -> str:
    """Write the backbone at `path`, and its classifier if it has one, to `out` under the names of `to` (a key of FORMS).

    `.safetensors` is flat; `.pth`, `.pt` and `.pyth` nest the weights as the library does. Returns what was
    written, and the network it belongs to, in sentences. Raises ValueError where the library has no such network.
    """
    if to not in FORMS:
        raise ValueError(f"--to {to}: not known; take one of {', '.join(FORMS)}")
    if out.suffix not in (".safetensors", ".pth", ".pt", ".pyth"):
        raise ValueError(f"--out {out}: the suffix must be .safetensors, .pth, .pt or .pyth")
    if out.resolve() == Path(path).resolve():
        raise ValueError(f"--out {out}: would replace the weights themselves; give another name")
    form, weights = FORMS[to], read_weights(path)
    if weights.backbone not in form.builds:
        others = ", ".join(f"--to {name}" for name, f in FORMS.items() if weights.backbone in f.builds)
        raise ValueError(f"{path}: {form.title} has no network that computes this {weights.backbone}; take {others}")
    if to == "torchvision" and weights.width != 64:
        raise ValueError(
            f"{path}: width {weights.width}, and torchvision's {weights.backbone} has 64; load it with mscl.load_backbone"
        )
    tensors = {form.prefix + form.name(k): v for k, v in weights.state.items()}
    tensors |= {f"{form.classifier}.{k}": v for k, v in weights.classifier.items()}
    note = {"backbone": weights.backbone, "width": str(weights.width)} | weights.colours.note()
    _write(out, tensors, form.nested, note)
    return _summary(out, form, weights)


def _write(out: Path, tensors: dict[str, Tensor], nested: str | None, note: dict) -> None:
    from safetensors.torch import save_file

    with atomic_write(out) as temporary:
        if out.suffix == ".safetensors":
            save_file(tensors, str(temporary), metadata={"mscl": json.dumps(note, sort_keys=True)})
        else:
            with open(temporary, "wb") as file:  # given a name, torch would write it into the file
                torch.save({nested: tensors} if nested else tensors, file)


def _summary(out: Path, form: Form, weights: Weights) -> str:
    classes = len(weights.classifier["bias"]) if weights.classifier else 0
    head = f"with its classifier of {classes} classes" if classes else "without a classifier"
    shown, count = weights.left_out[:LISTED], len(weights.left_out)
    shown += [f"and {count - LISTED} more"] if count > LISTED else []
    left = f"; left out: {', '.join(shown)}" if shown else ""
    network = form.builds[weights.backbone].format(
        backbone=weights.backbone, width=weights.width, classes=f", num_classes={classes}" if classes else ""
    )
    return (
        f"{out}: {weights.backbone} of width {weights.width}, {head}, under {form.title}'s names{left}.\nIts network: {network}."
    )
