"""A pass of a network over many videos, which goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mscl.config.settings import Kernels
from mscl.machine.files import remove_leftovers
from mscl.machine.signals import StopSignal
from mscl.models.colours import IMAGENET, Colours
from mscl.training.augment import normalise
from mscl.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mscl.training.clips import UniformClips
from mscl.training.hardware import DEFAULT, autocast
from mscl.training.loader import loading

MINUTES = 10.0  # between partial results, where nothing else is asked for

AT_ONCE = 32  # clips that go through the network together, however many views a video has


class Partial:
    """Rows of the videos done so far, in a file of the run's folder that is no output and is removed after success.

    Rows of another `identity` (settings, code, weights, data) are not used.
    """

    def __init__(self, path: Path, identity: dict[str, str], minutes: float = MINUTES):
        self.path, self.identity, self.minutes = path, identity, minutes
        self._saved = time.monotonic()

    def load(self) -> list[Tensor]:
        """The rows of an earlier attempt, nothing where there is none that can be used."""
        remove_leftovers(self.path.parent)
        try:
            state = load_checkpoint(self.path, self.identity)
        except CheckpointError as error:
            print(f"not used, all videos are looked at again: {error}", file=sys.stderr)
            return []
        return [] if state is None else [state["rows"]]

    def due(self) -> bool:
        return time.monotonic() - self._saved > 60 * self.minutes

    def save(self, rows: list[Tensor]) -> None:
        self._saved = time.monotonic()
        save_checkpoint(self.path, {"rows": torch.cat(rows)}, self.identity, keep_previous=False)

    def done(self) -> None:
        """The results are written."""
        self.path.unlink(missing_ok=True)


@torch.no_grad()
def over_videos(
    per_clip: Callable[[Tensor], Tensor],
    clips: UniformClips,
    batch: int,
    device: torch.device,
    workers: int = 0,
    partial: Partial | None = None,
    kernels: Kernels = DEFAULT,
    colours: Colours = IMAGENET,
) -> Tensor:
    """The mean of `per_clip` over each video's clips: (videos, D) float32 on the CPU, in the order of `clips.rows`.

    `per_clip`: clips normalised by `colours` (B, 3, T, H, W) -> (B, D). `batch` videos at a time, the same ones together after an interruption.
    With `partial`, SIGTERM, SIGUSR1 and Ctrl-C save what is done and raise SystemExit.
    """
    rows = partial.load() if partial else []
    stop = StopSignal() if partial else None
    done = sum(map(len, rows))
    if done:
        print(f"going on after {done} of {len(clips)} videos from {partial.path}", file=sys.stderr)
    batches = [list(range(at, min(at + batch, len(clips)))) for at in range(done, len(clips), batch)]
    with loading(clips, batches, workers) as loader:
        for loaded in loader:
            B, K = loaded["clip_KTHWC"].shape[:2]
            every = loaded["clip_KTHWC"].flatten(0, 1).split(max(B, AT_ONCE))
            found = [of_views(per_clip, views, device, kernels, colours) for views in every]
            rows.append(torch.cat(found).view(B, K, -1).mean(1).cpu())
            if partial and (stop.number or partial.due()):
                partial.save(rows)
            if stop and stop.number:
                count = sum(map(len, rows))
                print(f"stopped after {count} of {len(clips)} videos: the same command goes on from there", file=sys.stderr)
                raise SystemExit(128 + stop.number)
    if partial and batches:
        partial.save(rows)  # what comes after may be interrupted, too
    if stop:
        stop.release()
    return torch.cat(rows)


def of_views(
    per_clip: Callable[[Tensor], Tensor], views_BTHWC: Tensor, device: torch.device, kernels: Kernels, colours: Colours
) -> Tensor:
    """What `per_clip` makes of uint8 clips, float32 on the device."""
    x = normalise(views_BTHWC.to(device), colours).contiguous(memory_format=torch.channels_last_3d)
    with autocast(device, kernels):
        return per_clip(x).float()


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Short hash of names and bits of tensors."""
    content = hashlib.sha256()
    for name, value in weights.items():
        content.update(name.encode())
        content.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]
