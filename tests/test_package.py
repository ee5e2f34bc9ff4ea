"""What `python -m build` makes is whole: installed with its first dependencies alone, far from the checkout, it checks, loads and computes features."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from packaging.requirements import Requirement

import mscl
from mscl.models.networks.r3d_18 import R3D18
from tests.conftest import ROOT, tiny_config

SOURCES = ("mscl", "pyproject.toml", "README.md", "LICENSE")


def run(*command, cwd: Path, **environment) -> str:
    away = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")} | environment
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=away, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the source archive as for a release."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist")
    skip = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        where = ROOT / name
        shutil.copytree(where, copy / name, symlinks=True, ignore=skip) if where.is_dir() else shutil.copy(where, copy)
    (copy / "config").mkdir()
    shutil.copy(ROOT / "config/paper.yaml", copy / "config")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy, cwd=out)
    return next(out.glob("*.whl"))


def needed(wheel: Path) -> set[str]:
    """The packages that pip installs beside the wheel: its requirements without extras, and theirs."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    todo, found = re.findall(r"^Requires-Dist: (.*)$", text, re.M), set()
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(requirement.name)
        try:
            todo += metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:  # such as the CUDA libraries, beside a CPU build of torch
            found.remove(requirement.name)
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel and what it needs, which is linked here from that of the tests, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in needed(wheel):
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(found.locate_file(top))
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return python


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.read("mscl/reporting/paper.yaml") == (ROOT / "config/paper.yaml").read_bytes()
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mscl").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert names == ours and {f"mscl/reporting/templates/{n}" for n in ("report.html.j2", "model_card.md.j2")} < names


def test_it_says_its_version_and_is_not_the_checkout(python, tmp_path):
    said = run(python, "-c", "import mscl, sys; print(mscl.__file__); print(sys.path)", cwd=tmp_path)
    assert str(ROOT) not in said and said.startswith(str(python.parents[1]))
    assert run(python.with_name("mscl"), "--version", cwd=tmp_path).startswith(f"mscl {mscl.__version__} (no commit: ")
    for absent in ("snakemake", "matplotlib", "sklearn", "pytest"):
        with pytest.raises(AssertionError, match="ModuleNotFoundError"):
            run(python, "-c", f"import {absent}", cwd=tmp_path)


def test_check_needs_no_checkout(python, tmp_path):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny_config(Path("."))))
    assert "my.yaml: tiny (demo): 1 model(s) x 4 method(s)" in run(python.with_name("mscl"), "check", "my.yaml", cwd=tmp_path)
    paper = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(paper | {"augment": paper.get("augment", {}) | {"gray_p": 0.5}}))
    said = run(python.with_name("mscl"), "check", "paper.yaml", cwd=tmp_path)
    assert "1 setting(s) differ from config/paper.yaml, and the report will say so: augment.gray_p: 0.5" in said


def test_weights_are_loaded_and_features_of_a_video_computed(python, tmp_path):
    torch.manual_seed(0)
    torch.save(R3D18(4).state_dict(), tmp_path / "w.pth")
    code = "import mscl, torch; print(mscl.load_backbone('w.pth')(torch.zeros(1, 3, 8, 32, 32)).shape)"
    assert "torch.Size([1, 32])" in run(python, "-c", code, cwd=tmp_path)
    options = ["--frames", "4", "--size", "32", "--device", "cpu", "--workers", "0"]
    video = ROOT / "tests/video/cases/plain.mp4"
    without_ffmpeg = {"PATH": str(python.parent)}  # that of imageio-ffmpeg is used
    run(
        python.with_name("mscl"),
        "features",
        "--weights",
        "w.pth",
        "--out",
        "x.parquet",
        *options,
        video,
        cwd=tmp_path,
        **without_ffmpeg,
    )
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert table.status.tolist() == ["ok"] and len(table.features[0]) == 32


def test_the_version_has_one_value():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation["version"] == newest[1] == mscl.__version__
