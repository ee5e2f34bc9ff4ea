"""Write workflow/envs/mscl.yaml: what the stages need, in the versions of requirements.lock. Run it in the installed environment.

Snakemake copies an environment's file elsewhere before it makes the environment, so the file cannot point to requirements.lock.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_STAGES = {"snakemake", "snakemake-executor-plugin-slurm", "dvc", "dvc-s3"}  # these call the stages
HEAD = """\
# What `snakemake --sdm conda` installs for every rule. Written by workflow/envs/write.py from pyproject.toml and requirements.lock.
# The package mscl itself is not in it: every rule puts this checkout on PYTHONPATH.
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - ffmpeg
  - p7zip # for the RAR archives of UCF101 and HMDB51
  - pip:
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Canonical name -> line of requirements.lock."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    return {canonical(line.split("==")[0]): line for line in lines if "==" in line}


def needed() -> set[str]:
    """What the stages import and all that it requires, from the installed packages' metadata, as far as the lock pins it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo = [*project["dependencies"], *project["optional-dependencies"]["pipeline"]]
    pinned, found = pins(), set()
    while todo:
        requirement = Requirement(todo.pop())
        name = canonical(requirement.name)
        if (
            name in found | NOT_IN_STAGES
            or name not in pinned
            or not (requirement.marker is None or requirement.marker.evaluate())
        ):
            continue
        found.add(name)
        todo += [r for r in metadata.requires(name) or [] if "extra ==" not in r]
    return found


def text() -> str:
    pinned = pins()
    return HEAD + "".join(f"      - {pinned[name]}\n" for name in sorted(needed()))


if __name__ == "__main__":
    (ROOT / "workflow" / "envs" / "mscl.yaml").write_text(text())
