"""`python -m mscl store`: check a store, list its content and show one clip."""

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg

from mscl.config.settings import FlowConfig, MDSConfig
from mscl.flow.shard import flow_shard
from mscl.stages.jobs import FlowJob
from tests.store.shards import write_frames


def store(*arguments):
    return subprocess.run([sys.executable, "-m", "mscl", "store", *map(str, arguments)], capture_output=True, text=True)


def picture(n):
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 256, (15, 40), np.uint8), np.ones((4, 4), np.uint8))
    return simplejpeg.encode_jpeg(np.repeat(noise[:, 40 - n : 120 - n, None], 3, 2), quality=95)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two shards of frames (with one missing clip) and their flow."""
    folder = tmp_path_factory.mktemp("store")
    moving = [picture(n) for n in range(10)]
    frames = folder / "frames" / "set"
    write_frames(frames / "0000.parquet", {"a": moving, "Class (1)/b": moving[:6], "gone": []}, gone=("missing", "no such file"))
    write_frames(frames / "0001.parquet", {"c": moving})
    job = FlowJob(flow=FlowConfig(gap=2, size=(48, 64), short_side=30), mds=MDSConfig(stride=1, fields=2), device="cpu")
    for n in range(2):
        index, out = frames / f"000{n}.parquet", folder / "flow" / "set" / f"000{n}.parquet"
        flow_shard(job, index, index.with_suffix(".tar"), out.with_suffix(".tar"), out)
    return folder


def test_an_undamaged_store_is_listed_and_verified(whole):
    for part in ("frames", "flow"):
        run = store("verify", whole / part / "set")
        first, last = run.stdout.splitlines()
        assert (run.returncode, first) == (0, f"{whole / part / 'set'}: 2 shards, no errors"), run.stderr
        assert last == "not looked at: whether frames are those of the videos, and flow is that of the frames"
    shards = store("ls", whole / "frames" / "set").stdout
    assert "1 missing" in shards and "2 shards: 4 clips, 3 usable, 26 frames" in shards
    clips = store("ls", "--status", "missing", whole / "frames" / "set").stdout
    assert clips == "gone\tmissing\t0\t0x0\tno such file\n"


def flip_a_byte(folder):
    tar = folder / "0000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)


def swap_tars_of_one_size(folder):
    a = write_frames(folder / "x" / "0.parquet", {"c": [picture(n) for n in range(10)][::-1]})
    shutil.copy(a.with_suffix(".tar"), folder / "0001.tar")


def drop_a_shard(folder):
    for path in folder.glob("0000.*"):
        path.unlink()


def cut_the_tar(folder):
    (folder / "0001.tar").write_bytes((folder / "0001.tar").read_bytes()[:5000])


def edit_a_status(folder):
    rewrite(folder / "0000.parquet", "status", ["ok", "broken", "ok"])


def shift_the_frames(folder):
    rewrite(folder / "0001.parquet", "frame", [list(range(1, 20, 2))])


def rewrite(path, column, values):
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), path)


def copy_over_another(folder):
    for suffix in (".tar", ".parquet"):
        shutil.copy(folder / f"0000{suffix}", folder / f"0001{suffix}")


def take_one_of_another_data_set(folder):
    write_frames(folder.parent / "other" / "0001.parquet", {"x": [picture(1)]})
    for suffix in (".tar", ".parquet"):
        shutil.copy(folder.parent / "other" / f"0001{suffix}", folder / f"0001{suffix}")
    write_frames(folder / "0002.parquet", {"y": [picture(1)]})


def lose_a_time(folder):
    rewrite(folder / "0001.parquet", "pts", [[0.0]])


def lose_the_checksum(folder):
    table = pq.read_table(folder / "0001.parquet", partitioning=None)
    pq.write_table(table.replace_schema_metadata({}), folder / "0001.parquet")


@pytest.mark.parametrize(("harm", "sentence"), [
    (copy_over_another, "0001.parquet: is a copy of shard set/0000, not shard 0001"),
    (copy_over_another, "0001.parquet: clip 'Class (1)/b' is also in 0000.parquet"),
    (take_one_of_another_data_set, "0001.parquet: is of data set 'other', the others are of 'set'"),
    (lose_a_time, "0001.parquet: clip 'c': column pts does not have one value per frame"),
    (lose_the_checksum, "0001.parquet: holds no checksum of its tar"),
    (flip_a_byte, "0000.tar: its content has changed since it was written (sha256)"),
    (swap_tars_of_one_size, "0001.tar: "),
    (drop_a_shard, "0000: the shard is missing"),
    (cut_the_tar, "0001.tar: has 5000 bytes, its index 0001.parquet expects"),
    (edit_a_status, "clip 'Class (1)/b' has status"),
    (shift_the_frames, "member c/000000.jpg is not at the position or size in the index"),
])  # fmt: skip
def test_every_kind_of_damage_is_reported(whole, tmp_path, harm, sentence):
    folder = tmp_path / "set"
    shutil.copytree(whole / "frames" / "set", folder)
    harm(folder)
    run = store("verify", folder)
    assert run.returncode == 1 and sentence in run.stderr and "errors" in run.stdout


@pytest.mark.parametrize(("column", "change", "sentence"), [
    ("allowed", lambda row: [not v for v in row], "column allowed does not mark the frames with a score above the median"),
    ("scale", lambda row: [1e30 for _ in row], "has a scale that is not between 0 and 1e+06"),
])  # fmt: skip
def test_impossible_values_of_flow_are_reported(whole, tmp_path, column, change, sentence):
    shutil.copytree(whole / "flow" / "set", tmp_path / "set")
    rows = pq.read_table(tmp_path / "set" / "0001.parquet", partitioning=None).column(column).to_pylist()
    rewrite(tmp_path / "set" / "0001.parquet", column, [change(row) for row in rows])
    run = store("verify", "--quick", tmp_path / "set")
    assert run.returncode == 1 and "0001.parquet: clip 'c'" in run.stderr and sentence in run.stderr
    assert run.stdout.endswith("; whether the images can be decoded (--quick)\n")


def test_the_store_knows_how_many_shards_it_has(tmp_path):
    """A lost last shard is reported; shards of an earlier, larger number are ignored; a damaged shard does not hide others."""
    for n in range(3):
        write_frames(tmp_path / f"000{n}.parquet", {f"clip{n}": [picture(n)]}, shards=2 if n < 2 else 3)
    assert store("verify", tmp_path).stdout.splitlines()[0].endswith("2 shards, no errors")
    assert "2 shards: 2 clips" in store("ls", tmp_path).stdout and "clip2" not in store("ls", "--clips", tmp_path).stdout
    (tmp_path / "0000.tar").write_bytes(b"")
    listed = store("ls", tmp_path)
    assert listed.returncode == 0 and "unreadable: " in listed.stdout and "1 usable" in listed.stdout
    for path in tmp_path.glob("000[12].*"):
        path.unlink()
    lost = store("verify", tmp_path)
    assert lost.returncode == 1 and "0001: the shard is missing" in lost.stderr


def test_an_image_that_was_damaged_when_written_is_found_by_decoding(tmp_path):
    """Its bytes are those that were written, so the checksum is right; only decoding finds the error."""
    folder = write_frames(tmp_path / "0000.parquet", {"a": [picture(0), b"\xff\xd8rubbish", picture(1)]}).parent
    run = store("verify", folder)
    assert run.returncode == 1 and "clip 'a', frame 2 cannot be decoded" in run.stderr
    assert store("verify", "--quick", folder).returncode == 0


def test_a_contact_sheet_shows_frames_flow_and_start_frames(whole, tmp_path):
    run = store("show", whole / "frames" / "set", "Class (1)/b", "--out", tmp_path / "sheet.png")
    assert run.returncode == 0, run.stderr
    with_flow = cv2.imread(str(tmp_path / "sheet.png"))
    assert with_flow.shape[1] > 1000 and np.ptp(with_flow.reshape(-1, 3), axis=0).min() > 150  # colours, not a blank page
    near = store("show", whole / "frames" / "set", "Class 1/b")
    assert near.returncode == 1 and "did you mean 'Class (1)/b'?" in near.stderr
    empty = store("show", whole / "frames" / "set", "gone")
    assert "clip 'gone' has no frames: missing, no such file" in empty.stderr


def test_a_folder_that_is_not_a_store_gives_one_sentence(tmp_path):
    assert "no shard here; give the folder of a store" in store("ls", tmp_path).stderr
