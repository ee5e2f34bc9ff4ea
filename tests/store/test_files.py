"""Stores of more shards than a process may have open files."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mscl.store.files import OpenFiles
from tests.store.shards import write_frames

READ_ALL = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from mscl.store.shards import Shards

stores = [Shards(sorted(Path(folder).glob("*.parquet"))) for folder in sys.argv[1:]]

def read_all(*_):
    return [store.read(row, 0) for store in stores for row in range(len(store))]

want = read_all()
with ThreadPoolExecutor(4) as pool:
    assert all(found == want for found in pool.map(read_all, range(4)))
before = len(os.listdir("/proc/self/fd"))
for _ in range(3):  # loader processes
    if os.fork() == 0:
        good = len(os.listdir("/proc/self/fd")) < 16 and read_all() == want
        os._exit(0 if good else 1)
    assert os.wait()[1] == 0, "a forked process"
print(len(want), before)
"""


def write(folder, count):
    for n in range(count):
        write_frames(folder / f"{n:04d}.parquet", {f"clip{n}": [b"\xff\xd8" + n.to_bytes(4, "big")]})
    return str(folder)


def read_with(limit, *folders):
    command = f'ulimit -n {limit}; exec "$0" -c "$1" "${{@:2}}"'
    run = subprocess.run(["bash", "-c", command, sys.executable, READ_ALL, *folders], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [int(word) for word in run.stdout.split()]


@pytest.fixture
def fast(monkeypatch):
    """Many small shards: no waiting for the disk."""
    monkeypatch.setattr("mscl.store.writer.os.fsync", lambda _: None)


def test_200_shards_are_read_with_64_open_files_in_threads_and_forks(tmp_path, fast):
    clips, opened = read_with(64, write(tmp_path / "set", 200))
    assert clips == 200 and opened < 64


def test_frames_and_flow_of_512_shards_are_read_with_the_usual_limit(tmp_path, fast):
    folders = write(tmp_path / "frames" / "set", 512), write(tmp_path / "flow" / "set", 512)
    clips, opened = read_with(1024, *folders)
    assert clips == 1024 and opened < 512


def test_a_soft_limit_is_raised(tmp_path):
    code = (
        "from mscl.store.files import allowed; import resource; print(allowed(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    run = subprocess.run(
        ["bash", "-c", 'ulimit -Sn 64; ulimit -Hn 512; exec "$0" -c "$1"', sys.executable, code], capture_output=True, text=True
    )
    assert run.stdout.split() == ["128", "512"], run.stderr


def test_the_least_recently_read_file_is_closed_and_never_while_it_is_read(tmp_path):
    paths = [tmp_path / str(n) for n in range(8)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]) * 100)
    files = OpenFiles(limit=2)
    with files._borrowed(0, paths[0]) as descriptor:
        for n in range(1, 8):
            assert files.read(n, paths[n], 5, 50) == bytes([n]) * 5
        assert len(files) == 2 and os.pread(descriptor, 1, 0) == b"\0"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pread(descriptor, 1, 0)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: files.read(n % 8, paths[n % 8], 1, 0)[0], range(4000)))
    assert found == [n % 8 for n in range(4000)]
    files.close(list(range(8)))
    assert len(files) == 0


def test_too_many_open_files_elsewhere_are_a_sentence(tmp_path):
    index = write_frames(tmp_path / "0.parquet", {"a": [b"\xff\xd8"]})
    code = f"""
import os
from mscl.store.shards import Shards
shards = Shards([{str(index)!r}])
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    shards.read(0, 0)
except ValueError as error:
    os.write(1, str(error).encode())
"""
    run = subprocess.run(["bash", "-c", 'ulimit -n 64; exec "$0" -c "$1"', sys.executable, code], capture_output=True, text=True)
    assert run.stdout.endswith("0.tar: cannot be read (too many open files); check the disk, its permissions and ulimit -n"), (
        run.stderr
    )
