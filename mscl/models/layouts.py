"""How other libraries name the weights of a backbone, what they wrap around it, and what lies beside it in their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mscl.config.backbones import BACKBONES

# In front of a backbone's names: DistributedDataParallel, torch.compile, a LightningModule, MoCo's query encoder (in CoCLR the
# first part of a Sequential), a contrastive model. They may stand in any order and number.
WRAPPER = r"(?:module|_orig_mod|model|encoder|encoder_q(?:\.0)?|backbone)\."
WRAPPERS = re.compile(rf"(?:{WRAPPER})*")
# Beside a wrapped backbone, and no part of it: key encoders, queues and memories of MoCo, BYOL and PySlowFast; heads.
BESIDE = re.compile(
    r"encoder_k\.|encoder_q\.[1-9]\d*\.|backbone_hist\.|memory\.|knn_mem\.|swav_prototypes"
    r"|(?:queue|queue_ptr|queue_x|queue_swav|ptr|iter)$"
    r"|(?:fc|head|cls_head|classifier|predictor|projector|projection)\."
)


def _place(key: str) -> tuple[int, str, int, str, str]:
    """(stage, block, unit, "conv" or "bn", leaf) of one of our keys; stage 0 is the stem, unit 0 a projected skip."""
    top, *path, leaf = key.split(".")
    if top == "stem":
        return 0, "", 0, ("conv", "bn")[int(path[0])], leaf
    stage, block, unit = int(top.removeprefix("layer")), path[0], path[1]
    number = 0 if unit == "downsample" else int(unit[-1])
    if len(path) == 3:  # a Sequential of convolution and batch norm
        return stage, block, number, ("conv", "bn")[int(path[2])], leaf
    return stage, block, number, unit[:-1], leaf


def mmaction2_name(key: str) -> str:
    """`layer1.0.bn2.weight` -> `layer1.0.conv2.bn.weight`."""
    stage, block, unit, kind, leaf = _place(key)
    where = f"layer{stage}.{block}." + (f"conv{unit}" if unit else "downsample") if stage else "conv1"
    return f"{where}.{kind}.{leaf}"


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
    reads: tuple[str, ...]  # backbones that are read under these names
    builds: dict[str, str]  # backbones that the library can build -> for the user: the network that the weights belong to
    name: Callable[[str], str]  # of our key
    prefix: str  # of a backbone's names in the library's own files
    classifier: str  # its prefix
    heads: tuple[str, ...]  # prefixes that are no part of a backbone
    nested: str | None  # key of a .pth file that the weights lie under


_TORCHVISION = "torchvision.models.video.{backbone}(weights=None{classes})"
_SLOW = "MODEL.ARCH slow, RESNET.DEPTH 50 and RESNET.WIDTH_PER_GROUP {width}"
FORMS = {
    "torchvision": Form(
        "torchvision",
        tuple(BACKBONES),  # mscl's own names are torchvision's
        {"r3d_18": _TORCHVISION, "r2plus1d_18": _TORCHVISION},
        lambda key: key,
        "",
        "fc",
        ("head.", "fc."),
        None,
    ),
    "mmaction2": Form(
        "MMAction2",
        ("slow_r50", "slowonly_r50", "r3d_18"),
        {
            "slow_r50": "ResNet3dSlowOnly(depth=50, pretrained=None, base_channels={width}, conv1_kernel=(5, 7, 7), conv1_stride_t=2)",
            "slowonly_r50": "ResNet3dSlowOnly(depth=50, pretrained=None, base_channels={width})",
        },
        mmaction2_name,
        "backbone.",
        "cls_head.fc_cls",
        ("cls_head.",),
        "state_dict",
    ),
    "pyslowfast": Form(
        "PySlowFast",
        ("slow_r50", "slowonly_r50"),
        {
            "slow_r50": f"{_SLOW}, with three edits in ResNet of "
            "video_model_builder.py, whose stem is another one: _TEMPORAL_KERNEL_BASIS['slow'][0] = [[5]], the stem's stride "
            "[[2, 2, 2]], and half of NUM_FRAMES in the head's pool_size. Without them PySlowFast leaves out the stem's "
            "convolution, which only its log reports",
            "slowonly_r50": _SLOW,
        },
        pyslowfast_name,
        "",
        "head.projection",
        ("head.",),
        "model_state",
    ),
}


def prefixes(keys: Iterable[str], form: Form, *marks: str) -> list[str]:
    """What stands in front of the backbone that has all of our keys `marks` under a form's names; several: several networks."""
    keys, theirs = set(keys), [form.name(mark) for mark in marks]
    found = {key.removesuffix(theirs[0]) for key in keys if key.endswith(theirs[0])}
    return sorted(p for p in found if WRAPPERS.fullmatch(p) and all(p + name in keys for name in theirs))


def is_beside(key: str, form: Form, prefix: str) -> bool:
    """Whether a key that is no weight of the backbone under `prefix` is one of a known head, key encoder or queue."""
    if key.startswith(prefix) and key.removeprefix(prefix).startswith(form.heads):
        return True
    while prefix:  # what lies outside of the innermost wrapper, the next one, …
        prefix = re.sub(rf"{WRAPPER}$", "", prefix)
        if key.startswith(prefix) and BESIDE.match(key.removeprefix(prefix)):
            return True
    return False
