"""`python -m mscl features`: features of any videos, as a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Colour = tuple[float, float, float]


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
    frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 16,
    stride: Annotated[
        int | None, typer.Option(help="Frames of the video between two of a clip; default: uniform over the video.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the square crop in pixels.")] = 112,
    clips: Annotated[int, typer.Option(help="Clips per video; their features are averaged, or per time one after another.")] = 1,
    crops: Annotated[int, typer.Option(help="1: the centre; 3: both ends of the longer side as well.")] = 1,
    step: Annotated[int, typer.Option(help="Without a store: every step-th frame can be taken.")] = 2,
    short_side: Annotated[int, typer.Option(help="Without a store: frames are scaled down to this short side.")] = 256,
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
    from mscl.models.published import weights_file

    if bool(paths) == bool(manifest):
        raise ValueError("features: give either video files and folders, or --manifest")
    chosen = {
        "frames": frames,
        "stride": stride,
        "size": size,
        "clips": clips,
        "crops": crops,
        "batch": batch,
        "per_time": per_time,
        "precision": precision,
    }
    chosen |= {"backbone": backbone, "width": width, "mean": mean, "std": std}
    options = parse(Options, chosen | {"extract": {"step": step, "short_side": short_side}}, "features")
    rows = of_manifest(manifest, split) if manifest else of_paths(paths)
    machine = Machine(device, threads, min(16, len(os.sched_getaffinity(0))) if workers is None else workers)
    write_features(weights_file(weights), rows, out, options, machine, store_of(manifest, store) if manifest else [])
