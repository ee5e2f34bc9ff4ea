"""Loader processes: an error keeps its sentence, too little memory is told as such, and signals are the first process's to answer."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mscl.machine.errors import sentence
from mscl.stages import build, jobs
from mscl.store.shards import Shards
from mscl.training.loader import loading


class Failing(torch.utils.data.Dataset):
    """Sample 3 fails in the given way."""

    def __init__(self, way):
        self.way = way

    def __getitem__(self, i):
        if i == 3:
            self.way()
        return {"x": torch.full((2,), i)}


def tear():
    Shards([])


def raising(kind, text):
    def way():
        raise kind(text)

    return way


def die(number):
    return lambda: os.kill(os.getpid(), number)


def read(way, workers):
    with loading(Failing(way), [[0, 1], [2, 3]], workers) as loader:
        return [batch["x"].shape for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_keeps_its_own_sentence(workers):
    with pytest.raises(ValueError, match="no shard index") as error:
        read(tear, workers)
    assert sentence(error.value) == str(error.value) == "no shard index given: extract the frames first"  # and no traceback
    assert not workers or "in tear" in error.value.__notes__[0]  # which MSCL_TRACE shows


def test_an_error_that_is_none_of_ours_keeps_its_traceback():
    with pytest.raises(ValueError, match="Original Traceback") as error:
        read(raising(ValueError, "matmul"), 1)
    assert sentence(error.value) is None


@pytest.mark.parametrize(("way", "says"), [
    (raising(RuntimeError, "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"), "more shared memory"),
    (raising(RuntimeError, "unable to open shared memory object </torch_1> in read-write mode"), "more shared memory"),
    (die(signal.SIGBUS), "more shared memory"),
    (die(signal.SIGKILL), "the system killed one of 1 loader processes"),
])  # fmt: skip
def test_too_little_memory_is_a_sentence(way, says):
    with pytest.raises(ValueError, match=f"^compute.workers: .*{says}.*lower compute.workers") as error:
        read(way, 1)
    assert sentence(error.value) == str(error.value) and "\n" not in str(error.value)
    assert says != "more shared memory" or " MiB)" in str(error.value)


def test_a_small_dev_shm_is_named():
    """The real thing: 1 MiB of /dev/shm of its own, in a mount namespace."""
    code = (
        "import torch; from mscl.training.loader import loading\n"
        "class Big(torch.utils.data.Dataset):\n"
        "    def __getitem__(self, i): return {'x': torch.zeros(4_000_000)}\n"
        "with loading(Big(), [[0], [1]], 2) as loader: list(loader)\n"
    )
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" -c "$1"'
    run = subprocess.run(["unshare", "-m", "sh", "-c", mount, sys.executable, code], capture_output=True, text=True, timeout=120)
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip("mounting is not allowed here")
    assert "ValueError: compute.workers: 2 loader processes need more shared memory than /dev/shm has (1 MiB)" in run.stderr


def loaders(pid: int) -> list[str]:
    """Loader processes of a process; those of the last epoch may end meanwhile."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            found += [child] if "pt_data_worker" in Path(f"/proc/{child}/comm").read_text() else []
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_saves_a_checkpoint(number, prepared, tmp_path):
    """A cluster and a terminal tell the loader processes, too."""
    job = build.pretrain_job(prepared, "r18", "moco", 0)
    job = job.model_copy(update={"optim": job.optim.model_copy(update={"epochs": 500, "batch": 2})})
    command = [sys.executable, "-m", "mscl", "pretrain", "--job", jobs.dumps(job), "--out", str(tmp_path), "--workers", "2"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    while not (line := process.stdout.readline()).startswith("epoch 1") and line:
        pass
    while process.poll() is None and not loaders(process.pid):
        time.sleep(0.01)
    time.sleep(0.2)  # they are reading, and the training waits for them or computes
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number and "Traceback" not in errors, errors[-3000:]
    assert ("press Ctrl-C again" in errors) is (number == signal.SIGINT)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["at"]["step"] >= 3


def test_loader_processes_work_where_the_temporary_folder_has_a_long_name(tmp_path):
    """The path of a socket may have 107 bytes. Without a shorter folder the first process waits for ever."""
    folder = tmp_path / ("long-" * 24)
    folder.mkdir()
    code = (
        "import torch\nfrom mscl.training.loader import loading\n"
        "with loading([{'x': torch.full((2,), i)} for i in range(4)], [[0, 1], [2, 3]], workers=2) as loader:\n"
        "    print(sum(int(batch['x'].sum()) for batch in loader))\n"
    )
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "12\n", done.stderr
