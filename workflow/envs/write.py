"""Write workflow/envs/mscl.yaml: the packages that the stages need, in the versions of requirements.lock.

Run it in the installed environment. The file cannot refer to requirements.lock, since Snakemake copies it to another folder first.
With --cuda, write requirements-cuda.lock instead, as pip resolves it; this needs an index that has torch's build for CUDA.
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
# These run the stages, but the stages do not import them.
NOT_IN_STAGES = {"snakemake", "snakemake-executor-plugin-slurm", "dvc", "dvc-s3"}
HEAD = """\
# The environment of `snakemake --sdm conda` for every rule. Written by workflow/envs/write.py from pyproject.toml and requirements.lock.
# The package mscl itself is not included: every rule puts this checkout on PYTHONPATH.
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - ffmpeg
  - p7zip # for the RAR archives of UCF101 and HMDB51
  - pip:
"""

CUDA_HEAD = """\
# The libraries of the CUDA build of torch, pinned; all else is in requirements.lock. Linux x86-64. An image installs both (workflow/envs/install.sh).
# Written by workflow/envs/write.py --cuda for {}
"""
BUILT = ("torch", "torchvision")  # packages that have a build for CUDA, under the same version


def canonical(name: str) -> str:
    """The normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Canonical name of a package -> its line in requirements.lock."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    return {canonical(line.split("==")[0]): line for line in lines if "==" in line}


def needed() -> set[str]:
    """The packages that the stages import, and all their requirements, from the metadata of the installed packages.

    Only packages that requirements.lock pins are included.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo = [*project["dependencies"], *project["optional-dependencies"]["pipeline"]]
    pinned, found = pins(), set()
    while todo:
        requirement = Requirement(todo.pop())
        name = canonical(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate()
        if not applies or name not in pinned or name in found | NOT_IN_STAGES:
            continue
        found.add(name)
        todo += [r for r in metadata.requires(name) or [] if "extra ==" not in r]
    return found


def text() -> str:
    """The text of workflow/envs/mscl.yaml."""
    pinned = pins()
    return HEAD + "".join(f"      - {pinned[name]}\n" for name in sorted(needed()))


def built() -> str:
    """The pins that requirements-cuda.lock belongs to."""
    return " ".join(pins()[name] for name in BUILT)


def cuda_text() -> str:
    """The text of requirements-cuda.lock: what pip would install with torch and is not in requirements.lock."""
    pinned = pins()
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += ["--constraint", str(ROOT / "requirements.lock"), *built().split()]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    found = {canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}
    if "+cpu" in found["torch"] or found.keys() <= pinned.keys():
        raise SystemExit("pip finds a CPU build of torch; give it only an index that has the build for CUDA")
    return CUDA_HEAD.format(built()) + "".join(f"{name}=={found[name]}\n" for name in sorted(found.keys() - pinned.keys()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--cuda"]:
        (ROOT / "requirements-cuda.lock").write_text(cuda_text())
    else:
        (ROOT / "workflow" / "envs" / "mscl.yaml").write_text(text())
