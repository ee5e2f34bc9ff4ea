"""Files are whole or absent, also after a power cut; what a killed run left is removed."""

import errno
import os

import pytest

from mscl.machine.files import atomic_write, remove_leftovers


def recorded(monkeypatch, fails=None, code=errno.EINVAL):
    """The order in which things happen: 'file' and 'folder' are synced, 'rename'; `fails` answers with `code`."""
    done, fsync, replace = [], os.fsync, os.replace

    def sync(handle):
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"
        done.append(kind)
        if kind == fails:
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    return done


def test_a_file_is_on_the_disk_before_the_old_one_is_gone(tmp_path, monkeypatch):
    done = recorded(monkeypatch)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert done == ["file", "rename", "folder"] and (tmp_path / "a.txt").read_text() == "new"


def test_a_file_system_that_cannot_sync_a_folder_is_no_error(tmp_path, monkeypatch):
    recorded(monkeypatch, fails="folder")
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_disk_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    recorded(monkeypatch, fails="file", code=errno.EIO)
    with pytest.raises(OSError, match="Input/output"), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    kept = ["checkpoint.pt", ".0000.tar.part", ".mine.tmp", "a.7.tmp"]
    for name in (*kept, ".checkpoint.pt.4711.tmp", ".weights.safetensors.12.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "absent")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
