"""Damage of an index or of a tar is found when it is read, and named with shard, clip, frame and the command that helps."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg

from mscl.flow.shard import SCHEMA as FLOW
from mscl.store.index import Damaged, wrongly_allowed
from mscl.store.jpeg import decode_gray, decode_rgb
from mscl.store.shards import Shards
from mscl.store.writer import ShardWriter
from tests.store.shards import write_frames

PICTURE = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))
SCORES = {"a": [0.1, 0.5, 0.3, 0.2], "b": [1.0, 1.0, 2.0]}


@pytest.fixture
def index(tmp_path):
    """A shard of flow with two clips."""
    path = tmp_path / "flow" / "set" / "0000.parquet"
    with ShardWriter(path.with_suffix(".tar"), path, FLOW, "key") as writer:
        for clip, scores in SCORES.items():
            score, n = np.float32(scores), len(scores)
            row = {
                "clip_id": clip,
                "status": "ok",
                "reason": "",
                "note": "",
                "width": 48,
                "height": 16,
                "frame": [3 * k for k in range(n)],
            }
            row |= {"scale": [1.5] * n, "radius": [0.5] * n, "score": score, "allowed": score > np.median(score)}
            writer.add(row, [PICTURE] * n)
        writer.commit(2)
    return path


def rewrite(index, column, change):
    """Change one column of an index as a program would that writes a valid file."""
    table = pq.read_table(index, partitioning=None)
    at = table.schema.get_field_index(column)
    values = change(table.column(column).to_pylist())
    kind = table.schema.field(at).type
    if isinstance(values, pa.Array):
        kind = values.type
    table = table.set_column(at, pa.field(column, kind), pa.array(values, kind) if isinstance(values, list) else values)
    pq.write_table(table.replace_schema_metadata(table.schema.metadata), index)


def put(clip, frame, value):
    def change(rows):
        rows[clip][frame] = value
        return rows

    return change


@pytest.mark.parametrize(("column", "change", "sentence"), [
    ("scale", put(1, 2, 1e30), "clip 'b', frame 6 has a scale that is not between 0 and 1e+06"),
    ("scale", put(0, 0, 0.0), "clip 'a', frame 0 has a scale"),
    ("scale", put(0, 1, float("nan")), "clip 'a', frame 3 has a scale"),
    ("radius", put(0, 1, float("inf")), "clip 'a', frame 3 has a radius that is negative or not finite"),
    ("score", put(1, 0, float("nan")), "clip 'b', frame 0 has a score that is negative or not finite"),
    ("allowed", lambda rows: [[not v for v in row] for row in rows], "clip 'a': column allowed does not mark"),
    ("allowed", put(1, 2, False), "clip 'b': column allowed does not mark the frames with a score above the median"),
    ("offset", put(1, 1, 10**9), "clip 'b', frame 3 lies outside the"),
    ("offset", put(1, 1, -512), "clip 'b', frame 3 lies outside the"),
    ("size", put(0, 2, 0), "clip 'a', frame 6 lies outside the"),
    ("radius", lambda rows: [rows[0][:3], rows[1]], "clip 'a': column radius has 3 values for 4 frames"),
    ("crc", lambda rows: [[*rows[0], 1], rows[1]], "clip 'a': column crc has 5 values for 4 frames"),
    ("frame", lambda rows: pa.array(rows, pa.list_(pa.float64())), "column frame holds double, not int32"),
    ("clip_id", lambda rows: pa.array([1, 2], pa.int32()), "column clip_id holds int32, not string"),
    ("status", lambda rows: ["ok", None], "column status has empty cells"),
])  # fmt: skip
def test_impossible_values_are_refused(index, column, change, sentence):
    Shards([index])
    rewrite(index, column, change)
    with pytest.raises(Damaged) as caught:
        Shards([index])
    assert sentence in str(caught.value) and str(index) in str(caught.value)
    tar = index.with_suffix(".tar")
    assert (
        f"make the shard again: delete {tar} and .{tar.name}.kept beside it, and run snakemake (for all shards: delete every .*.kept "
        "there, and run snakemake -R flow)"
    ) in str(caught.value)


def test_what_is_allowed_follows_the_median_as_numpy_has_it():
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 5, n).astype(np.float32) / 3 for n in (0, 1, 2, 3, 8, 9, 0, 50)]
    bounds, scores = np.cumsum([0, *map(len, rows)]), np.concatenate(rows)
    allowed = np.concatenate([row > np.median(row) for row in rows if len(row)])
    assert not len(wrongly_allowed(bounds, scores, allowed))
    for at in range(len(allowed)):
        wrong = allowed.copy()
        wrong[at] = not wrong[at]
        assert list(wrongly_allowed(bounds, scores, wrong)) == [np.searchsorted(bounds, at, side="right") - 1]


@pytest.mark.parametrize("bit", [0, 7])
def test_every_flipped_bit_of_a_picture_is_found_when_it_is_read(tmp_path, bit):
    """Without the checksum most of them decode to another picture without a word."""
    index = write_frames(tmp_path / "0000.parquet", {"a": [PICTURE]})
    tar, start = index.with_suffix(".tar"), 512
    for at in range(start, start + len(PICTURE), 53):
        data = bytearray(tar.read_bytes())
        data[at] ^= 1 << bit
        tar.write_bytes(data)
        with pytest.raises(Damaged, match=r"0000\.tar: clip 'a', frame 0: the bytes at 512 are not .*snakemake -R frames"):
            Shards([index]).read(0, 0)
        data[at] ^= 1 << bit
        tar.write_bytes(data)
    assert Shards([index]).read(0, 0) == PICTURE


def test_flipped_bits_of_an_index_are_found(tmp_path):
    """In the pages by their checksums, in the footer (which has none) mostly by parsing; values are validated on top."""
    index = write_frames(tmp_path / "0000.parquet", {f"clip{n}": [PICTURE] * 9 for n in range(20)})
    good, clips = index.read_bytes(), Shards([index]).clips
    pages = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    headers, silent = 0, []
    for at in range(4, pages, 7):
        data = bytearray(good)
        data[at] ^= 4
        index.write_bytes(data)
        try:
            shards = Shards([index])
            assert [shards.read(row, k) for row in range(20) for k in range(9)] and shards.clips.equals(clips)
            headers += 1  # a statistic or another unused field of a page header
        except ValueError:
            continue
        except AssertionError:
            silent.append(at)
    assert not silent and headers < pages / 7 / 2


def test_a_shard_copied_over_another_is_found(tmp_path):
    for n in range(2):
        write_frames(tmp_path / "set" / f"000{n}.parquet", {f"clip{n}": [PICTURE]})
    for suffix in (".parquet", ".tar"):
        shutil.copy(tmp_path / "set" / f"0000{suffix}", tmp_path / "set" / f"0001{suffix}")
    with pytest.raises(Damaged, match=r"0001\.parquet: is a copy of shard set/0000, not shard 0001; make the shard again"):
        Shards([tmp_path / "set" / "0001.parquet"])
    write_frames(tmp_path / "other" / "0001.parquet", {"another": [PICTURE]})
    for suffix in (".parquet", ".tar"):
        shutil.copy(tmp_path / "other" / f"0001{suffix}", tmp_path / "set" / f"0001{suffix}")
    with pytest.raises(Damaged, match=r"0001\.parquet: is of data set 'other', 0000.parquet is of 'set'"):
        Shards(sorted((tmp_path / "set").glob("*.parquet")))


def test_half_a_picture_is_an_error_and_not_a_picture(tmp_path):
    """OpenCV decodes it with a grey lower half."""
    half = PICTURE[: len(PICTURE) // 2]
    for decode in (decode_rgb, decode_gray):
        with pytest.raises(ValueError, match="not a decodable JPEG of"):
            decode(half)
    shards = Shards([write_frames(tmp_path / "0000.parquet", {"a": [PICTURE, half]})])
    assert shards.image(0, 0, decode_rgb).shape == (32, 48, 3)
    with pytest.raises(Damaged, match=r"0000\.tar: clip 'a', frame 2: not a decodable JPEG of .*make the shard again"):
        shards.image(0, 1, decode_rgb)
