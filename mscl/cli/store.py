"""`python -m mscl store ...`: show the content of a store of frames or flow, and check it for damage."""

from __future__ import annotations

import difflib
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

store = typer.Typer(no_args_is_help=True, help=__doc__)

Folder = Annotated[Path, typer.Argument(help="A store: a folder of shards, such as data/demo/frames/motion_ssv2.")]


@store.command()
def verify(
    folder: Folder,
    quick: Annotated[bool, typer.Option(help="Do not decode the images.")] = False,
    workers: Annotated[int, typer.Option(help="Number of shards checked at a time.")] = 2,
) -> None:
    """Check every shard: checksums, counts, names, and that every image can be decoded. Exit code 1 if there is an error.

    A store without images (frames.keep: none) is checked against its videos, all of which are decoded.
    """
    from mscl.store import check
    from mscl.watch.progress import tqdm

    found = check.indexes(folder)
    wrong = check.missing_shards(found) + check.together(found)
    with ThreadPoolExecutor(workers) as pool:
        for sentences in tqdm(pool.map(lambda i: check.verify(i, not quick), found), "verify", len(found), unit="shard"):
            wrong += sentences
    decoded = any(map(check.is_decoded, found))
    wrong += [said for index in found if quick for each in check.videos(index) for said in each]
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    for shard in check.leftovers(folder):
        print(f"{shard}: not finished; the next run of its rule resumes it")
    print(f"{folder}: {len(found)} shards, " + (f"{len(wrong)} errors" if wrong else "no errors"))
    print(check.not_checked(not quick, decoded))
    if wrong:
        raise SystemExit(1)


@store.command()
def ls(
    folder: Folder,
    clips: Annotated[bool, typer.Option(help="List clips instead of shards.")] = False,
    status: Annotated[str, typer.Option(help="List only clips with this status: ok, broken, missing, ...")] = "",
) -> None:
    """List the shards of a store, or its clips with status and reason (tab-separated)."""
    from mscl.store import check
    from mscl.store.shards import Shards

    found = check.indexes(folder)
    if clips or status:
        table = Shards(found).clips
        table = table[table["status"] == status] if status else table
        for row in table.itertuples():
            print(row.clip_id, row.status, row.count, f"{row.width}x{row.height}", row.reason, sep="\t")
        return
    table = check.listing(found)
    print(table.to_string(index=False))
    total = table[["clips", "ok", "frames", "MB"]].sum()
    kept = ", decoded from the videos at each use" if any(map(check.is_decoded, found)) else f", {total.MB:.1f} MB"
    print(f"{len(table)} shards: {total.clips:.0f} clips, {total.ok:.0f} usable, {total.frames:.0f} frames{kept}")


@store.command()
def show(
    folder: Folder,
    clip: Annotated[str, typer.Argument(help="A clip_id; `store ls --clips` lists them.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The PNG file to write; default: <clip>.png in the working directory.")
    ] = None,
    flow: Annotated[
        Path | None, typer.Option(help="The store of its optical flow; default: the folder flow/ beside frames/.")
    ] = None,
    count: Annotated[int, typer.Option(help="Number of frames to show.")] = 16,
) -> None:
    """Write an overview image of one clip: frames, optical flow, and the allowed start frames."""
    from mscl.flow.sheet import contact_sheet
    from mscl.store import check
    from mscl.store.shards import Shards

    frames = Shards(check.indexes(folder))
    if clip not in frames:
        near = difflib.get_close_matches(clip, frames.clips["clip_id"].astype(str), n=1, cutoff=0.4)
        raise ValueError(f"{folder}: no clip '{clip}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    beside = flow or folder.resolve().parent.parent / "flow" / folder.resolve().name
    fields = Shards(check.indexes(beside)) if flow or any(beside.glob("*.parquet")) else None
    out = out or Path(re.sub(r"[^\w.+-]+", "_", clip) + ".png")
    contact_sheet(frames, fields, clip, out, count)
    print(out)
