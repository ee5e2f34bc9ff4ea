"""Several GPUs in one workstation: jobs that start together never meet on one."""

import subprocess
import sys

import pytest
import torch

from mscl.device import claim, half_precision_error
from mscl.training import engine

HOLD = (
    "import sys, pathlib; from mscl.device import claim; print(claim(['0', '1'], pathlib.Path(sys.argv[1])), flush=True); input()"
)


def test_each_job_takes_a_gpu_of_its_own_and_frees_it_by_ending(tmp_path):
    start = lambda: subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    jobs = [start(), start()]
    taken = sorted(int(job.stdout.readline()) for job in jobs)
    assert taken == [0, 1]
    with pytest.raises(ValueError, match="all 2 GPUs are taken by other jobs; run snakemake with --resources gpu=2"):
        claim(["0", "1"], tmp_path)
    for job in jobs:
        job.kill()  # a killed job frees its GPU, too
        job.wait()
    third = start()
    assert third.stdout.readline() == "0\n"
    third.communicate("\n")


def test_the_half_precision_canary_sings_here_and_dies_of_a_wrong_convolution(monkeypatch):
    cpu, right = torch.device("cpu"), torch.nn.functional.conv3d
    assert 0 < half_precision_error(cpu) < engine.CANARY
    wrong = lambda x, w, padding: right(x, w, padding=padding) * (1.08 if x.dtype == torch.bfloat16 else 1)
    monkeypatch.setattr(torch.nn.functional, "conv3d", wrong)
    with pytest.warns(UserWarning, match="bfloat16 Conv3d is off by [5-9]"):
        engine._warn_of_half_precision(cpu)
