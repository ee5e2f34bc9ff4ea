import os
import pickle

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from mscl.store.files import OPEN
from mscl.store.jpeg import decode_gray, decode_rgb
from mscl.store.shards import Shards
from tests.store.shards import write_frames


def jpeg(value, h=16, w=24):
    return simplejpeg.encode_jpeg(np.full((h, w, 3), value, np.uint8), quality=95)


def write(path, clips):
    """`clips`: {clip_id: list of grey values}; an empty list is a broken clip."""
    broken = {clip: ("broken", "why") for clip, values in clips.items() if not values}
    return write_frames(path, {clip: [jpeg(v) for v in values] for clip, values in clips.items()}, **broken)


@pytest.fixture
def shards(tmp_path):
    a = write(tmp_path / "0000.parquet", {"a": [0, 100, 200], "b!&(": []})
    b = write(tmp_path / "0001.parquet", {"c": [50]})
    return Shards([a, b])


def test_round_trip(shards):
    assert list(shards.clips["clip_id"]) == ["a", "b!&(", "c"]
    assert list(shards.clips["count"]) == [3, 0, 1]
    assert list(shards.clips["shard"]) == [0, 0, 1]
    assert "pts" not in shards.clips and shards.clips["width"].iloc[0] == 24
    row = shards.row("a")
    assert list(shards.frames(row)) == [0, 2, 4]
    assert list(shards.column("pts", row)) == [0, 0.2, 0.4]
    assert [int(decode_gray(shards.read(row, k)).mean()) for k in range(3)] == [0, 100, 200]
    assert int(decode_gray(shards.read(shards.row("c"), 0)).mean()) == 50
    assert len(shards.frames(shards.row("b!&("))) == 0


def test_unknown_clip_frame_and_column_are_named(shards):
    with pytest.raises(ValueError, match="no clip 'zz'"):
        shards.row("zz")
    with pytest.raises(IndexError, match="clip 'a' has 3 kept frames; there is no frame 3"):
        shards.read(0, 3)
    with pytest.raises(ValueError, match="no list column 'score'"):
        shards.column("score", 0)


def test_forked_and_unpickled_readers_open_their_own_files(shards):
    want = shards.read(0, 1)  # the parent has its descriptor open
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.read(0, 1) == want
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = len(OPEN) == 0 and shards.read(0, 1) == want
            shards.close()
        finally:  # a forked child must never return into pytest
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shards.read(0, 1) == want


def test_damaged_files_give_one_sentence(tmp_path):
    path = write(tmp_path / "0.parquet", {"a": [1, 2]})
    tar = path.with_suffix(".tar")
    whole = tar.read_bytes()
    with pytest.raises(ValueError, match="no such shard index"):
        Shards([tmp_path / "9.parquet"])
    tar.write_bytes(whole[:700])
    with pytest.raises(ValueError, match="700 bytes, its index 0.parquet expects"):
        Shards([path])
    tar.unlink()
    with pytest.raises(ValueError, match="missing beside its index"):
        Shards([path])
    tar.write_bytes(b"\0" * len(whole))
    with pytest.raises(
        ValueError,
        match="clip 'a', frame 0: the bytes at 512 are not those that were written .crc.; make the shard again: delete .*0.tar and .0.tar.kept beside it, and run snakemake",
    ):
        Shards([path]).read(0, 0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable parquet"):
        Shards([path])
    pd.DataFrame({"clip_id": ["a"]}).to_parquet(path)
    with pytest.raises(ValueError, match="not a shard index of this version .no column status"):
        Shards([path])


def test_same_clip_twice_is_refused(tmp_path):
    a, b = write(tmp_path / "0.parquet", {"a": [1]}), write(tmp_path / "1.parquet", {"a": [1]})
    with pytest.raises(ValueError, match="clip 'a' is in the shards twice"):
        Shards([a, b])


def test_decoding():
    image = simplejpeg.encode_jpeg(np.full((240, 320, 3), (200, 30, 60), np.uint8))
    assert decode_rgb(image).shape == (240, 320, 3)
    assert np.abs(decode_rgb(image)[5, 5].astype(int) - (200, 30, 60)).max() < 6  # RGB, not BGR
    small = decode_rgb(image, min_side=112)
    assert 112 <= min(small.shape[:2]) < 240 and abs(small.shape[1] / small.shape[0] - 4 / 3) < 0.02
    assert decode_rgb(jpeg(9, 16, 16), min_side=112).shape == (16, 16, 3)
    with pytest.raises(ValueError, match="not a decodable JPEG"):
        decode_rgb(b"nonsense")
    with pytest.raises(ValueError, match="not a decodable JPEG"):
        decode_gray(b"")
