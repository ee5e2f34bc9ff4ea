"""A store without images (frames.keep: none): the same frames bit for bit, decoded at each use; a video that is not the listed one is an error."""

import math
import pickle
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mscl.config.datasets import FramesConfig
from mscl.datasets.shared import stored_frames
from mscl.stages.jobs import FramesJob
from mscl.store import check, videos
from mscl.store.index import Damaged
from mscl.store.shards import Shards
from mscl.training.clips import readable
from mscl.video import extract as stage
from mscl.video import ffmpeg
from mscl.video.extract import extract_shard
from mscl.video.ffmpeg import decode
from mscl.video.program import program
from tests.video.shard import write_manifest

CASES = Path(__file__).parents[1] / "video" / "cases"


def make(folder: Path, manifest: Path, keep: str) -> Path:
    index = folder / keep / "0003.parquet"
    frames = FramesConfig(step=2, short_side=48, keep=keep)
    extract_shard(FramesJob(frames=frames, shards=4), manifest, 3, index.with_suffix(".tar"), index, 2)
    return index


@pytest.fixture
def rows(tmp_path) -> list[dict]:
    """Videos as they come: whole ones, a part of one, a truncated, a broken and a missing one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("plain.mp4", "equal_stamps.mkv", "non_square_pixels.mp4"):
        shutil.copy(CASES / name, folder)
    whole = folder / "plain.mp4"
    # Without its end, a Matroska file is read up to there.
    subprocess.run([program().exe, "-v", "error", "-i", whole, "-c:v", "mpeg4", "-q:v", "2", folder / "cut.mkv"], check=True)
    data = (folder / "cut.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(data[: 2 * len(data) // 3])
    (folder / "broken.mp4").write_bytes(b"not a video")
    names = {path.stem: path for path in sorted(folder.glob("*.*"))} | {"gone": folder / "gone.mp4"}
    found = [{"clip_id": name, "path": str(path)} for name, path in names.items()]
    found.append({"clip_id": "part", "path": str(whole), "start": 0.2, "end": 0.8})
    return [*found, {"clip_id": "unlisted", "path": "", "status": "missing", "reason": "no file"}]


@pytest.fixture
def both(tmp_path, rows) -> tuple[Path, Path]:
    """The indexes of the same videos with and without stored images."""
    manifest = write_manifest(tmp_path, rows)
    return make(tmp_path, manifest, "all"), make(tmp_path, manifest, "none")


def test_the_same_frames_bit_for_bit_without_storing_them(both):
    stored, decoded = Shards([both[0]]), Shards([both[1]])
    same = ["clip_id", "status", "reason", "note", "width", "height", "fps", "raw_frames", "count"]
    pd.testing.assert_frame_equal(stored.clips[same], decoded.clips[same])
    assert {"ok", "broken", "missing"} == set(decoded.clips["status"])
    assert decoded.clips.set_index("clip_id").loc["cut", "reason"]  # an error, after which its frames are used
    for row in range(len(stored)):
        for name in ("frame", "pts", "size", "crc"):
            assert stored.column(name, row).tolist() == decoded.column(name, row).tolist()
        assert [stored.read(row, k) for k in range(stored.clips["count"][row])] == list(
            decoded.read(row, k) for k in range(decoded.clips["count"][row])
        )
    assert stored_frames(stored) == stored_frames(decoded)  # so copies are found between such data sets, too
    with tarfile.open(decoded.tar_paths[0]) as tar:
        assert not tar.getmembers() and decoded.tar_paths[0].stat().st_size == 10240
    with pytest.raises(IndexError, match="clip 'plain' has 13 kept frames; there is no frame 13"):
        decoded.read(decoded.row("plain"), 13)


def test_an_index_of_stored_images_has_not_changed(both):
    """What was extracted before `keep` stays valid: no new column, no new metadata, no other key of a part."""
    names = "clip_id status reason note width height fps raw_frames frame pts offset size crc".split()
    schema = pq.read_schema(both[0])
    assert schema.names == names
    assert {k for k in schema.metadata if k.startswith(b"mscl")} == {
        b"mscl.tar_size", b"mscl.tar_sha256", b"mscl.shards", b"mscl.name",
    }  # fmt: skip
    without = pq.read_schema(both[1])
    assert set(without.names) == {*names, "path", "start", "end", "bytes"} - {"offset"}
    assert FramesConfig.model_validate_json(without.metadata[videos.FRAMES]).short_side == 48


def test_a_thread_holds_one_video_and_processes_read_alike(both):
    stored, decoded = Shards([both[0]]), Shards([both[1]])
    ok = [row for row in range(len(stored)) if stored.clips["count"][row] > 1]
    wanted = [(row, k) for k in (0, 1) for row in ok]  # another video at each read
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda one: decoded.read(*one), wanted))
    assert found == [stored.read(*one) for one in wanted]
    assert pickle.loads(pickle.dumps(decoded)).read(ok[0], 1) == stored.read(ok[0], 1)


def test_a_video_is_decoded_once_for_what_is_read_of_it(both, monkeypatch):
    stored, decoded, calls = Shards([both[0]]), Shards([both[1]]), []
    monkeypatch.setattr(ffmpeg, "decode", lambda *how, only=(): calls.append(list(only)) or decode(*how, only=only))
    for name in ("plain", "part", "cut", "equal_stamps", "non_square_pixels"):
        row, last = decoded.row(name), int(stored.clips["count"][stored.row(name)]) - 1
        decoded.will_read(row, np.array([last, 1, 1, 0]))
        assert [decoded.read(row, k) for k in (0, 1, last, -1)] == [stored.read(row, k) for k in (0, 1, last, last)]
        decoded.will_read(row, [1])
        assert calls == [sorted({0, 1, last})]  # only these were coded, and once
        assert decoded.read(row, 2) == stored.read(row, 2) and decoded.read(row, 0) == stored.read(row, 0)
        assert calls.pop() == [] and calls.pop() == sorted({0, 1, last})  # one that was not told of: all
    decoded.close()
    decoded.read(row, 0)
    assert calls == [[]]  # nothing is held after that


def test_a_decoder_that_codes_a_few_frames_otherwise_is_asked_for_all(both, monkeypatch):
    stored, decoded = Shards([both[0]]), Shards([both[1]])
    row = decoded.row("plain")
    monkeypatch.setattr(ffmpeg, "decode", lambda *how, only=(): decode(*how, only=[k + 1 for k in only]))  # a fault
    decoded.will_read(row, [2, 5])
    assert [decoded.read(row, k) for k in (2, 5)] == [stored.read(row, k) for k in (2, 5)]


def a_flipped_byte(path: Path) -> None:
    """In its middle, so that some of the frames are those of before."""
    data = bytearray(path.read_bytes())
    data[(data.index(b"mdat") + data.index(b"moov")) // 2] ^= 255
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


REPLACED = {
    a_flipped_byte: r"plain\.mp4: decodes to .*, so it is not what was listed; frames.keep is none",
    truncated: r"plain\.mp4: another file than the one that was listed, of [\d,]+ bytes, not [\d,]+; frames.keep is none",
    Path.unlink: r"plain\.mp4: cannot be read \(no such file or directory\); frames.keep is none",
}


@pytest.mark.parametrize("change", REPLACED, ids=lambda change: change.__name__)
def test_a_video_that_is_not_the_listed_one_is_an_error_with_its_cure(both, rows, change):
    decoded = Shards([both[1]])
    change(Path(next(row["path"] for row in rows if row["clip_id"] == "plain")))
    with pytest.raises(Damaged, match=REPLACED[change] + r", so each use of clip 'plain' .*snakemake -R manifest$"):
        decoded.image(decoded.row("plain"), 3, lambda data: data)
    said = check.verify(both[1])
    assert len(said) in (1, 2) and all("/plain.mp4: " in one for one in said)  # plain, and perhaps the part of it
    assert check.verify(both[1], decode=False) == [] and check.verify(both[0]) == []


def test_a_missing_video_is_found_before_anything_is_trained(both, rows, tmp_path):
    manifest = pd.DataFrame(rows).fillna({"status": "ok", "reason": ""})
    good, bad = readable(manifest, Shards([both[1]]))
    assert {"plain", "part", "cut"} < set(good["clip_id"]) and {"broken", "gone", "unlisted"} <= set(bad["clip_id"])
    (tmp_path / "videos" / "plain.mp4").unlink()
    with pytest.raises(Damaged, match=r"plain\.mp4: cannot be read .* \(and 1 more videos of "):
        readable(manifest, Shards([both[1]]))
    assert len(readable(manifest, Shards([both[0]]))[0]) == len(good)  # where images are stored, no video is needed
    assert len(readable(manifest[manifest["clip_id"] == "cut"], Shards([both[1]]))[0]) == 1  # nor one that is not used
    missing, other = check.videos(both[1])
    assert len(missing) == 2 and not other and check.videos(both[0]) == ([], [])


def test_another_ffmpeg_is_named_where_it_decodes_otherwise(both, rows):
    shards = Shards([both[1]])
    row = shards.clips.iloc[shards.row("plain")].to_dict()
    crcs = shards.column("crc", shards.row("plain")).copy()
    assert len(videos.images(row, crcs, shards._how[0], "4.2")) == 13  # the bits decide, not the version
    crcs[2] ^= 1
    with pytest.raises(
        ValueError, match=r"decodes to another picture as frame 4, .* listed by ffmpeg 4\.2, and here is \S+; frames"
    ):
        videos.images(row, crcs, shards._how[0], "4.2")


def test_a_killed_extraction_goes_on(both, rows, tmp_path, monkeypatch, capsys):
    calls = []

    def dies(path, *how):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return decode(path, *how)

    index = tmp_path / "none" / "0003.parquet"
    never_stopped = index.read_bytes(), index.with_suffix(".tar").read_bytes()
    for suffix in (".parquet", ".tar"):
        index.with_suffix(suffix).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(stage, "decode", dies)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, tmp_path / "manifest.parquet", "none")
    assert not index.exists()
    make(tmp_path, tmp_path / "manifest.parquet", "none")
    assert "resuming after" in capsys.readouterr().err
    assert (index.read_bytes(), index.with_suffix(".tar").read_bytes()) == never_stopped


def test_the_store_commands(both, tmp_path):
    def store(*arguments):
        return subprocess.run([sys.executable, "-m", "mscl", "store", *map(str, arguments)], capture_output=True, text=True)

    folder = both[1].parent
    assert store("ls", folder).stdout.rstrip().endswith("frames, decoded from the videos at each use")
    out = tmp_path / "sheet.png"
    shown = store("show", folder, "plain", "--out", out)
    assert shown.returncode == 0 and out.stat().st_size > 1000, shown.stderr
    said = store("verify", folder)
    assert said.stdout.rstrip().endswith("not looked at: nothing; every video was decoded")
    assert said.stderr.count("the shard is missing") == 3 and "plain" not in said.stderr
    truncated(tmp_path / "videos" / "plain.mp4")
    for options in ([], ["--quick"]):
        assert store("verify", folder, *options).stderr.count("another file than the one that was listed") == 2


def test_nothing_but_ffmpeg_is_needed_to_decode():
    """Training imports the decoder only when it is used, so no test of imports sees it: it loads nothing heavy."""
    code = "import sys, mscl.video.ffmpeg as f; f.program(); print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "simplejpeg" in loaded and not loaded & {
        "cv2",
        "torch",
        "pandas",
        "decord",
        "matplotlib",
        "captum",
        "snakemake",
        "sklearn",
    }


def test_frames_of_a_part_are_those_of_its_seconds(both):
    shards = Shards([both[1]])
    row = shards.clips.iloc[shards.row("part")]
    assert (row["start"], row["end"]) == (0.2, 0.8) and 0 < row["count"] < 13
    assert math.isnan(shards.clips.iloc[shards.row("plain")]["start"])
