"""Archives are unpacked to complete folders. Damaged or malicious ones give one error sentence and leave no file."""

import base64
import gzip
import io
import json
import random
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from mscl.config.datasets import Dataset, Download
from mscl.datasets.acquire import sources
from mscl.datasets.acquire.download import download
from mscl.datasets.acquire.fetch import Patience
from mscl.datasets.acquire.unpack import Damaged, unpacked
from mscl.datasets.prepare import prepare
from mscl.stages.jobs import DatasetJob, DownloadJob
from tests.datasets.acquire.http_faults import serving


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, compressed: bool = True) -> bytes:
    """A tar file of (name, content) pairs and of ready-made members without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for made in members:
            member = made if isinstance(made, tarfile.TarInfo) else tarfile.TarInfo(made[0])
            data = b"" if isinstance(made, tarfile.TarInfo) else made[1]
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=0) if compressed else out.getvalue()


def special(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def zipped(*members: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, data)
    return out.getvalue()


def rar(*members: tuple[str, bytes], method: int = 0x30, mode: int = 0o100644, end: bool = True) -> bytes:
    """A RAR file (format 4), written here because no free program writes one. Method 0x30 is "stored"."""

    def block(kind: int, flags: int, fields: bytes, data: bytes = b"") -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(fields)) + fields
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data

    out = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for name, data in members:
        raw, unix = name.encode(), 3
        fields = struct.pack("<IIBIIBBHI", len(data), len(data), unix, zlib.crc32(data), 0x21 << 16, 20, method, len(raw), mode)
        out += block(0x74, 0x8000, fields + raw, data)
    return out + block(0x7B, 0x4000, b"") * end


def unpack(folder: Path, name: str, data: bytes) -> dict[str, bytes]:
    """Unpack an archive with these bytes to folder/out; returns {path: content} of the result."""
    (folder / name).write_bytes(data)
    with unpacked(folder / name, folder / "out") as count:
        assert not (folder / "out").exists()  # not before the body ends
    found = {str(p.relative_to(folder / "out")): p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()}
    assert count == len(found)
    return found


@pytest.mark.parametrize(("name", "data"), [
    ("a.tar.gz", tar(("./top/x/1.mp4", b"1"), ("./top/2 !&(.mp4", b"2"))),
    ("a.tar.gz", tar(("top/x/1.mp4", b"1"), ("top/2 !&(.mp4", b"2"), compressed=False)),  # as one archive of Kinetics was
    ("a.zip", zipped(("top/x/1.mp4", b"1"), ("top/2 !&(.mp4", b"2"))),
    ("a.rar", rar(("top/x/1.mp4", b"1"), ("top/2 !&(.mp4", b"2"))),
])  # fmt: skip
def test_every_archive_type_is_unpacked_without_its_top_folder(tmp_path, name, data):
    assert unpack(tmp_path, name, data) == {"x/1.mp4": b"1", "2 !&(.mp4": b"2"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "out"])


LINK, HARD, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
SYMLINK = 0o120777


@pytest.mark.parametrize(("name", "data", "why"), [
    ("up.tar.gz", tar(("1", b"1"), ("../../evil", b"x")), "would be written outside the folder"),
    ("absolute.tar.gz", tar(("1", b"1"), ("/tmp/mscl-evil", b"x")), "would be written outside the folder"),
    ("link.tar.gz", tar(special("out", LINK, "../.."), ("out/evil", b"x")), "is a symbolic link"),
    ("hard.tar.gz", tar(special("out", HARD, "../secret")), "would be written outside the folder"),
    ("device.tar.gz", tar(("1", b"1"), special("null", DEVICE)), "is a device"),
    ("up.zip", zipped(("1", b"1"), ("../evil", b"x")), "would be written outside the folder"),
    ("windows.zip", zipped(("..\\evil", b"x")), "would be written outside the folder"),
    ("link.zip", zipped(("out", b"../.."), mode=SYMLINK), "is a link"),
    ("up.rar", rar(("1", b"1"), ("../evil", b"x")), "would be written outside the folder"),
    ("absolute.rar", rar(("/tmp/mscl-evil", b"x")), "would be written outside the folder"),
    ("link.rar", rar(("out", b"../.."), mode=SYMLINK), "is a link"),
    ("up-compressed.rar", rar(("../evil", b"x"), method=0x33), "would be written outside the folder"),
])  # fmt: skip
def test_an_archive_with_an_unsafe_member_is_refused_completely(tmp_path, name, data, why):
    (tmp_path / "secret").write_text("mine")
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    with pytest.raises(Damaged, match=f"{name}: member .*{why}.*so the archive is not unpacked"):
        unpack(inner, name, data)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["a", "a/b", f"a/b/{name}", "secret"]
    assert not Path("/tmp/mscl-evil").exists()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


NOISE = random.Random(0).randbytes(3000)


@pytest.mark.parametrize(("name", "data"), [
    ("cut.tar.gz", tar(("1", NOISE))[:-20]),
    ("flipped.tar.gz", flipped(tar(("1", NOISE)), -6)),  # the checksum at the end of a gzip file
    ("cut.tar", tar(("1", NOISE), compressed=False)[:2000]),
    ("header.tar", flipped(tar(("1", NOISE), ("2", NOISE), ("3", NOISE), compressed=False), 3600)),
    ("cut.zip", zipped(("1", NOISE))[:-30]),
    ("flipped.zip", flipped(zipped(("1", NOISE)), 500)),
    ("cut.rar", rar(("1", NOISE), ("2", NOISE))[:5000]),
    ("cut-header.rar", rar(("1", NOISE), ("2", NOISE))[: len(rar(("1", NOISE), end=False)) + 10]),
    ("flipped.rar", flipped(rar(("1", NOISE)), 500)),
    ("page.tar.gz", b"<html>moved</html>" * 100),
    ("empty.rar", b""),
])  # fmt: skip
def test_a_damaged_archive_leaves_nothing(tmp_path, name, data):
    with pytest.raises(Damaged, match=rf"{name}: the archive is damaged or incomplete \(.+\); run the same command again"):
        unpack(tmp_path, name, data)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_rar_of_rars_becomes_one_folder_per_rar(tmp_path):
    walk = rar(("walk/a!&(b).avi", b"1"), ("walk/b.avi", b"2"))
    found = unpack(tmp_path, "org.rar", rar(("walk.rar", walk), ("run.rar", rar(("run/c.avi", b"3")))))
    assert found == {"walk/a!&(b).avi": b"1", "walk/b.avi": b"2", "run/c.avi": b"3"}
    with pytest.raises(Damaged, match="walk.rar: member '../evil'"):
        unpack(tmp_path, "evil.rar", rar(("walk.rar", rar(("../evil", b"x")))))


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH that contains only the given shell scripts; `$last` is the last argument of a script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(**scripts: str) -> None:
        for name, script in scripts.items():
            (folder / name).write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin; for last; do :; done; cd "$last" || exit 9\n{script}\n')
            (folder / name).chmod(0o755)

    return add


PACKED = rar(
    ("x/1.avi", b"11"), ("x/2 (a&b).avi", b"222"), method=0x33
)  # marked as compressed; the programs below write its content
RIGHT = "mkdir -p x; printf 11 > x/1.avi; printf 222 > 'x/2 (a&b).avi'"


def test_a_compressed_rar_needs_a_program_whose_output_is_checked(tmp_path, programs):
    with pytest.raises(
        ValueError, match="no program for compressed RAR files is installed; install one of unrar, 7zz.*the archive is kept"
    ) as e:
        unpack(tmp_path, "a.rar", PACKED)
    assert not isinstance(e.value, Damaged)
    programs(unrar="printf 1 > 1.avi; echo no such method >&2; exit 3", bsdtar=RIGHT)
    assert unpack(tmp_path, "a.rar", PACKED) == {
        "1.avi": b"11",
        "2 (a&b).avi": b"222",
    }  # the first program failed, the next succeeded
    shutil.rmtree(tmp_path / "out")
    programs(bsdtar="printf 11 > 1.avi")  # only one of two files, and yet exit code 0
    with pytest.raises(ValueError, match="unrar: no such method; bsdtar: exit code 0, 1 of 2 files"):
        unpack(tmp_path, "a.rar", PACKED)
    programs(unrar=f"{RIGHT}; ln -s / x/root")
    with pytest.raises(Damaged, match="member 'root' became a link"):
        unpack(tmp_path, "a.rar", PACKED)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.rar", "bin"]


# rar5-solid.rar of the tests of rarfile (ISC licence): two files that RAR itself compressed, of 2048 bytes each.
SOLID = "UmFyIRoHAQAJ78hvCwEFBwQGAQGAgIAA3vVwchwCAroABIAQtoMCoua3xYAbAQpzdGVzdDEudHh0waw3REQj+iP2l/1iU1G+TJGBQQKMwQN5XL9Ho6otoDaT3aBYAEACANRQBHb2xH8y6p8ypcTM14PfABDoLYkcAgKNAASAELaDAqLmt8XAGwEKc3Rlc3QyLnR4dEUVCmABAAgD37f79vwdd1ZRAwUEAA=="


@pytest.mark.skipif(not any(map(shutil.which, ("unrar", "bsdtar"))), reason="neither unrar nor bsdtar is installed")
def test_a_compressed_rar_with_an_installed_program(tmp_path):
    found = unpack(tmp_path, "solid.rar", base64.b64decode(SOLID))
    assert {name: len(data) for name, data in found.items()} == {"stest1.txt": 2048, "stest2.txt": 2048}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Use sources.csv without checksums, for a mirror of small archives; yields the server."""
    rows = sources.TABLE.read_text().splitlines()
    bare = [row.split(",")[:6] + ["", "", "x"] for row in rows[1:]]
    (tmp_path / "sources.csv").write_text("\n".join([rows[0], *(",".join(row) for row in bare)]))
    monkeypatch.setattr(sources, "TABLE", tmp_path / "sources.csv")
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as server:
        yield server


