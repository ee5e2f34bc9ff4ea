"""Read and check the index of a shard: a parquet file beside its tar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mscl.store.videos import COLUMNS, FRAMES, settings_of
from mscl.store.writer import NAME, TAR_SIZE

REQUIRED = ("clip_id", "status", "frame", "size", "crc")
LAZY = ("pts",)  # list columns that are read only on demand; training never needs them
NARROW = {"size": np.int32}  # smaller dtype in memory than on disk
TYPES = {
    **dict.fromkeys(("clip_id", "status", "reason", "note"), pa.string()),
    **dict.fromkeys(("width", "height", "raw_frames", "frame"), pa.int32()),
    **dict.fromkeys(("offset", "size"), pa.int64()),
    **dict.fromkeys(("scale", "radius", "score"), pa.float32()),
    **dict.fromkeys(("fps", "pts"), pa.float64()),
    "crc": pa.uint32(),
    "allowed": pa.bool_(),
    **COLUMNS,
}  # of the values, in lists, too
LARGEST = 1e6  # a flow scale (pixels per code) beyond it is damage; real ones are below 100


class Damaged(ValueError):
    """A store is damaged: never to be taken for a property of a video."""


def again(path: Path) -> str:
    """How to make the shard of an index or a tar again; to be put at the end of an error message.

    Its hard link, which would be put back (`mscl.stages.keep`), has the same damage.
    """
    rule, tar = "flow" if path.parent.parent.name == "flow" else "frames", path.with_suffix(".tar")
    return (
        f"make the shard again: delete {tar} and .{tar.name}.kept beside it, and run snakemake (for all shards: delete every .*.kept "
        f"there, and run snakemake -R {rule})"
    )


def read_index(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The index without its LAZY columns (they are null), or the given columns. Raises Damaged if it is not a readable index."""
    try:
        schema = pq.read_schema(path)
        wanted = columns or [n for n in schema.names if n not in LAZY]
        table = pq.read_table(path, columns=wanted, partitioning=None, page_checksum_verification=True)
    except FileNotFoundError:
        raise Damaged(f"{path}: no such shard index; {again(path)}") from None
    except (OSError, pa.ArrowException) as error:
        raise Damaged(f"{path}: not a readable parquet file ({' '.join(str(error).split())[:120]}); {again(path)}") from None
    needed = (*REQUIRED, *(COLUMNS if FRAMES in (schema.metadata or {}) else ("offset",)))
    missing = [c for c in needed if c not in schema.names]
    if missing:
        raise Damaged(f"{path}: not a shard index of this version (no column {', '.join(missing)}); if it is one, {again(path)}")
    if columns is None:  # keep the lazily read columns in the schema
        for name in (n for n in schema.names if n in LAZY):
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
    return table.replace_schema_metadata(schema.metadata)


def check_index(index: Path, tar: Path, table: pa.Table) -> None:
    """Raise Damaged unless the index is well-formed and `tar` is complete and is the file that it was written for."""
    _check_name(index, table)
    _check_types(index, table)
    _check_lengths(index, table)
    _check_tar(index, tar, table)
    _check_flow(index, table)
    try:
        settings_of(table.schema.metadata)
    except ValueError:
        raise Damaged(f"{index}: tells settings of its frames that this version does not know; {again(index)}") from None


def _check_name(index: Path, table: pa.Table) -> None:
    """The folder may be renamed, but a shard has its number."""
    name = (table.schema.metadata or {}).get(NAME, b"").decode()
    if name and name.split("/")[-1] != index.stem:
        raise Damaged(f"{index}: is a copy of shard {name}, not shard {index.stem}; {again(index)}")


def _check_types(index: Path, table: pa.Table) -> None:
    for field in table.schema:
        have = field.type.value_type if pa.types.is_list(field.type) else field.type
        if field.name in TYPES and have != TYPES[field.name]:
            raise Damaged(f"{index}: column {field.name} holds {have}, not {TYPES[field.name]}; {again(index)}")
        if field.name not in LAZY and table.column(field.name).null_count:
            raise Damaged(f"{index}: column {field.name} has empty cells; {again(index)}")


def _check_lengths(index: Path, table: pa.Table) -> None:
    want = None
    for field in table.schema:
        if pa.types.is_list(field.type) and field.name not in LAZY:
            have = np.diff(flat([table.column(field.name)], field.name)[0])
            want = have if want is None else want
            if (have != want).any():
                row = int(np.flatnonzero(have != want)[0])
                raise Damaged(
                    f"{index}: {clip(table, row)}: column {field.name} has {have[row]} values for {want[row]} frames; {again(index)}"
                )


