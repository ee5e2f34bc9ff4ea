"""Whatever the server does, a download ends with the correct file, or with one error sentence and no file."""

import fcntl
import gzip
import hashlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from mscl.config.datasets import Dataset, Download
from mscl.datasets.acquire import fetch as http
from mscl.datasets.acquire.download import download
from mscl.datasets.acquire.fetch import Patience, fetch
from mscl.datasets.acquire.sources import base, table, wanted
from mscl.datasets.manifest import build_manifest
from mscl.stages.jobs import DownloadJob, dumps
from tests.conftest import tiny_config
from tests.datasets.acquire.http_faults import Fault, serving
from tests.workflow.conftest import rules_planned
from tests.workflow.test_pipeline import snakemake

BYTES = random.Random(0).randbytes(400_000)
SHA256 = hashlib.sha256(BYTES).hexdigest()
HASTY = Patience(tries=3, wait=0.01, longest=0.02, read=0.4)
KIB64 = 1 << 16


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as state:
        yield state


@pytest.fixture
def get(server, tmp_path):
    """Download /f from the server into a new folder."""
    server.files["/f"] = BYTES

    def call(patience: Patience = HASTY, **declared):
        return fetch(f"{server.base}/f", tmp_path / "f", patience=patience, **declared)

    return call


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_cut_connection_is_resumed_where_it_broke(server, get, tmp_path):
    server.faults["/f"] = [Fault(cut=2 * KIB64), Fault(cut=KIB64), Fault()]
    got = get(bytes=len(BYTES), sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == BYTES and got.bytes == 400_000 and got.sha256 == SHA256
    assert server.asked("/f") == [None, f"bytes={2 * KIB64}-", f"bytes={3 * KIB64}-"]
    assert got.etag and server.requests[1][2] == got.etag  # If-Range
    assert left(tmp_path) == ["f"]
    get(bytes=len(BYTES), sha256=SHA256)
    assert len(server.requests) == 3  # the file exists, so nothing is requested


def test_a_stalled_connection_is_retried(server, get, tmp_path):
    server.faults["/f"] = [Fault(stall=KIB64)]
    get()
    assert (tmp_path / "f").read_bytes() == BYTES and server.asked("/f") == [None, f"bytes={KIB64}-"]


class Clock(threading.Event):
    """Records the waiting times instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = []

    def wait(self, timeout=None) -> bool:
        self.waits.append(timeout)
        return False


def test_retry_after_is_respected(server, get):
    server.faults["/f"] = [Fault(status=503, headers={"Retry-After": "7"}), Fault(status=429), Fault(status=500)]
    clock = Clock()
    get(Patience(tries=3, wait=1, longest=9), stop=clock)
    told, second, third = clock.waits
    assert told == 7 and 1 <= second <= 2 and 2 <= third <= 4  # 1 s doubled once and twice, each shortened by at most half


def test_without_progress_it_gives_up_and_keeps_the_received_bytes(server, get, tmp_path):
    server.faults["/f"] = [Fault(cut=KIB64)] + [Fault(status=503)] * 4
    with pytest.raises(
        ValueError, match=r"answered 503 .*4 time\(s\) in a row.*run the same command again: the received bytes are kept"
    ):
        get()
    assert left(tmp_path) == ["f.part", "f.part.json"] and (tmp_path / "f.part").stat().st_size == KIB64
    get()
    assert (tmp_path / "f").read_bytes() == BYTES and server.asked("/f")[-1] == f"bytes={KIB64}-"


def test_a_download_resumes_after_a_server_restart(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    once = Patience(tries=0, wait=0.01)
    with serving() as server:
        server.files["/f"], server.faults["/f"] = BYTES, [Fault(cut=KIB64)]
        with pytest.raises(ValueError, match="broke|was cut"):
            fetch(f"{server.base}/f", tmp_path / "f", patience=once)
    with pytest.raises(ValueError, match=r"connection refused, 1 time\(s\) in a row; check the network"):
        fetch(f"{server.base}/f", tmp_path / "f", patience=once)
    with serving(int(server.base.rpartition(":")[2])) as again:
        again.files["/f"] = BYTES
        fetch(f"{server.base}/f", tmp_path / "f", patience=once)
    assert (tmp_path / "f").read_bytes() == BYTES and again.asked("/f") == [f"bytes={KIB64}-"]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_permanent_error_is_not_retried(server, get, tmp_path, status):
    server.faults["/f"] = [Fault(status=status)] * 2
    with pytest.raises(ValueError, match=rf"/f: the server answered {status} .*set download.mirror, or put the file by hand at"):
        get()
    assert len(server.requests) == 1 and left(tmp_path) == []


def test_a_web_page_instead_of_the_file_is_refused(server, get, tmp_path):
    server.faults["/f"] = [Fault(headers={"Content-Type": "text/html"})]
    with pytest.raises(ValueError, match="a web page instead of the file"):
        get()
    assert left(tmp_path) == []


def test_without_range_support_the_whole_file_is_downloaded(server, get, tmp_path):
    server.faults["/f"] = [Fault(cut=KIB64), Fault(no_range=True)]
    get()
    assert (tmp_path / "f").read_bytes() == BYTES and len(server.requests) == 2


def test_any_number_of_errors_is_tolerated_while_bytes_arrive(server, get, tmp_path):
    server.faults["/f"] = [Fault(cut=KIB64) for _ in range(6)]
    get(Patience(tries=1, wait=0.01))
    assert (tmp_path / "f").read_bytes() == BYTES and len(server.requests) == 7


@pytest.mark.parametrize("ignores_if_range", [False, True])  # a server that ignores If-Range sends a range of the new file
def test_a_file_that_changed_on_the_server_is_downloaded_again(server, get, tmp_path, ignores_if_range):
    new = BYTES[::-1]
    server.faults["/f"] = [Fault(cut=KIB64)] + [Fault(status=500)] * 4
    with pytest.raises(ValueError):
        get()
    server.files["/f"] = new
    server.faults["/f"] = [Fault(no_condition=ignores_if_range)]
    get()
    assert (tmp_path / "f").read_bytes() == new


def test_a_part_without_etag_or_date_is_not_resumed(server, get, tmp_path):
    server.validators = False
    server.faults["/f"] = [Fault(cut=KIB64)]
    get()
    assert server.asked("/f") == [None, None] and (tmp_path / "f").read_bytes() == BYTES


def test_a_part_longer_than_the_file_is_deleted(server, get, tmp_path):
    """The server responds with status 416."""
    (tmp_path / "f.part").write_bytes(BYTES + b"more")
    etag = f'"{hashlib.md5(BYTES).hexdigest()}"'
    (tmp_path / "f.part.json").write_text(json.dumps({"url": f"{server.base}/f", "etag": etag, "bytes": None}))
    get()
    assert (tmp_path / "f").read_bytes() == BYTES and server.asked("/f") == ["bytes=400004-", None]


def test_a_wrong_file_is_downloaded_once_more_and_then_refused(server, get, tmp_path):
    wrong = b"\0" + BYTES[1:]
    server.faults["/f"] = [Fault(body=wrong)]
    get(sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == BYTES and server.asked("/f") == [None, None]
    (tmp_path / "f").unlink()
    server.faults["/f"] = [Fault(body=wrong)] * 3
    with pytest.raises(ValueError, match=f"its sha256 is .*, expected {SHA256[:12]}…, twice"):
        get(sha256=SHA256)
    assert left(tmp_path) == [] and len(server.requests) == 4
    with pytest.raises(ValueError, match="the server announces 400000 bytes, expected 5, twice"):
        get(bytes=5)
    assert left(tmp_path) == []


def test_a_full_disk_is_reported_before_or_during_the_download(server, get, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    with monkeypatch.context() as patch:
        patch.setattr(http.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(ValueError, match="/f: 0.0004 GB are still to download, but only 0.0001 GB are free"):
            get()
    code = (
        "import resource, signal, sys; from pathlib import Path; from mscl.datasets.acquire.fetch import fetch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "fetch(sys.argv[1], Path(sys.argv[2]))"
    )
    run = subprocess.run([sys.executable, "-c", code, f"{server.base}/f", str(tmp_path / "f")], capture_output=True, text=True)
    assert "no space left in" in run.stderr and "the received bytes are kept" in run.stderr and not (tmp_path / "f").exists()
    get()
    assert (tmp_path / "f").read_bytes() == BYTES and server.asked("/f")[-1] == "bytes=100000-"


def tar_gz(**members: bytes) -> bytes:
    """A tar.gz of files in the top folder; "__" in a name stands for a dot."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


NEWS = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}


