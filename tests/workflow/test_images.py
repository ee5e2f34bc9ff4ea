"""The images: nothing is sent or copied but what they need, every package is pinned, and their commands run.

There is no Docker here. A stage of the Dockerfile is followed instead: its files are copied, its commands run in a virtual environment that has the packages of
this one, with pip that may install nothing new, and with stubs for apt-get and rm; then the pipeline runs there as a user without a name.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, tiny_config

sys.path.insert(0, str(ROOT / "workflow" / "envs"))
import write as envs  # noqa: E402

STUB = '#!/bin/sh\necho "$(basename "$0") $*" >> "$ASKED"\n'  # in the place of what would change this machine


def steps() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def copied() -> list[str]:
    """What the Dockerfile copies from the checkout."""
    return [path for instruction, rest in steps() if instruction == "COPY" for path in rest.split()[:-1]]


def names(lock: str) -> dict[str, str]:
    """Canonical name -> line of each package of a lock."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    return {envs.canonical(line.split("==")[0]): line for line in lines}


def test_the_locks_agree_and_pin_every_package():
    plain, cuda = names("requirements.lock"), names("requirements-cuda.lock")
    assert not plain.keys() & cuda.keys(), "a package is pinned twice"
    made_for = re.search(r"--cuda for (.*)", (ROOT / "requirements-cuda.lock").read_text())[1]
    assert made_for == envs.built() == f"{plain['torch']} {plain['torchvision']}", (
        "torch has changed: run python workflow/envs/write.py --cuda"
    )
    assert {"triton", "nvidia-cublas", "nvidia-cudnn-cu13"} <= cuda.keys()


def test_both_recipes_start_from_one_image_and_run_one_script():
    definition = (ROOT / "workflow/envs/mscl.def").read_text()
    base = re.search(r"^From: (\S+)", definition, re.M)[1]
    assert dict(steps())["FROM"] == base and re.fullmatch(r"python:3\.11-slim-\w+", base)
    sent = re.findall(r"^    (\S+) /opt/mscl-packages/(\S+)$", definition, re.M)
    assert [path for path, _ in sent] == steps()[3][1].split()[:-1] and all(Path(path).name == name for path, name in sent)
    assert "sh /opt/mscl-packages/install.sh {{ kind }}" in definition and "kind=cpu" in definition
    text = definition + (ROOT / "Dockerfile").read_text()
    assert not re.findall(
        r"(?:apt-get|pip) install(?! --no-cache-dir --no-deps --no-build-isolation --editable /opt/mscl\b)", text
    )


def test_the_context_is_what_is_copied_and_holds_all_code():
    """.dockerignore refuses everything, and then allows what the Dockerfile copies."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*" and set(lines) - {f"!{path}" for path in allowed} == {"*", "**/__pycache__"}
    assert allowed == {path.split("/")[0] for path in copied()} and all((ROOT / path).exists() for path in copied())


def test_it_runs_without_root():
    kinds = [instruction for instruction, _ in steps()]
    user = dict(steps())["USER"]
    assert user.split(":")[0].isdecimal() and int(user.split(":")[0]) > 0
    assert kinds.index("USER") > max(n for n, kind in enumerate(kinds) if kind in ("RUN", "COPY"))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """(its root folder, its environment variables, what the package manager was asked for) after every step of the Dockerfile."""
    root = tmp_path_factory.mktemp("image")
    venv.create(root / "venv", symlinks=True)
    site = next((root / "venv").glob("lib/python*/site-packages"))
    found = {Path(p) for p in sys.path if p.endswith("site-packages")}
    (site / "packages.pth").write_text(
        "".join(f"{path}\n" for path in found)
    )  # without following the .pth files there: no checkout
    (root / "bin").mkdir()
    for name in ("apt-get", "rm"):
        (root / "bin" / name).write_text(STUB)
        (root / "bin" / name).chmod(0o755)
    os.symlink(next(path / "pip" for path in found if (path / "pip").is_dir()), site / "pip")
    variables = {"PATH": f"{root}/bin:{root}/venv/bin:/usr/bin:/bin", "ASKED": str(root / "asked"), "PIP_NO_INDEX": "1"}
    for instruction, rest in steps():
        rest = rest.replace("/opt/", f"{root}/opt/")
        if instruction == "COPY":
            *paths, target = rest.split()
            Path(target).mkdir(parents=True, exist_ok=True)
            for path in paths:
                if (ROOT / path).is_dir():
                    shutil.copytree(
                        ROOT / path, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copy(ROOT / path, target)
        elif instruction in ("ARG", "ENV"):
            variables |= dict(part.split("=", 1) for part in shlex.split(rest) if "=" in part)
        elif instruction == "RUN":
            done = subprocess.run(["sh", "-c", rest], cwd=root, env=variables, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stdout + done.stderr
    return root, variables, (root / "asked").read_text().splitlines()


def as_somebody(*command, cwd: Path, env: dict) -> subprocess.CompletedProcess:
    """Run a command as a user whom the system does not know, if that is allowed here."""
    if os.geteuid() == 0 and shutil.which("setpriv"):
        caps = "+dac_override,+dac_read_search"  # folders of this test and of Python may be root's
        user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--inh-caps", caps, "--ambient-caps", caps]
        if subprocess.run([*user, "true"], capture_output=True, check=False).returncode == 0:
            command = (*user, *command)
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_the_commands_run_and_the_pipeline_finds_the_package_of_the_image(image, tmp_path):
    root, variables, asked = image
    assert asked[:2] == ["apt-get update", "apt-get install --yes --no-install-recommends ffmpeg git unar"]
    assert all(line.startswith("rm -rf /var/lib/apt/lists/") for line in asked[2:])
    variables = variables | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = as_somebody("mscl", "--version", cwd=tmp_path, env=variables)
    assert said.returncode == 0 and said.stdout.startswith("mscl 0."), said.stderr
    where = as_somebody("python", "-c", "import mscl; print(mscl.__file__)", cwd=tmp_path, env=variables)
    assert where.stdout.startswith(f"{root}/opt/mscl/mscl/"), where.stderr
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny_config(Path("."))))
    command = f"python -m snakemake --snakefile {root}/opt/mscl/Snakefile --cores 1 data/datasets/ss.json --configfile my.yaml"
    run = as_somebody(*command.split(), cwd=tmp_path, env=variables)
    assert run.returncode == 0 and (tmp_path / "data/datasets/ss.json").is_file(), run.stdout + run.stderr


@pytest.mark.parametrize(
    ("kind", "says"),
    [("gpu", "the kind of image is cpu or cuda, not 'gpu'"), ("cuda", "No matching distribution found for cuda-bindings==")],
)
def test_the_script_takes_what_its_kind_needs(image, kind, says):
    """CUDA's libraries are not in this environment, and pip may not fetch them: it is asked for the first of them, and fails."""
    root, variables, _ = image
    if (
        kind == "cuda"
        and subprocess.run([sys.executable, "-c", "import triton"], capture_output=True, check=False).returncode == 0
    ):
        pytest.skip("this environment has the libraries")
    script = root / "opt/mscl-packages/install.sh"
    run = subprocess.run(["sh", script, kind], env=variables, cwd=root, capture_output=True, text=True, timeout=300)
    assert run.returncode and says in run.stderr, run.stderr
