"""An edit reruns the stages that use the code: the hash follows imports and ignores comments."""

import ast
import sys
from pathlib import Path

from mscl.config.backbones import BACKBONES
from mscl.config.methods import FAMILIES
from mscl.config.module_path import module_of
from mscl.config.schema import load_config
from mscl.stages import codehash
from mscl.stages.table import STAGES, planned
from tests.conftest import ROOT


def package(folder: Path, **modules: str) -> Path:
    (folder / "mscl").mkdir(parents=True)
    for name, text in modules.items():
        (folder / "mscl" / f"{name}.py").write_text(text)
    return folder


BASE = {
    "store": "def read():\n    return 1\n",
    "flow": "from mscl.store import read\n\ndef flow():\n    return read()\n",
    "other": "X = 1\n",
}


def test_comments_docstrings_and_formatting_change_nothing(tmp_path):
    noisy = BASE | {
        "flow": '"""Doc."""\nfrom mscl.store import read\n\n\ndef flow():\n    "Doc."\n    # why\n    return (read())\n'
    }
    assert codehash.code_hash("mscl.flow", root=package(tmp_path / "a", **BASE)) == codehash.code_hash(
        "mscl.flow", root=package(tmp_path / "b", **noisy)
    )


def test_a_changed_line_reaches_everything_that_imports_it_and_nothing_else(tmp_path):
    before = package(tmp_path / "a", **BASE)
    after = package(tmp_path / "b", **(BASE | {"store": "def read():\n    return 2\n"}))
    assert codehash.code_hash("mscl.flow", root=before) != codehash.code_hash("mscl.flow", root=after)
    assert codehash.code_hash("mscl.other", root=before) == codehash.code_hash("mscl.other", root=after)


def test_the_hash_of_a_stage_covers_the_modules_that_it_imports():
    config = load_config(ROOT / "config.yaml")
    hashes = {
        job.stage.name: tuple(job.stage.code_hashes(job.stage.settings(config, job.values)).items())
        for job in planned(config, "frames", "flow", "pretrain", "report")
    }
    assert len(set(hashes.values())) == 4
    seen = modules_of(config, "mscl")
    assert "mscl.models.losses.lmcl" in seen and "mscl.store.shards" in seen
    assert not any(m.startswith(("mscl.reporting", "mscl.evaluation", "mscl.config")) for m in seen)


def modules_of(config, method: str, **how) -> dict:
    job = STAGES["pretrain"].settings(config, {"model": "r18", "method": method, "seed": 0})
    return codehash.modules(ROOT, "mscl.training.pretrain", *job.modules(), **how)


def test_the_module_of_a_family_counts_only_for_its_methods():
    config = load_config(ROOT / "config.yaml")
    methods = ("moco", "modist", "corp-f", "simsiam")
    own = {method: {m for m in modules_of(config, method) if ".methods." in m} for method in methods}
    assert own["moco"] == {"mscl.models.methods.mscl"}
    # MoDist is MSCL's network on another input.
    assert own["modist"] == {"mscl.models.methods.mscl", "mscl.models.methods.modist"}
    assert own["corp-f"] == {"mscl.models.methods.corp"} and own["simsiam"] == {"mscl.models.methods.simsiam"}


def test_the_room_of_a_module_decides_whether_its_edit_counts():
    paths = [path.relative_to(ROOT / "mscl") for path in (ROOT / "mscl").rglob("*.py")]
    rooms = {path.parts[0] for path in paths if len(path.parts) > 1}
    assert set(codehash.NEVER_RERUN) < rooms and {"training", "models", "flow", "store", "video", "datasets", "measures"} < rooms
    outside = sorted(path.name for path in paths if len(path.parts) == 1)
    assert outside == ["__init__.py", "__main__.py"]  # every other module is in a room


def test_training_imports_only_what_a_plain_cuda_image_has():
    """mscl.models and mscl.training do not import Snakemake, DVC, decord, captum or plotting packages."""
    allowed = {
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "safetensors",
        "simplejpeg",
        "cv2",
        "tqdm",
        "yaml",
        "mscl",
    }
    named = [module_of(path) for path in (*BACKBONES.values(), *(family.network for family in FAMILIES.values()))]
    starts = ("mscl.training.pretrain", "mscl.training.finetune", "mscl.training.features", *named)
    for module, path in codehash.modules(ROOT, *starts, everything=True).items():
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        foreign = {n.split(".")[0] for n in names} - allowed - set(sys.stdlib_module_names)
        assert not foreign, f"{module} imports {foreign}"
