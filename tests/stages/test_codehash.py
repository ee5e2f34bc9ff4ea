"""An edit reruns what it touches: the hash follows imports and ignores comments."""

import sys
from pathlib import Path

from mscl.stages import codehash
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


def test_stages_of_the_package_hang_together_as_designed():
    hashes = {
        m: codehash.code_hash(m)
        for m in ("mscl.video.extract", "mscl.flow.shard", "mscl.training.pretrain", "mscl.reporting.report")
    }
    assert len(set(hashes.values())) == 4
    seen = codehash.modules(ROOT, "mscl.training.pretrain")
    assert "mscl.models.losses.lmcl" in seen and "mscl.store.shards" in seen
    assert not any(m.startswith(("mscl.reporting", "mscl.evaluation", "mscl.config.schema")) for m in seen)


def test_training_imports_only_what_a_plain_cuda_image_has():
    """No Snakemake, DVC, decord, captum or plotting below mscl.models and mscl.training."""
    import ast

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
    for start in ("mscl.training.pretrain", "mscl.training.finetune", "mscl.training.features"):
        for module in codehash.modules(ROOT, start, everything=True):
            path = codehash._path(ROOT, module)
            tree = ast.parse(path.read_text())
            names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
            names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
            foreign = {n.split(".")[0] for n in names} - allowed - set(sys.stdlib_module_names)
            assert not foreign, f"{module} imports {foreign}"