def fetched(server, tmp_path: Path, source: str) -> Dataset:
    job = DownloadJob(
        name=source, root=tmp_path / "root", splits=("train", "test"), download=Download(source=source, mirror=server.base)
    )
    download(job, tmp_path / "out.json", 2, Patience(tries=1, wait=0.01))
    return Dataset(format=source, root=tmp_path / "root", shards=1)


def test_ucf101_is_downloaded_to_the_folders_of_its_format(mirror, tmp_path):
    mirror.files["/UCF101.rar"] = rar(
        ("UCF-101/Archery/v_Archery_g01_c01.avi", b"1"), ("UCF-101/Biking/v_Biking_g01_c01.avi", b"2")
    )
    lists = {"classInd.txt": b"1 Archery\n", "trainlist01.txt": b"x 1\n", "testlist01.txt": b"y\n", "trainlist02.txt": b""}
    mirror.files["/UCF101TrainTestSplits-RecognitionTask.zip"] = zipped(*((f"ucfTrainTestlist/{n}", d) for n, d in lists.items()))
    dataset = fetched(mirror, tmp_path, "ucf101")
    assert (dataset.root / dataset.videos / "Archery/v_Archery_g01_c01.avi").read_bytes() == b"1"
    prepare(DatasetJob(name="ucf", dataset=dataset), tmp_path / "ucf.json")
    found = json.loads((tmp_path / "ucf.json").read_text())["annotations"]
    names = {key: Path(value["path"]).name for key, value in found.items()}
    assert names == {"labels": "classInd.txt", "train": "trainlist01.txt", "test": "testlist01.txt"}


