"""Shared fixtures: a tiny prepared data set in the store, and the folder of real footage."""

import os
import subprocess
from pathlib import Path

import pytest

# One thread for each process of tests, before anything imports numpy or torch: two processes with two threads each on two cores
# mostly wait for one another. What a configuration says (`compute.threads`) holds all the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]

# Files whose tests run in one process, one after the other: they share a finished run, or the cores of a cluster.
TOGETHER = {
    "slurm": ("slurm",),
    "dvc": ("dvc", "restore", "share"),
    "finished": ("citizen", "keep_none", "pipeline", "rerun"),
}  # longest first; names of files in tests/workflow


def together(nodeid: str) -> str:
    """What a test stays together with: its group, or its file."""
    file = nodeid.split("::")[0]
    return next((group for group, names in TOGETHER.items() if file in {f"tests/workflow/test_{n}.py" for n in names}), file)


def pytest_collection_modifyitems(items):
    """The longest groups first, then the other tests of the workflow, then the rest, so that nothing long is left for the end."""
    groups = list(TOGETHER)

    def place(item) -> tuple[int, bool]:
        group = together(item.nodeid)
        return groups.index(group) if group in groups else len(groups), "/workflow/" not in group

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is nothing to schedule
def pytest_xdist_make_scheduler(config, log):
    """With several processes (`-n 3`), one process runs all tests of a group; pytest 9.2 ignores `--dist loadgroup` of xdist 3.8."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False  # the order above
    return Together(config, log)


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """Real footage beside the checkout, or where MSCL_REAL_VIDEOS says; tests that need it skip elsewhere."""
    folder = Path(os.environ.get("MSCL_REAL_VIDEOS", ROOT.parent / "shared" / "videos"))
    if not (folder / "camera_ssv2").is_dir():
        pytest.skip("no real footage here (set MSCL_REAL_VIDEOS)")
    return folder


def tiny_config(root: Path) -> dict:
    """The demo's shape at the smallest size that still trains: seconds on one core."""
    frames = {"step": 1, "short_side": 36, "quality": 4}
    return {
        "name": "tiny", "kind": "demo", "paths": {"data": f"{root}/data", "results": f"{root}/results"},
        "seeds": [0], "methods": ["scratch", "moco", "baseline", "mscl"],
        "datasets": {
            "kin": {"format": "kinetics", "root": f"{root}/data/videos/kin", "annotations": {"train": "annotations/train.csv"}, "shards": 2,
                    "frames": frames, "embedded": {"clips": {"train": 24}, "seed": 1, "frames": 24, "size": [64, 48]}},
            "ss": {"format": "ssv2", "root": f"{root}/data/videos/ss", "shards": 1, "frames": frames,
                   "annotations": {"labels": "labels.json", "train": "train.json", "validation": "validation.json"},
                   "embedded": {"clips": {"train": 24, "validation": 12}, "seed": 2, "frames": 24, "size": [64, 48]}},
        },
        "flow": {"method": "dis", "gap": 2, "size": [48, 64], "short_side": 36},
        "clip": {"frames": 8, "stride": 2, "max_shift": 4},
        "contrast": {"dim": 16, "queue": 32, "temperature": 0.1},
        "pretrain": {"datasets": ["kin"]},
        "targets": [{"dataset": "ss"}],
        "models": {"r18": {
            "backbone": "r3d_18", "width": 4, "flow_width": 4, "neck": 16, "neck_blocks": 2, "size": 32,
            "pretrain": {"optimizer": "adamw", "lr": 0.002, "batch": 8, "epochs": 2},
            "finetune": {"optimizer": "adamw", "lr": 0.002, "batch": 8, "epochs": 2, "frames": 8, "test_size": 32},
        }},
        "analysis": {"pairs": 2},
        "compute": {"device": "cpu"},
    }  # fmt: skip


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The tiny data sets, generated, extracted, with flow: a validated Config whose stores are on disk."""
    from mscl.config.schema import load_config
    from mscl.datasets.manifest import write_manifest
    from mscl.datasets.prepare import prepare
    from mscl.flow.shard import flow_shard
    from mscl.stages import build
    from mscl.video.extract import extract_shard

    config = load_config(tiny_config(tmp_path_factory.mktemp("tiny")))
    for name in config.datasets:
        source = build.source(config, name, flow=True)
        prepare(build.dataset_job(config, name), Path(config.paths.data) / "datasets" / f"{name}.json")
        write_manifest(build.manifest_job(config, name), source.manifest)
        for shard, (index, flow) in enumerate(zip(source.frame_indexes(), source.flow_indexes())):
            extract_shard(build.frames_job(config, name), source.manifest, shard, index.with_suffix(".tar"), index)
            flow_shard(build.flow_job(config), index, index.with_suffix(".tar"), flow.with_suffix(".tar"), flow)
    return config


@pytest.fixture
def small_disk(tmp_path):
    """f(kilobytes) -> a folder on a real file system of that size; skips where mounting one is not allowed."""
    mounted = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        run = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], capture_output=True, text=True
        )
        if run.returncode:
            pytest.skip(f"mounting a small disk is not allowed here ({run.stderr.strip()})")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=False)
