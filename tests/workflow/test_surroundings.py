"""The same commands in the surroundings that people have: names of the checkout, environments, a user without a name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, tiny_config
from tests.workflow.conftest import copy_code, run_snakemake

LONG = "a-temporary-folder-with-a-very-long-name/" * 3

SURROUNDINGS = {
    "a checkout with braces, blanks, a quote, an umlaut and #": ("a{b}c 'ü #1", {}),
    "the C locale and a long TMPDIR": ("plain", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TMPDIR": LONG}),
    "colours forced and other packages": ("plain", {"AV_LOG_FORCE_COLOR": "1", "FORCE_COLOR": "1", "PYTHONPATH": "others"}),
}


@pytest.mark.parametrize("case", SURROUNDINGS)
def test_videos_become_frames(case, tmp_path):
    name, environment = SURROUNDINGS[case]
    folder = tmp_path / name
    folder.mkdir()
    copy_code(folder)
    (tmp_path / "others" / "mscl").mkdir(parents=True)
    (tmp_path / "others" / "mscl" / "__init__.py").write_text("raise ImportError('another package of this name')")
    environment = {k: str(tmp_path / v) if k in ("TMPDIR", "PYTHONPATH") else v for k, v in environment.items()}
    if "TMPDIR" in environment:
        os.makedirs(environment["TMPDIR"])
    run = run_snakemake(folder, "extracted", config=tiny_config(Path(".")), env=os.environ | environment)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    rows = pd.concat(map(pd.read_parquet, (folder / "data" / "frames").rglob("*.parquet")))
    assert len(rows) == 60 and set(rows.status) == {"ok"}, rows.reason.unique()


def test_the_package_is_that_of_the_snakefile_in_a_folder_that_holds_another(tmp_path):
    (tmp_path / "mscl").mkdir()
    (tmp_path / "mscl/__init__.py").write_text("raise ImportError('another package of this name')")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny_config(Path("."))))
    snakemake = Path(sys.executable).with_name("snakemake")  # not `python -m`, which looks into the working folder first
    command = [snakemake, "-s", ROOT / "Snakefile", "--cores", "2", "listed", "--configfile", "my.yaml"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


def test_no_home_a_tight_umask_files_from_the_future_and_data_on_another_disk(tmp_path):
    copy_code(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    away = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    options = {"config": tiny_config(Path(".")), "env": os.environ | away, "umask": 0o077}
    for target in ("data/datasets/ss.json", "extracted"):
        run = run_snakemake(tmp_path, target, **options)
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        for n, path in enumerate((tmp_path / "disk" / "videos").rglob("*.webm")):
            os.utime(path, (0, 0) if n % 2 else (4e9, 4e9))  # 1970 and 2096
    rows = pd.concat(map(pd.read_parquet, (tmp_path / "disk" / "frames").rglob("*.parquet")))
    assert len(rows) == 60 and set(rows.status) == {"ok"}, rows.reason.unique()
    assert "Nothing to be done" in run_snakemake(tmp_path, "extracted", **options).stderr
    for path in ("disk/manifests/ss.parquet", "disk/frames/ss/0000.tar"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o600  # as the user's umask says


def test_dvc_is_told_of_a_linked_folder_before_anything_runs(tmp_path):
    copy_code(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    run = run_snakemake(tmp_path, "listed", config=tiny_config(Path(".")), env=os.environ | {"DVC_STAGE": "data"})
    assert run.returncode and "data is a link, which DVC takes for no output; nothing was run" in run.stderr, run.stderr
    assert not list((tmp_path / "disk").iterdir())


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root may run a command as another user")
def test_a_user_needs_no_name(tmp_path):
    """A container may run under a number that /etc/passwd does not have."""
    copy_code(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny_config(Path("."))))
    caps = "+dac_override,+dac_read_search"  # folders of this test and of Python may be root's
    user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--inh-caps", caps, "--ambient-caps", caps]
    command = [*user, sys.executable, "-m", "snakemake", "--cores", "1", "data/datasets/ss.json", "--configfile", "my.yaml"]
    environment = {k: v for k, v in os.environ.items() if k not in ("USER", "LOGNAME", "LNAME", "USERNAME")} | {
        "HOME": str(tmp_path)
    }
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    if "setpriv: " in run.stderr:
        pytest.skip(run.stderr.strip())
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


CONDA = """#!/bin/sh
case "$1" in
  info) echo '{"conda_prefix": "/", "root_prefix": "/", "platform": "linux-64", "conda_version": "24.7.1"}' ;;
  config) echo '{"get": {"channel_priority": "strict"}}' ;;
  *) echo "conda 24.7.1" ;;
esac
"""


def test_conda_finds_the_environment_of_a_checkout_with_braces(tmp_path):
    """A dry run, with a program in the place of conda that says what Snakemake asks first."""
    folder = tmp_path / "a{b}c"
    folder.mkdir()
    copy_code(folder)
    (tmp_path / "conda").write_text(CONDA)
    (tmp_path / "conda").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = run_snakemake(folder, "listed", "-n", "--sdm", "conda", config=tiny_config(Path(".")), env=environment)
    assert run.returncode == 0 and "manifest" in run.stdout + run.stderr, run.stdout + run.stderr
