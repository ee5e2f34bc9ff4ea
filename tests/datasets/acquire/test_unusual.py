"""Archives whose members cannot be placed, or that would fill the disk: one sentence each, and nothing is left."""

import io
import tarfile
import zipfile

import pytest

from mscl.datasets.acquire import unpack
from mscl.datasets.acquire.unpack import Refused, unpacked
from tests.datasets.acquire.test_unpack import rar, special, tar, zipped

LONG = "n" * 300
BOTH = [("a", b"1"), ("a/b", b"2")]
TURNED = BOTH[::-1]
CANNOT = "needs a name that is a file and a folder at once"


def refused(folder, data):
    archive = folder / "x.archive"
    archive.write_bytes(data)
    with pytest.raises(ValueError) as caught, unpacked(archive, folder / "out"):
        pass
    assert [p.name for p in folder.iterdir()] == ["x.archive"] and str(caught.value).startswith(str(archive))
    return caught.value


@pytest.mark.parametrize(("data", "why"), [
    (tar(*BOTH), f"member 'a/b' {CANNOT}"),
    (tar(*TURNED), f"member 'a' {CANNOT}"),
    (tar(("a", b"1"), special("a", tarfile.DIRTYPE), ("a/b", b"2")), CANNOT),
    (zipped(*BOTH), f"member 'a/b' {CANNOT}"),
    (zipped(*TURNED), f"member 'a' {CANNOT}"),
    (rar(*BOTH), f"member 'a/b' {CANNOT}"),
    (rar(*TURNED), f"member 'a' {CANNOT}"),
    (tar(("d/" + LONG, b"1")), "has a name of 302 bytes, too long for this disk"),
    (zipped(("d/" + LONG, b"1")), "has a name of 302 bytes, too long for this disk"),
    (rar(("d/" + LONG, b"1")), "has a name of 302 bytes, too long for this disk"),
    (tar(("a", b"1"), special("b", tarfile.LNKTYPE, "gone")), "member 'b' is a link to 'gone', which is not a file that comes before it"),
    (tar(special("b", tarfile.LNKTYPE, "b")), "member 'b' is a link to 'b'"),
    (tar(special("d", tarfile.DIRTYPE), special("b", tarfile.LNKTYPE, "d")), "member 'b' is a link to 'd'"),
])  # fmt: skip
def test_a_member_that_cannot_be_placed_is_refused(tmp_path, data, why):
    error = refused(tmp_path, data)
    assert isinstance(error, Refused) and why in str(error)


def test_a_link_to_a_file_before_it_is_unpacked(tmp_path):
    archive = tmp_path / "x.tar"
    archive.write_bytes(tar(("d/a", b"1"), special("d/b", tarfile.LNKTYPE, "d/a"), ("e", b"")))
    with unpacked(archive, tmp_path / "out") as files:
        assert files == 3
    assert (tmp_path / "out/d/b").read_bytes() == b"1"


@pytest.mark.parametrize("make", [tar, zipped])
def test_an_archive_that_grows_too_much_is_refused(tmp_path, monkeypatch, make):
    """A small archive of zeros. What any archive may have is set to 1 MB here."""
    monkeypatch.setattr(unpack, "SMALL", 10**6)
    if make is tar:
        data = tar(("small", b"1"), ("zeros", bytes(3 * 10**6)))
    else:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("small", b"1")
            file.writestr("zeros", bytes(3 * 10**6))
        data = out.getvalue()
    assert "member 'zeros' makes the unpacked files 0.003 GB, more than 20 times the archive" in str(refused(tmp_path, data))


@pytest.mark.parametrize("make", [tar, zipped, rar])
def test_an_archive_larger_than_the_free_space_stops_before_the_disk_is_full(tmp_path, monkeypatch, make):
    usage = unpack.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: usage)
    error = refused(tmp_path, make(("a", bytes(800)), ("b", bytes(800))))
    assert "the unpacked files need 1.6e-06 GB or more, but only 1e-06 GB are free" in str(error) and not isinstance(
        error, Refused
    )