def test_hmdb51_is_downloaded_to_the_folders_of_its_format(mirror, tmp_path):
    mirror.files["/hmdb51_org.rar"] = rar(("walk.rar", rar(("walk/a!.avi", b"1"))), ("run.rar", rar(("run/b.avi", b"2"))))
    names = [f"{c}_test_split{k}.txt" for c in ("walk", "run") for k in (1, 2, 3)]
    mirror.files["/test_train_splits.rar"] = rar(*((f"testTrainMulti_7030_splits/{n}", b"a!.avi 1 \n") for n in names))
    dataset = fetched(mirror, tmp_path, "hmdb51")
    assert sorted(str(p.relative_to(dataset.root)) for p in dataset.root.glob("videos/*/*")) == [
        "videos/run/b.avi",
        "videos/walk/a!.avi",
    ]
    prepare(DatasetJob(name="hmdb", dataset=dataset), tmp_path / "hmdb.json")
    found = json.loads((tmp_path / "hmdb.json").read_text())["annotations"]
    assert sorted(found["train"]["files"]) == ["run_test_split1.txt", "walk_test_split1.txt"]
    shutil.rmtree(dataset.root / "splits")
    with pytest.raises(
        ValueError, match=r"data set 'hmdb': .*/splits not found; .*`download: \{source: hmdb51\}` in datasets.hmdb"
    ):
        prepare(DatasetJob(name="hmdb", dataset=dataset), tmp_path / "hmdb.json")


VIDEOS = {str(k): random.Random(k).randbytes(20_000) for k in range(1, 6)}
JOINED = tar(*((f"20bn-something-something-v2/{k}.webm", data) for k, data in VIDEOS.items()))
PARTS = [JOINED[at : at + 40_000] for at in range(0, len(JOINED), 40_000)]
LABELS = [
    ("labels/labels.json", b"{}"),
    ("labels/train.json", b"[]"),
    ("labels/validation.json", b"[]"),
    ("labels/test.json", b"[]"),
]


@pytest.fixture
def ssv2(tmp_path):
    """A root folder of Something-Something v2 with the labels package, and no videos yet."""
    root = tmp_path / "ssv2"
    root.mkdir()
    (root / "20bn-something-something-download-package-labels.zip").write_bytes(zipped(*LABELS))
    names = {"labels": "labels.json", "train": "train.json", "validation": "validation.json"}
    return DatasetJob(name="ss", dataset=Dataset(format="ssv2", root=root, annotations=names, shards=1))