@pytest.fixture
def kinetics(server, tmp_path):
    """A small Kinetics-400 on a mirror: two parts of training videos, one part per other split, and one replacement video."""
    videos = {name: f"{name}_000001_000011__mp4" for names in NEWS.values() for name in names}
    for split, names in NEWS.items():
        rows = "".join(f"abseiling,{name},1,11,{split}\n" for name in names)
        server.files[f"/k/annotations/{split}.csv"] = f"label,youtube_id,time_start,time_end,split\n{rows}".encode()
    parts = {"train/part_0": "ab", "train/part_1": "c", "val/part_0": "d", "test/part_0": "e"}
    for part, names in parts.items():
        server.files[f"/k/{part}.tar.gz"] = tar_gz(**{videos[n]: n.encode() for n in names})
    server.files["/k/replacement_for_corrupted_k400.tgz"] = tar_gz(**{f"replacement_for_corrupted_k400/{videos['b']}": b"mended"})
    for split in NEWS:  # the lists contain the published URLs, not those of the mirror
        lines = [f"{base('kinetics400')}{part}.tar.gz\n" for part in parts if part.startswith(split)]
        server.files[f"/k/{split}/k400_{split}_path.txt"] = "".join(lines).encode()
    mirror = Download(source="kinetics400", mirror=f"{server.base}/k")
    return DownloadJob(name="k400", root=tmp_path / "root", splits=("train", "val"), download=mirror)