def _check_tar(index: Path, tar: Path, table: pa.Table) -> None:
    try:
        have = tar.stat().st_size
    except OSError:
        raise Damaged(f"{tar}: missing beside its index {index.name}; {again(tar)}") from None
    need = (table.schema.metadata or {}).get(TAR_SIZE)
    if need is not None and have != int(need):
        raise Damaged(f"{tar}: has {have} bytes, its index {index.name} expects {int(need)}; {again(tar)}")
    if "offset" not in table.column_names:  # the images are not stored
        return
    bounds, offsets = flat([table.column("offset")], "offset")
    sizes = flat([table.column("size")], "size")[1]
    _first(
        index,
        table,
        bounds,
        (offsets < 0) | (sizes <= 0) | (offsets + sizes > have),
        f"lies outside the {have} bytes of {tar.name}",
    )


def _check_flow(index: Path, table: pa.Table) -> None:
    """Values that a training would take as they are: scales, radii, scores, and the starts that MDS allows."""
    for name, wrong, what in (
        ("scale", lambda v: ~((v > 0) & (v < LARGEST)), f"has a scale that is not between 0 and {LARGEST:g}"),
        ("radius", lambda v: ~((v >= 0) & np.isfinite(v)), "has a radius that is negative or not finite"),
        ("score", lambda v: ~((v >= 0) & np.isfinite(v)), "has a score that is negative or not finite"),
    ):
        if name in table.column_names:
            bounds, values = flat([table.column(name)], name)
            _first(index, table, bounds, wrong(values), what)
    if {"score", "allowed"} <= set(table.column_names):
        bounds, scores = flat([table.column("score")], "score")
        rows = wrongly_allowed(bounds, scores, flat([table.column("allowed")], "allowed")[1])
        if len(rows):
            raise Damaged(
                f"{index}: {clip(table, int(rows[0]))}: column allowed does not mark the frames with a score above the median; {again(index)}"
            )


def wrongly_allowed(bounds: np.ndarray, scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Rows whose `allowed` is not `score` > median of the row. `bounds`: see `flat`; scores >= 0 (N,) float32, allowed (N,) bool.

    All rows are sorted at once: the bits of a float >= 0 are in the order of the floats.
    """
    count = np.diff(bounds)
    rows = np.repeat(np.arange(len(count)), count)
    keys = np.sort(rows << 32 | (scores + np.float32(0)).view(np.int32))  # + 0: there is a float -0
    ordered = (keys & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
    full = np.flatnonzero(count)
    first, n = bounds[:-1][full], count[full]
    low, high = ordered[first + (n - 1) // 2], ordered[first + n // 2]
    median = np.zeros(len(count), np.float32)
    median[full] = np.where(n % 2, low, (low + high) / np.float32(2))  # as numpy.median does
    return np.unique(rows[allowed != (scores > median[rows])])


def _first(index: Path, table: pa.Table, bounds: np.ndarray, wrong: np.ndarray, what: str) -> None:
    """Raise Damaged for the first wrong value of a flattened list column, if there is one."""
    if not wrong.any():
        return
    at = int(np.flatnonzero(wrong)[0])
    row = int(np.searchsorted(bounds, at, side="right")) - 1
    frame = table.column("frame")[row][at - int(bounds[row])].as_py()
    raise Damaged(f"{index}: {clip(table, row)}, frame {frame} {what}; {again(index)}")


def clip(table: pa.Table, row: int) -> str:
    """The name of a clip for a message."""
    return f"clip '{table.column('clip_id')[row].as_py()}'"


def flat(columns: list[pa.ChunkedArray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(bounds, values) of a list column: row r holds values[bounds[r]:bounds[r+1]]."""
    chunks = [c for column in columns for c in column.chunks]
    lengths = [c.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for c in chunks]
    values = [c.flatten().to_numpy(zero_copy_only=False) for c in chunks]
    if name in NARROW:
        values = [v.astype(NARROW[name]) for v in values]
    joined = np.concatenate(values) if values else np.zeros(0, np.int64)
    joined.flags.writeable = False
    return np.concatenate([[0], *lengths]).cumsum().astype(np.int64), joined
