"""The acceptance run of a GPU starts in an image that has only what training needs, and its rates can be planned with."""

import os
import subprocess
import sys
from pathlib import Path

from mscl.config.schema import load_config
from mscl.planning.rates import load_rates

ROOT = Path(__file__).parents[1]
ABSENT = "snakemake dvc decord captum ffmpeg imageio_ffmpeg sklearn matplotlib jinja2 rich requests rarfile tensorboard".split()


def test_it_runs_without_the_packages_of_the_pipeline(tmp_path):
    """On a CPU at tiny sizes. What is absent is absent for its loader processes, too, since they are forked."""
    start = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({ABSENT})); runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    command = [sys.executable, "-c", start, "--minutes", "0.05", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (report,), (rates,) = tmp_path.glob("*-gpu-on-cpu.md"), tmp_path.glob("*-gpu-on-cpu.json")
    text = report.read_text()
    assert "failed" not in text and "no measurement of a GPU" in text
    assert "| stopped and resumed | 0 | 0 | True |" in text and "finetuning from MSCL weights: test top-1" in text
    found = load_rates(rates, load_config(ROOT / "config/paper.yaml"))
    assert found.device == "cpu" and found.steps["r18/moco"].value > 0


def test_the_rates_of_the_filed_report_fit_the_papers_plan():
    assert load_rates(ROOT / "benchmarks/2026-11-27-gpu.json", load_config(ROOT / "config/paper.yaml")).device == "gpu"