def part(folder: Path, number: int, data: bytes, suffix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"20bn-something-something-v2-{number:02d}{suffix}"
    path.write_bytes(data)
    return path


def webms(job: DatasetJob) -> dict[str, bytes]:
    return {p.stem: p.read_bytes() for p in (job.dataset.root / "videos").iterdir()}


def test_something_something_is_joined_from_its_parts(ssv2, tmp_path):
    assert len(PARTS) == 3
    root = ssv2.dataset.root
    part(root, 0, PARTS[0])
    part(root / "parts", 1, zipped(("20bn-something-something-v2-01", PARTS[1])), ".zip")
    part(root / "parts", 2, PARTS[2])
    (root / ".videos.unpacking").mkdir()
    (root / ".videos.unpacking/9.webm").write_bytes(b"of a killed run")
    prepare(ssv2, tmp_path / "ss.json")
    assert webms(ssv2) == VIDEOS
    assert sorted(json.loads((tmp_path / "ss.json").read_text())["annotations"]) == ["labels", "train", "validation"]
    assert not (root / "test.json").exists() and not (root / ".videos.unpacking").exists()
    (root / "videos/1.webm").write_bytes(b"mine")
    prepare(ssv2, tmp_path / "ss.json")
    assert webms(ssv2)["1"] == b"mine"  # existing files are kept


def test_a_zip_without_suffix_that_holds_several_parts(ssv2, tmp_path):
    """As in the two large downloads of the publisher."""
    names = [f"20bn-something-something-v2-{k:02d}" for k in range(3)]
    part(ssv2.dataset.root, 0, zipped((names[0], PARTS[0]), (names[1], PARTS[1])))
    part(ssv2.dataset.root, 1, zipped((names[2], PARTS[2])))
    prepare(ssv2, tmp_path / "ss.json")
    assert webms(ssv2) == VIDEOS


@pytest.mark.parametrize(("parts", "sentence"), [
    ({0: PARTS[0], 2: PARTS[2]}, "part 20bn-something-something-v2-01 is missing"),
    ({1: PARTS[1], 2: PARTS[2]}, "part 20bn-something-something-v2-00 is missing"),
    ({0: PARTS[0], 1: PARTS[1]}, "the parts end before the archive ends; .*-01 is incomplete, or .*-02 .*is missing"),
    ({0: PARTS[0], 1: PARTS[1], 2: flipped(PARTS[2], -6)}, "damaged near 20bn-something-something-v2-02 .*md5 sums"),
    ({0: tar(("20bn/1.webm", b"1"), ("../evil", b"x"))}, "member '../evil' would be written outside"),
    ({}, "no folder .*/videos; register for Something-Something v2 .*every part 20bn-something-something-v2-.. and the labels"),
])  # fmt: skip
def test_missing_or_damaged_parts_are_reported_by_number(ssv2, tmp_path, parts, sentence):
    for number, data in parts.items():
        part(ssv2.dataset.root, number, data)
    with pytest.raises(ValueError, match=sentence):
        prepare(ssv2, tmp_path / "ss.json")
    assert (
        not (ssv2.dataset.root / "videos").exists()
        and not list(ssv2.dataset.root.glob(".*"))
        and not (tmp_path / "ss.json").exists()
    )


def test_videos_under_the_publishers_folder_name_are_reported(ssv2, tmp_path):
    usual = ssv2.dataset.root / "20bn-something-something-v2"
    usual.mkdir()
    (usual / "1.webm").write_bytes(b"1")
    with pytest.raises(ValueError, match="set datasets.ss.videos to 20bn-something-something-v2, or rename the folder to videos"):
        prepare(ssv2, tmp_path / "ss.json")
    prepare(DatasetJob(name="ss", dataset=ssv2.dataset.model_copy(update={"videos": usual.name})), tmp_path / "ss.json")
    assert (tmp_path / "ss.json").exists()


def test_a_folder_of_classes_is_counted(tmp_path):
    dataset = Dataset(format="folder", root=tmp_path / "mine", annotations={"train": "train"}, shards=1)
    with pytest.raises(ValueError, match="data set 'm': .*/train not found; put one folder of videos per class there"):
        prepare(DatasetJob(name="m", dataset=dataset), tmp_path / "m.json")
    (tmp_path / "mine/train/run").mkdir(parents=True)
    (tmp_path / "mine/train/run/1.mp4").write_bytes(b"1")
    prepare(DatasetJob(name="m", dataset=dataset), tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["annotations"]["train"]["files"] == 1
    named = dataset.model_copy(update={"annotations": {"train": "train", "labels": "classes.txt"}})
    with pytest.raises(ValueError, match="mine/classes.txt not found"):
        prepare(DatasetJob(name="m", dataset=named), tmp_path / "m.json")
    (tmp_path / "mine/classes.txt").write_text("run\n")
    prepare(DatasetJob(name="m", dataset=named), tmp_path / "m.json")
    assert len(json.loads((tmp_path / "m.json").read_text())["annotations"]["labels"]["sha256"]) == 64
