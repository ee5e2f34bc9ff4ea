"""Weights for others and from others: one backbone under the names of torchvision, MMAction2 or PySlowFast.

A file is read whole or refused: every weight of the network must be there under its name and in its shape, and
nothing but a known head may be left over. What shapes cannot tell is the stride: a network whose weights fit may
still have been trained with another one, in particular in time.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from mscl.config.backbones import BACKBONES
from mscl.machine.files import atomic_write
from mscl.models.finite import non_finite
from mscl.models.networks.backbone import Backbone
from mscl.models.networks.build import backbone_class

NESTED = ("state_dict", "model_state", "model")  # where MMAction2, PySlowFast and torchvision's references keep the weights
COUNTER = "num_batches_tracked"  # old files lack it, and nothing here reads it


def _place(key: str) -> tuple[int, str, int, str, str]:
    """(stage, block, unit, "conv" or "bn", leaf) of one of our keys; stage 0 is the stem, unit 0 a projected skip."""
    top, *path, leaf = key.split(".")
    if top == "stem":
        return 0, "", 0, ("conv", "bn")[int(path[0])], leaf
    stage, block, unit = int(top.removeprefix("layer")), path[0], path[1]
    if unit == "downsample":
        return stage, block, 0, ("conv", "bn")[int(path[2])], leaf
    return stage, block, int(unit[-1]), unit[:-1], leaf


def mmaction2_name(key: str) -> str:
    """`layer1.0.bn2.weight` -> `backbone.layer1.0.conv2.bn.weight`."""
    stage, block, unit, kind, leaf = _place(key)
    where = f"layer{stage}.{block}." + (f"conv{unit}" if unit else "downsample") if stage else "conv1"
    return f"backbone.{where}.{kind}.{leaf}"


def pyslowfast_name(key: str) -> str:
    """`layer1.0.bn2.weight` -> `s2.pathway0_res0.branch2.b_bn.weight`."""
    stage, block, unit, kind, leaf = _place(key)
    if not stage:
        return f"s1.pathway0_stem.{kind}.{leaf}"
    branch = f"branch2.{'abc'[unit - 1]}" if unit else "branch1"
    return f"s{stage + 1}.pathway0_res{block}.{branch}{'_bn' if kind == 'bn' else ''}.{leaf}"


@dataclass(frozen=True)
class Form:
    """How one library names a backbone's weights, and how its files and its network are made."""

    title: str
    backbones: tuple[str, ...]  # those that the library can build
    name: Callable[[str], str]  # of our key
    classifier: str  # its prefix
    heads: tuple[str, ...]  # prefixes that are no part of a backbone
    nested: str | None  # key of a .pth file that the weights lie under
    build: str  # for the user: the network that the weights belong to


FORMS = {
    "torchvision": Form(
        "torchvision", ("r3d_18", "r2plus1d_18"), lambda key: key, "fc", ("head.", "fc."), None,
        "torchvision.models.video.{backbone}(weights=None{classes})",
    ),
    "mmaction2": Form(
        "MMAction2", ("slow_r50",), mmaction2_name, "cls_head.fc_cls", ("cls_head.",), "state_dict",
        "ResNet3dSlowOnly(depth=50, pretrained=None, base_channels={width}, conv1_kernel=(5, 7, 7), conv1_stride_t=2)",
    ),
    "pyslowfast": Form(
        "PySlowFast", ("slow_r50",), pyslowfast_name, "head.projection", ("head.",), "model_state",
        "MODEL.ARCH slow, RESNET.DEPTH 50 and RESNET.WIDTH_PER_GROUP {width}, with three edits in ResNet of "
        "video_model_builder.py, whose stem is another one: _TEMPORAL_KERNEL_BASIS['slow'][0] = [[5]], the stem's stride "
        "[[2, 2, 2]], and half of NUM_FRAMES in the head's pool_size. Without them PySlowFast leaves out the stem's "
        "convolution, which only its log reports",
    ),
}  # fmt: skip


@dataclass
class Weights:
    """A backbone's weights under our names, on the CPU in float32, and what else lay in its file."""

    backbone: str
    width: int
    state: dict[str, Tensor]
    classifier: dict[str, Tensor]  # weight (classes, feature_dim) and bias, or nothing
    left_out: list[str]  # keys of other heads


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
    return {k.removeprefix("module."): v for k, v in held.items()}  # the prefix of distributed training


def _recognise(path: Path, tensors: dict[str, Tensor], note: dict) -> tuple[Form, str, int]:
    """Whose names they are, which backbone, and its width: as mscl noted them, else as keys and shapes have them."""
    if "conv1.conv.weight" in tensors:  # MMAction2's backbone saved by itself
        tensors |= {f"backbone.{k}": tensors.pop(k) for k in list(tensors)}
    ours = note.get("backbone")
    if ours is not None and ours not in BACKBONES:
        raise ValueError(
            f"{path}: weights of backbone {ours!r}; mscl has {' and '.join(BACKBONES)}, and code that a file names is not loaded"
        )
    for form in FORMS.values():
        for backbone in BACKBONES if form is FORMS["torchvision"] else form.backbones:  # mscl's own names are torchvision's
            kind = backbone_class(backbone)
            if backbone == (ours or backbone) and {form.name(kind.mark), form.name(kind.width_from)} <= set(tensors):
                stem = tensors[form.name(kind.width_from)]
                width = note.get("width", stem.shape[0] if stem.ndim else 0)
                if not str(width).isdecimal() or int(width) < 1:
                    raise ValueError(f"{path}: {backbone} of width {width!r}; a width is a whole number from 1")
                return form, backbone, int(width)
    first = next(iter(tensors), None)
    raise ValueError(
        f"{path}: no backbone under the names of mscl, torchvision, MMAction2 or PySlowFast in it"
        + (f" (its first key is {first})" if first else " (it is empty)")
    )


