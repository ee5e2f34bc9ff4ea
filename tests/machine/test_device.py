"""Several GPUs in one workstation: jobs that start together use different GPUs."""

import os
import subprocess
import sys

import pytest
import torch

from mscl.machine.device import half_precision_error
from mscl.machine.gpus import claim, visible
from mscl.training import hardware

HOLD = "import sys, pathlib; from mscl.machine.gpus import claim; print(*claim(['0', '1', '2'], int(sys.argv[2]), pathlib.Path(sys.argv[1])), flush=True); input()"


def start(folder, count):
    command = [sys.executable, "-c", HOLD, str(folder), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_each_job_claims_its_own_gpus_and_frees_them_when_it_ends(tmp_path):
    both = [start(tmp_path, 2), start(tmp_path, 1)]
    taken = sorted(n for job in both for n in job.stdout.readline().split())
    assert taken == ["0", "1", "2"]
    with pytest.raises(ValueError, match="all 3 GPUs are taken: other jobs use the rest; run snakemake with --resources gpu=3"):
        claim(["0", "1", "2"], 1, tmp_path)
    both[1].kill()  # a killed job frees its GPU, too
    both[1].wait()
    with pytest.raises(ValueError, match="1 of 3 GPUs are free, but 2 are needed"):
        claim(["0", "1", "2"], 2, tmp_path)
    third = start(tmp_path, 1)  # the refused claim holds no GPU
    assert third.stdout.readline() in ("0\n", "1\n", "2\n")
    for job in (both[0], third):
        job.communicate("\n")


def test_the_gpus_of_a_job_with_several_processes_are_not_given_to_other_jobs(tmp_path):
    """As with `compute.processes`: the locks survive exec, and the processes of torchrun see only the chosen GPUs."""
    code = "import os, sys; from mscl.machine.gpus import claim_for_processes; claim_for_processes(2); "
    code += "os.execv(sys.executable, [sys.executable, '-c', 'import os; print(os.environ[\"CUDA_VISIBLE_DEVICES\"], flush=True); input()'])"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "4,5,GPU-6,7", "TMPDIR": str(tmp_path)}
    environment.pop("SLURM_JOB_ID", None)
    launch = lambda: subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    first, second = launch(), launch()
    assert sorted(job.stdout.readline() for job in (first, second)) == ["4,5\n", "GPU-6,7\n"]
    _, errors = launch().communicate(timeout=60)
    assert "all 4 GPUs are taken" in errors
    for job in (first, second):
        job.communicate("\n")


@pytest.mark.parametrize(
    ("given", "names"),
    [("0,1", ["0", "1"]), ("", []), ("-1", []), ("2, GPU-ab,-1,3", ["2", "GPU-ab"]), ("NoDevFiles", []), (None, ["0", "1"])],
)
def test_usable_gpus_are_found_without_torch(given, names, monkeypatch, tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible(tmp_path) == names


def test_the_half_precision_check_passes_here_and_detects_a_wrong_convolution(monkeypatch):
    cpu, right = torch.device("cpu"), torch.nn.functional.conv3d
    assert 0 < half_precision_error(cpu) < hardware.CANARY
    wrong = lambda x, w, padding: right(x, w, padding=padding) * (1.08 if x.dtype == torch.bfloat16 else 1)
    monkeypatch.setattr(torch.nn.functional, "conv3d", wrong)
    with pytest.warns(UserWarning, match="bfloat16 Conv3d is off by [5-9]"):
        hardware._warn_of_half_precision(cpu)
