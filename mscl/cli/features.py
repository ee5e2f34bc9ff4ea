"""`python -m mscl features`: features of any videos, as a table."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Colour = tuple[float, float, float]
USUAL = {"frames": 16, "stride": 0, "size": 112, "step": 2, "short_side": 256}  # where nothing else is said: stride 0 is uniform


def features(
    weights: Annotated[
        str, typer.Option("--weights", help="A file of mscl, others' weights, a published folder, or hf://user/name@revision.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The table to write: .parquet or .npz.")],
    paths: Annotated[list[Path], typer.Argument(help="Video files, and folders of them.", metavar="[PATH]…")] = [],  # noqa: B006
    manifest: Annotated[Path | None, typer.Option(help="Instead of paths: the videos of a manifest.")] = None,
    split: Annotated[str, typer.Option(help="With --manifest: only this split.")] = "",
    store: Annotated[
        Path | None, typer.Option(help="Folder of the frames of the manifest's videos; default: where the workflow keeps them.")
    ] = None,
    per_time: Annotated[bool, typer.Option("--per-time", help="A feature per time step, not their mean.")] = False,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip; default: as a published folder says, else 16.")] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Frames of the video between two of a clip; 0: uniform over the video. Default: as a folder says, else 0."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the square crop in pixels; default: as a folder says, else 112.")
    ] = None,
    clips: Annotated[int, typer.Option(help="Clips per video; their features are averaged, or per time one after another.")] = 1,
    crops: Annotated[int, typer.Option(help="1: the centre; 3: both ends of the longer side as well.")] = 1,
    step: Annotated[
        int | None, typer.Option(help="Without a store: every step-th frame can be taken; default: as a folder says, else 2.")
    ] = None,
    short_side: Annotated[
        int | None, typer.Option(help="Without a store: frames are scaled down to it; default: as a folder says, else 256.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Must be the weights' own; needed for one of yours (my_net:Tiny).")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first stage; needed for a backbone of yours.")] = None,
    mean: Annotated[
        Colour | None, typer.Option(help="Of the clips that the weights want; default: as their file says, else ImageNet's.")
    ] = None,
    std: Annotated[Colour | None, typer.Option(help="The same.")] = None,
    batch: Annotated[int, typer.Option(help="Videos at a time; changes the last bits.")] = 32,
    precision: Annotated[str, typer.Option(help="Of the network: float32, bfloat16, or auto (bfloat16 on a GPU).")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Of torch on a CPU; changes the last bits.")] = 1,
    workers: Annotated[int | None, typer.Option(help="Loader processes; default: one per core, at most 16.")] = None,
) -> None:
    """Compute features of videos with the weights of a file. A broken video is a row with a reason. Interrupted, it resumes."""
    from mscl.config.validation import parse
    from mscl.evaluation.features import Machine, Options, write_features
    from mscl.evaluation.videos import of_manifest, of_paths, store_of
    from mscl.models.published import CLIPS, clips_of, weights_file

    if bool(paths) == bool(manifest):
        raise ValueError("features: give either video files and folders, or --manifest")
    file = weights_file(weights)
    told = {name: value for name, value in zip(CLIPS, (frames, stride, size, step, short_side)) if value is not None}
    clip = USUAL | clips_of(file) | told
    chosen = {
        "frames": clip["frames"],
        "stride": clip["stride"] or None,
        "size": clip["size"],
        "clips": clips,
        "crops": crops,
        "batch": batch,
        "per_time": per_time,
        "precision": precision,
    }
    chosen |= {"backbone": backbone, "width": width, "mean": mean, "std": std}
    options = parse(Options, chosen | {"extract": {"step": clip["step"], "short_side": clip["short_side"]}}, "features")
    rows = of_manifest(manifest, split) if manifest else of_paths(paths)
    machine = Machine(device, threads, min(16, len(os.sched_getaffinity(0))) if workers is None else workers)
    write_features(file, rows, out, options, machine, store_of(manifest, store) if manifest else [])
    every = f"{clip['stride']} frames of the video apart" if clip["stride"] else "uniform over the video"
    print(f"clips of {clip['frames']} frames, {every}, {clip['size']} x {clip['size']} pixels", file=sys.stderr)
