"""A shard whose job was killed is resumed, and ends with the same bytes as one that was never interrupted."""

import os
import tarfile

import numpy as np
import pytest
import simplejpeg

from mscl.store.shards import Shards
from mscl.store.writer import ShardWriter
from mscl.video.extract import SCHEMA
from tests.store.shards import frame_row, write_frames

CLIPS = {
    name: [simplejpeg.encode_jpeg(np.full((8, 8, 3), 9 * i + k, np.uint8)) for k in range(3)] for i, name in enumerate("abcd")
}


def start(index, clips, key="key"):
    """Write some clips and leave without a commit; returns the number of clips in the part at the end."""
    with ShardWriter(index.with_suffix(".tar"), index, SCHEMA, key) as writer:
        for clip in clips:
            writer.add(frame_row(clip, CLIPS[clip]), CLIPS[clip])
        return writer.done


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def never_stopped(tmp_path):
    index = write_frames(tmp_path / "never" / "set" / "0.parquet", CLIPS)
    return index.read_bytes(), index.with_suffix(".tar").read_bytes()


def test_no_file_has_its_final_name_before_the_commit_and_a_resume_repeats_nothing(tmp_path, never_stopped):
    index = tmp_path / "again" / "set" / "0.parquet"
    start(index, "ab")
    assert names(index.parent) == [".0.tar.journal", ".0.tar.part"]
    assert start(index, "c") == 3
    write_frames(index, CLIPS)
    assert (index.read_bytes(), index.with_suffix(".tar").read_bytes()) == never_stopped
    assert names(index.parent) == ["0.parquet", "0.tar"]


@pytest.mark.parametrize("harm", ["torn line", "members past the journal", "journal past the members", "binary rubbish"])
def test_after_a_crash_the_part_is_truncated_to_complete_clips(tmp_path, never_stopped, harm):
    index = tmp_path / "again" / "set" / "0.parquet"
    start(index, "abc")
    part, journal = index.parent / ".0.tar.part", index.parent / ".0.tar.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    if harm == "torn line":
        journal.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    if harm == "members past the journal":
        journal.write_bytes(b"".join(lines[:-1]))
    if harm == "journal past the members":
        os.truncate(part, part.stat().st_size - 1000)
    if harm == "binary rubbish":
        journal.write_bytes(b"".join(lines[:-1]) + b"\x00\xff" * 40 + b"\n")
    assert start(index, "") == 2
    write_frames(index, CLIPS)
    assert (index.read_bytes(), index.with_suffix(".tar").read_bytes()) == never_stopped


def test_an_interrupt_while_the_journal_is_written_repeats_no_clip(tmp_path, never_stopped, monkeypatch):
    """Ctrl-C between writing the journal and syncing it to disk: leaving the block writes again."""
    index = tmp_path / "again" / "set" / "0.parquet"
    with pytest.raises(KeyboardInterrupt):
        with ShardWriter(index.with_suffix(".tar"), index, SCHEMA, "key") as writer:
            writer.add(frame_row("a", CLIPS["a"]), CLIPS["a"])
            calls = iter([None, KeyboardInterrupt])  # the fsync of the members succeeds, that of the journal does not
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(error) if (error := next(calls)) else None)
                writer._sync()
    assert start(index, "") == 1
    write_frames(index, CLIPS)
    assert (index.read_bytes(), index.with_suffix(".tar").read_bytes()) == never_stopped


def test_a_repeated_journal_line_and_a_missing_clip_are_detected(tmp_path, never_stopped):
    index = tmp_path / "again" / "set" / "0.parquet"
    start(index, "abc")
    journal = index.parent / ".0.tar.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines, lines[-1]]))
    assert start(index, "") == 3
    with pytest.raises(ValueError, match=r"0\.tar: 3 clips were written, expected 4"):
        with ShardWriter(index.with_suffix(".tar"), index, SCHEMA, "key") as writer:
            writer.commit(4)
    write_frames(index, CLIPS)
    assert (index.read_bytes(), index.with_suffix(".tar").read_bytes()) == never_stopped


def test_a_full_disk_is_reported_and_written_clips_are_kept(tmp_path, never_stopped, small_disk):
    disk = small_disk(200)
    index = disk / "0.parquet"
    with pytest.raises(OSError, match="No space left"):
        with ShardWriter(index.with_suffix(".tar"), index, SCHEMA, "key") as writer:
            writer.add(frame_row("a", CLIPS["a"]), CLIPS["a"])
            writer._sync()
            writer.add(frame_row("b", [b"x" * 300_000]), [b"x" * 300_000])
    assert not index.exists() and start(index, "") == 1
    write_frames(index, CLIPS)
    assert index.with_suffix(".tar").read_bytes() == never_stopped[1]


@pytest.mark.parametrize("loss", ["other settings", "no part"])
def test_a_part_with_other_settings_is_deleted(tmp_path, never_stopped, loss):
    index = tmp_path / "again" / "set" / "0.parquet"
    start(index, "ba", key="other" if loss == "other settings" else "key")
    if loss == "no part":
        (index.parent / ".0.tar.part").unlink()
    assert start(index, "") == 0
    write_frames(index, CLIPS)
    assert (index.read_bytes(), index.with_suffix(".tar").read_bytes()) == never_stopped


def test_two_processes_cannot_write_the_same_shard(tmp_path):
    index = tmp_path / "0.parquet"
    with ShardWriter(index.with_suffix(".tar"), index, SCHEMA, "key"):
        with pytest.raises(ValueError, match=r"0\.tar: another process is writing this shard"):
            start(index, "a")
    assert start(index, "a") == 1


def test_a_row_that_does_not_fit_the_index_leaves_no_final_name(tmp_path):
    index = tmp_path / "0.parquet"
    with pytest.raises(Exception, match="width|int"):
        with ShardWriter(index.with_suffix(".tar"), index, SCHEMA, "key") as writer:
            writer.add(frame_row("a", CLIPS["a"]) | {"width": "wide"}, CLIPS["a"])
            writer.commit(1)
    assert not index.exists() and not index.with_suffix(".tar").exists()


def test_any_tar_tool_can_read_it_and_long_names_are_kept(tmp_path):
    long = "x" * 150
    index = write_frames(tmp_path / "0.parquet", {"a": CLIPS["a"], f"Class (1)/{long}": CLIPS["b"]})
    with tarfile.open(index.with_suffix(".tar")) as tar:
        assert tar.getnames() == [f"{c}/{n:06d}.jpg" for c in ("a", f"Class (1)/{long}") for n in (0, 2, 4)]
        assert tar.extractfile("a/000002.jpg").read() == CLIPS["a"][1]
        assert {(m.mtime, m.uid, m.uname) for m in tar} == {(0, 0, "")}
    assert Shards([index]).read(1, 0) == CLIPS["b"][0]