def test_kinetics_is_downloaded_completely_and_replacement_videos_are_used(server, kinetics, tmp_path):
    out, root = tmp_path / "k400.json", kinetics.root
    download(kinetics, out, 3, HASTY)
    assert {str(p.relative_to(root / "videos")): p.read_bytes() for p in root.glob("videos/*/*")} == {
        "00_replacement/b_000001_000011.mp4": b"mended",
        "train_part_0/a_000001_000011.mp4": b"a",
        "train_part_0/b_000001_000011.mp4": b"b",
        "train_part_1/c_000001_000011.mp4": b"c",
        "val_part_0/d_000001_000011.mp4": b"d",
    }
    assert not any("test" in path for path, _, _ in server.requests)  # the configuration does not name that split
    annotations = {"train": "annotations/train.csv", "val": "annotations/val.csv"}
    manifest = build_manifest("k", Dataset(format="kinetics", root=root, shards=1, annotations=annotations))
    assert (manifest.status == "ok").all()
    assert Path(manifest.set_index("clip_id").path["b_000001_000011"]).read_bytes() == b"mended"
    listed = {f["path"]: f for f in json.loads(out.read_text())["files"]}
    part = server.files["/k/train/part_1.tar.gz"]
    assert len(listed) == 8 and listed[".download/train_part_1.tar.gz"]["bytes"] == len(part)
    assert listed[".download/train_part_1.tar.gz"]["sha256"] == hashlib.sha256(part).hexdigest()
    assert listed[".download/train_part_1.tar.gz"]["url"] == f"{server.base}/k/train/part_1.tar.gz"
    assert not list((root / ".download").glob("*.tar.gz"))  # unpacked, so deleted
    first, asked = out.read_bytes(), len(server.requests)
    out.unlink()
    download(kinetics, out, 3, HASTY)
    assert out.read_bytes() == first and len(server.requests) == asked


def test_failed_archives_are_all_named_and_do_not_stop_the_others(server, kinetics, tmp_path):
    good = server.files["/k/train/part_1.tar.gz"]
    server.files["/k/train/part_1.tar.gz"] = good[:-9]  # incomplete on the server
    server.faults["/k/val/part_0.tar.gz"] = [Fault(status=404)]
    with pytest.raises(ValueError) as error:
        download(kinetics, tmp_path / "out.json", 1, HASTY)
    cut, gone = str(error.value).splitlines()
    assert (
        "train_part_1.tar.gz: the archive is damaged or incomplete" in cut
        and "val/part_0.tar.gz: the server answered 404" in gone
    )
    assert not (tmp_path / "out.json").exists()
    assert left(kinetics.root / "videos") == ["00_replacement", "train_part_0"]
    server.files["/k/train/part_1.tar.gz"] = good
    download(kinetics, tmp_path / "out.json", 1, HASTY)
    assert left(kinetics.root / "videos") == ["00_replacement", "train_part_0", "train_part_1", "val_part_0"]
    assert [len(server.asked(f"/k/{n}.tar.gz")) for n in ("train/part_0", "train/part_1", "val/part_0")] == [1, 2, 2]


def test_a_list_that_is_an_error_page_is_reported(server, kinetics, tmp_path):
    server.files["/k/val/k400_val_path.txt"] = b"Service moved, please see our blog\n"
    with pytest.raises(
        ValueError, match=r"k400_val_path.txt: line 1 \('Service moved.* is not the URL of an archive; delete the file"
    ):
        download(kinetics, tmp_path / "out.json", 1, HASTY)


