"""Curves are no result: a run never fails for them."""

import warnings

import pytest

from mscl.watch.curves import Curves

pytest.importorskip("tensorboard")


def drawn(folder, points=200):
    """How often it was said that `points` points cannot be written to `folder`."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        curves = Curves(folder, 0)
        for number in range(points):
            curves.add({f"step/{name}": 1.0 for name in range(20)}, number)
        curves.close()
    found = [str(w.message) for w in said if "curves cannot be written" in str(w.message)]
    assert all(str(folder) in text and text.endswith("training goes on without them") for text in found)
    return len(found)


def test_curves_are_written_where_they_can_be(tmp_path):
    assert drawn(tmp_path / "curves") == 0
    assert [p.stat().st_size > 10_000 for p in (tmp_path / "curves").iterdir()] == [True]


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").touch()
    assert drawn(tmp_path / "file" / "curves") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_said_once(small_disk):
    assert drawn(small_disk(16) / "curves") == 1


def test_a_folder_that_goes_away_is_said_once(tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(SummaryWriter, "flush", refuse)
    assert drawn(tmp_path / "curves") == 1