def _empty(backbone: str, width: int) -> Backbone:
    """The network without memory for its weights; nothing is drawn for them either."""
    with torch.device("meta"):
        return backbone_class(backbone)(width)


def _fit(path: Path, tensors: dict[str, Tensor], form: Form, net: Backbone, label: str) -> tuple[dict[str, Tensor], set[str]]:
    """The network's state from foreign keys, and the keys that it took; ValueError when it is another network's."""
    state, used, wrong = {}, set(), []
    for ours, want in net.state_dict().items():
        theirs = form.name(ours)
        have = tensors.get(theirs)
        used.add(theirs)
        if have is None and ours.endswith(COUNTER):
            state[ours] = torch.zeros((), dtype=torch.long)
        elif have is None:
            wrong.append(f"{theirs} is missing, which {label} needs")
        elif have.shape != want.shape:
            wrong.append(f"{theirs} is {tuple(have.shape)} where {label} has {tuple(want.shape)}")
        else:
            state[ours] = have.to(want.dtype, copy=True, memory_format=torch.contiguous_format)
    wrong += [f"{k} has no place in {label}" for k in tensors if k not in used and not k.startswith(form.heads)]
    if wrong:
        more = f" (and {len(wrong) - 1} more keys do not fit)" if len(wrong) > 1 else ""
        raise ValueError(f"{path}: another network's weights: {wrong[0]}{more}; nothing is loaded")
    return state, used


def read_weights(path: str | PathLike) -> Weights:
    """Read a backbone from any of the known forms; a `.safetensors` file, else one of torch.save.

    Raises ValueError, one sentence naming file and key, for a missing, torn, foreign or unfitting file, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    tensors, note = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})
    form, backbone, width = _recognise(path, tensors, note)
    if name := non_finite(tensors):
        raise ValueError(f"{path}: {name} holds values that are not finite; get another file")
    net = _empty(backbone, width)
    state, used = _fit(path, tensors, form, net, f"{backbone} of width {width}")
    heads = {k: v for k, v in tensors.items() if k not in used}
    classifier = {leaf: heads.get(f"{form.classifier}.{leaf}") for leaf in ("weight", "bias")}
    weight, bias = classifier["weight"], classifier["bias"]
    if weight is None or bias is None or weight.shape != (bias.numel(), net.feature_dim):
        classifier = {}  # none, or one for something else than the pooled features
    taken = {f"{form.classifier}.{leaf}" for leaf in classifier}
    classifier = {k: v.float().contiguous() for k, v in classifier.items()}
    return Weights(backbone, width, state, classifier, [k for k in heads if k not in taken])


def load_backbone(path: str | PathLike) -> Backbone:
    """The RGB backbone of a file of weights, on the CPU in float32 and in eval mode.

    Takes mscl's own files, torchvision's `r3d_18` and `r2plus1d_18`, and MMAction2's and PySlowFast's names for an R50 with mscl's
    stem; `.safetensors`, or a state dict written by torch.save. Heads and classifiers are left out. The network
    maps clips (B, 3, T, H, W) to features (B, feature_dim); `maps(clips)` gives the outputs of its last three
    stages, each (B, C, T, H, W). mscl's weights want RGB in [0, 1] normalised by ImageNet's mean (.485, .456,
    .406) and standard deviation (.229, .224, .225); other people's want what they were trained with.

    Raises ValueError, one sentence naming file and key, for a missing, torn, foreign or unfitting file, or values that are not finite.
    """
    weights = read_weights(path)
    net = _empty(weights.backbone, weights.width)
    net.load_state_dict(weights.state, assign=True)
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
    if weights.backbone not in form.backbones:
        others = ", ".join(f"--to {name}" for name, f in FORMS.items() if weights.backbone in f.backbones)
        raise ValueError(f"{path}: {form.title} has no network that computes this {weights.backbone}; take {others}")
    if to == "torchvision" and weights.width != 64:
        raise ValueError(
            f"{path}: width {weights.width}, and torchvision's {weights.backbone} has 64; load it with mscl.load_backbone"
        )
    tensors = {form.name(k): v for k, v in weights.state.items()}
    tensors |= {f"{form.classifier}.{k}": v for k, v in weights.classifier.items()}
    _write(out, tensors, form.nested, {"backbone": weights.backbone, "width": str(weights.width)})
    return _summary(out, form, weights)


def _write(out: Path, tensors: dict[str, Tensor], nested: str | None, note: dict[str, str]) -> None:
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
    left = f"; left out: {', '.join(weights.left_out)}" if weights.left_out else ""
    network = form.build.format(
        backbone=weights.backbone, width=weights.width, classes=f", num_classes={classes}" if classes else ""
    )
    return (
        f"{out}: {weights.backbone} of width {weights.width}, {head}, under {form.title}'s names{left}.\nIts network: {network}."
    )
