"""The command line: a user error is one sentence and exit code 1; a bug keeps its traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from mscl.config.schema import load_config
from mscl.stages import build, jobs
from tests.conftest import ROOT, tiny_config


def mscl(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mscl", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_check_prints_the_size_of_a_configuration():
    run = mscl("check", "config.yaml")
    assert run.returncode == 0 and "1 model(s) x 4 method(s) x 1 seed(s)" in run.stdout


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("check", "nowhere.yaml"), "error: nowhere.yaml: no such file\n"),
    (("manifest", "--job", "{}", "--out", "x"), "error: --job: name: missing; add it\n--job: dataset: missing; add it\n"),
    (("tables", "nowhere"), None),
])  # fmt: skip
def test_a_user_error_is_a_sentence_and_not_a_traceback(arguments, sentence):
    run = mscl(*arguments)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.startswith("error: ") if sentence is None else run.stderr == sentence


def test_a_bug_keeps_its_traceback(monkeypatch):
    from mscl.cli import main as cli

    monkeypatch.setattr(cli, "app", lambda: {}["a missing key"])
    with pytest.raises(KeyError):
        cli.main()


def test_weights_of_another_width_are_refused_before_training(prepared, tmp_path):
    from safetensors.torch import save_file

    from mscl.models.networks.r3d_18 import R3D18

    save_file(R3D18(width=8).state_dict(), tmp_path / "wide.safetensors")
    job = build.finetune_job(prepared, "ss", "r18", "moco", 0).model_copy(update={"weights": tmp_path / "wide.safetensors"})
    run = mscl("finetune", "--job", jobs.dumps(job), "--out", str(tmp_path / "out"))
    assert run.returncode == 1 and "wide.safetensors: not the weights of this backbone" in run.stderr
    assert "check models.*.backbone and width" in run.stderr and not (tmp_path / "out" / "run.json").exists()


def test_a_missing_gpu_is_reported_immediately(prepared, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    values = tiny_config(tmp_path) | {"compute": {"device": "cuda"}}
    job = jobs.dumps(build.pretrain_job(load_config(values), "r18", "moco", 0))
    run = mscl("pretrain", "--job", job, "--out", str(tmp_path / "out"))
    assert run.returncode == 1 and "torch finds no GPU; set auto or cpu" in run.stderr


def test_mscl_is_a_command_that_says_its_version():
    import mscl as package

    program = Path(sys.executable).parent / "mscl"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith(f"mscl {package.__version__} (")


def test_check_plan_job_and_verify_take_a_configuration_alike(tmp_path):
    paper = str(ROOT / "config" / "paper.yaml")
    run = ["job", "pretrain", "--model", "r18", "--method", "mscl", "--seed", "7"]
    (tmp_path / "run.json").write_text("{}")
    for command, expected in (
        (["check", paper, "seeds=[7]"], "x 1 seed(s)"),
        (["check", "--configfile", paper, "--config", "seeds=[7]"], "x 1 seed(s)"),
        (["plan", "--no-probe", paper, "seeds=[7]"], "r18/mscl"),
        (["plan", "--no-probe", "--config", paper], "r18/mscl"),
        ([*run, "--config", paper, "--config", "seeds=[7]"], "mscl/seed7"),
        (["verify", str(tmp_path), paper], f"{paper} belongs to other results"),
        (["verify", str(tmp_path), "--config", paper], f"{paper} belongs to other results"),
    ):
        said = mscl(*command)
        assert expected in said.stdout, (command, said)
    assert mscl("plan", paper, "other.yaml").stderr == "error: other.yaml: a second configuration file; give one at a time\n"