def test_unknown_splits_and_foreign_folders_are_reported(server, kinetics, tmp_path):
    with pytest.raises(ValueError, match="kinetics400 has the splits test, train, validation, not 'dev'; rename the key"):
        wanted(kinetics.download, ("train", "dev"))
    mine = kinetics.root / "videos/val_part_0"
    mine.mkdir(parents=True)
    (mine / "mine.mp4").write_bytes(b"mine")
    download(kinetics, tmp_path / "out.json", 1, HASTY)
    assert left(mine) == ["mine.mp4"]
    asked = len(server.requests)
    (kinetics.root / "videos/x_000001_000011.mp4").write_bytes(b"of a Kinetics that is there already")
    with pytest.raises(ValueError, match="videos: holds 'x_000001_000011.mp4'.*already there, remove datasets.k400.download"):
        download(kinetics, tmp_path / "out.json", 1, HASTY)
    assert len(server.requests) == asked and server.asked("/k/val/part_0.tar.gz") == []


def test_two_downloads_cannot_use_the_same_folder(kinetics, tmp_path):
    home = kinetics.root / ".download"
    home.mkdir(parents=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="root: another download into this folder is running; wait for it"):
            download(kinetics, tmp_path / "out.json", 1, HASTY)
    download(kinetics, tmp_path / "out.json", 1, HASTY)


def test_a_killed_download_resumes(server, kinetics, tmp_path):
    name, part = "/k/train/part_1.tar.gz", kinetics.root / ".download/train_part_1.tar.gz.part"
    server.files[name] = tar_gz(c_000001_000011__mp4=random.Random(1).randbytes(2_000_000))
    server.faults[name] = [Fault(pace=0.1)]
    command = [sys.executable, "-m", "mscl", "download", "--job", dumps(kinetics), "--out", str(tmp_path / "out.json")]
    command += ["--workers", "1"]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (not part.exists() or part.stat().st_size < 200_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    arrived = part.stat().st_size
    assert 200_000 <= arrived < 2_000_000 and not (tmp_path / "out.json").exists()
    assert left(kinetics.root / "videos") == ["00_replacement", "train_part_0"]
    (kinetics.root / "videos/.val_part_0.unpacking").mkdir()  # as left by a kill during unpacking
    (kinetics.root / "videos/.val_part_0.unpacking/half.mp4").write_bytes(b"half")
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 0, second.stderr
    assert server.asked(name) == [None, f"bytes={arrived}-"] and len(server.asked("/k/train/part_0.tar.gz")) == 1
    assert left(kinetics.root / "videos") == ["00_replacement", "train_part_0", "train_part_1", "val_part_0"]
    assert left(kinetics.root / "videos/val_part_0") == ["d_000001_000011.mp4"]


def test_the_command_fails_with_one_sentence_and_exit_code_1(server, kinetics, tmp_path):
    server.faults["/k/train/part_0.tar.gz"] = [Fault(status=404)]
    command = [sys.executable, "-m", "mscl", "download", "--job", dumps(kinetics), "--out", str(tmp_path / "out.json")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert f"error: {server.base}/k/train/part_0.tar.gz: the server answered 404" in run.stderr


def test_the_workflow_reports_missing_manual_downloads_before_it_downloads(server, kinetics, tmp_path):
    config = tiny_config(tmp_path)
    config["datasets"]["kin"].pop("embedded")
    config["datasets"]["kin"] |= {"root": str(kinetics.root), "download": {"source": "kinetics400", "mirror": f"{server.base}/k"}}
    config["datasets"]["ss"].pop("embedded")
    ss, goal = Path(config["datasets"]["ss"]["root"]), str(tmp_path / "data/manifests/kin.parquet")
    plan = snakemake(tmp_path, "-n", config=config)  # the whole workflow, without any existing file
    assert {"download", "dataset", "manifest"} <= rules_planned(plan).keys()
    run = snakemake(tmp_path, goal, config=config)
    assert run.returncode and "register for Something-Something v2" in run.stderr + run.stdout and server.requests == []
    (ss / "videos").mkdir(parents=True)
    for name, text in {"labels": "{}", "train": "[]", "validation": "[]"}.items():
        (ss / f"{name}.json").write_text(text)
    run = snakemake(tmp_path, goal, config=config)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (pd.read_parquet(goal).status == "ok").sum() == 3
    assert rules_planned(snakemake(tmp_path, "-n", goal, config=config)) == {}
    config["compute"]["download_workers"] = 1
    assert rules_planned(snakemake(tmp_path, "-n", goal, config=config)) == {}  # this setting does not affect the result


def test_every_row_of_sources_csv_has_its_origin():
    rows = table()
    assert {row.source for row in rows} == {"kinetics400", "ucf101", "hmdb51"} and all(row.note for row in rows)
    assert all(row.url.startswith(base(row.source)) and row.url.startswith("http") for row in rows)
    assert all(len(row.sha256) == 64 for row in rows if row.sha256)
    assert len({(row.source, row.path) for row in rows}) == len(rows)
    assert all(bool(row.into) == (row.kind != "annotations") for row in rows)
