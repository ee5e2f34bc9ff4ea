"""After one edit, Snakemake plans exactly the expected jobs, no more and no fewer. docs/why-rerun.md explains the expectations."""

import contextlib
import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import tiny_config
from tests.workflow.conftest import copy_code, rules_planned, run_snakemake

# Only the methods with flow, so not moco.
AFTER_FLOW = {"data_health": 1, "flow_error": 1, "pretrain": 2, "finetune": 2, "frozen": 2, "analysis": 1, "report": 1}
PRETRAINED = {"pretrain": 3, "finetune": 3, "frozen": 3, "analysis": 1, "report": 1}
TRAINED = {"pretrain": 3, "finetune": 4, "frozen": 4, "analysis": 1, "report": 1}
ONE_METHOD = {"pretrain": 1, "finetune": 1, "frozen": 1}


@pytest.fixture(scope="module")
def tree(finished, tmp_path_factory):
    """A copy of the finished run with its file times, which each test may edit; and its configuration."""
    folder = tmp_path_factory.mktemp("rerun") / "tree"
    shutil.copytree(finished[0], folder)
    return folder, finished[1]


@contextlib.contextmanager
def edited(path: Path, change):
    """Replace the text of a file by `change(text)`; its bytes and times are restored afterwards."""
    before, times = path.read_bytes(), path.stat()
    path.write_text(change(before.decode()))
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def with_settings(config: dict, settings: dict) -> dict:
    """A copy of `config` with new values for the dotted keys of `settings`."""
    other = copy.deepcopy(config)
    for dotted, value in settings.items():
        *sections, key = dotted.split(".")
        at = other
        for section in sections:
            at = at.setdefault(section, {})
        at[key] = value
    return other


def planned(folder: Path, *targets: Path) -> dict[str, int]:
    return {rule: jobs for rule, jobs in rules_planned(run_snakemake(folder, "-n", *targets)).items() if rule != "all"}


SETTINGS = {
    "finetuning": ({"models.r18.finetune.lr": 0.003}, {"finetune": 4, "analysis": 1, "report": 1}),
    "the size at test time, which the frozen tests share": (
        {"models.r18.finetune.test_size": 40}, {"finetune": 4, "frozen": 4, "analysis": 1, "report": 1}),
    "pretraining": ({"contrast.temperature": 0.2}, PRETRAINED),
    "a part that only methods with flow have": ({"models.r18.neck": 8}, ONE_METHOD | PRETRAINED | {"pretrain": 2, "finetune": 2, "frozen": 2}),
    "motion scores": ({"mds.stride": 2}, {"flow": 2} | AFTER_FLOW),
    "the frozen tests": ({"targets": [{"dataset": "ss", "clips": 2}]}, {"frozen": 4, "report": 1}),
    "no frozen tests": ({"targets": [{"dataset": "ss", "measures": ["finetune"]}]}, {"report": 1}),
    "one more target": ({"targets": [{"dataset": "ss"}, {"name": "again", "dataset": "ss"}]}, {"finetune": 4, "frozen": 4, "analysis": 1, "report": 1}),
    "a target without finetuning": (
        {"targets": [{"dataset": "ss"}, {"name": "again", "dataset": "ss", "measures": ["knn"]}]}, {"frozen": 4, "report": 1}),
    "the analysis": ({"analysis.pairs": 1}, {"analysis": 1, "report": 1}),
    "one more seed": ({"seeds": [0, 1]}, TRAINED),
    "one more method": ({"methods": ["scratch", "moco", "baseline", "lmcl", "mscl"]}, ONE_METHOD | {"report": 1}),
    "an own method": (
        {"methods": ["scratch", "moco", "baseline", "mine", "mscl"], "method_settings.mine": {"switches": {"flow": True}}}, ONE_METHOD | {"report": 1}),
    "one method less": ({"methods": ["scratch", "baseline", "mscl"]}, {"report": 1}),
    "a part of the pretraining data": (
        {"datasets.kin.subset": {"fraction": 0.9}},
        {"manifest": 1, "frames": 2, "flow": 2, "data_health": 1, "flow_error": 1} | PRETRAINED),
    "the shards of the target data": ({"datasets.ss.shards": 2}, {"manifest": 1, "frames": 2, "data_health": 1} | TRAINED | {"pretrain": 0}),
    "names that only the report shows": ({"name": "other", "kind": "evidence"}, {"report": 1}),
    "another folder of results": ({"paths.results": "elsewhere"}, {"data_health": 1, "flow_error": 1} | TRAINED),
    "how the work is divided on the machine": (
        {"compute.workers": 2, "compute.processes": 2, "compute.extract_workers": 2, "compute.checkpoint_minutes": 3, "compute.tracking": "mlflow"},
        {}),
    "threads, which change the last bits": ({"compute.threads": 2}, TRAINED),
}  # fmt: skip


@pytest.mark.parametrize("what", SETTINGS)
def test_a_setting(tree, what):
    folder, config = tree
    changed, expected = SETTINGS[what]
    with edited(folder / "my.yaml", lambda _: yaml.safe_dump(with_settings(config, changed))):
        assert planned(folder) == {rule: jobs for rule, jobs in expected.items() if jobs}


def statement(text: str) -> str:
    return text + "\nADDED = 1\n"


CODE = {
    "flow": ("mscl/flow/estimate.py", statement, {"flow": 2} | AFTER_FLOW),
    "a loss": ("mscl/models/losses/lmcl.py", statement, PRETRAINED),
    "another family's network": ("mscl/models/methods/corp.py", statement, {}),
    "a family's own network": ("mscl/models/methods/mscl.py", statement, PRETRAINED),
    "another backbone": ("mscl/models/networks/slow_r50.py", statement, {}),
    "the backbone": ("mscl/models/networks/r3d_18.py", statement, TRAINED),
    "the table of backbones": ("mscl/config/backbones.py", statement, {}),
    "a measure that is not asked for": ("mscl/measures/knn.py", statement, {}),
    "a measure": ("mscl/measures/probe.py", statement, {"frozen": 4, "report": 1}),
    "the table of measures": ("mscl/config/measures.py", statement, {}),
    "another format": ("mscl/datasets/formats/ucf101.py", statement, {}),
    "the format of the target data": (
        "mscl/datasets/formats/ssv2.py",
        statement,
        {"dataset": 1, "manifest": 1, "frames": 1, "data_health": 1} | TRAINED | {"pretrain": 0},
    ),
    "the table of formats": ("mscl/config/formats.py", statement, {}),
    "the table of stages": ("mscl/stages/table.py", statement, {}),
    "the definitions of the methods, whose switches are settings": ("mscl/config/methods.py", statement, {}),
    "finetuning": ("mscl/training/finetune.py", statement, {"finetune": 4, "analysis": 1, "report": 1}),
    "GradCAM": ("mscl/evaluation/gradcam.py", statement, {"analysis": 1, "report": 1}),
    "a table": ("mscl/reporting/tables.py", statement, {"report": 1}),
    "the template of the page": ("mscl/reporting/templates/report.html.j2", lambda text: text + "\n", {"report": 1}),
    "a comment and space": ("mscl/training/engine.py", lambda text: "# A comment.\n\n" + text.replace("\n\n\n", "\n\n\n\n"), {}),
    "how progress is shown": ("mscl/watch/progress.py", statement, {}),
    "the command line": ("mscl/cli/main.py", statement, {}),
    "a rule's memory": ("workflow/rules/train.smk", lambda text: text.replace('stage.memory("pretrain")', "17000"), {}),
    "the Slurm profile": ("slurm/config.yaml", lambda text: text.replace("jobs: ", "jobs: 1"), {}),
    "documentation": ("README.md", lambda text: text + "\nMore.\n", {}),
}


@pytest.mark.parametrize("what", CODE)
def test_a_file(tree, what):
    folder, _ = tree
    name, change, expected = CODE[what]
    with edited(folder / name, change):
        assert planned(folder) == {rule: jobs for rule, jobs in expected.items() if jobs}


NEW = (
    "mscl/models/methods/mine.py",
    "mscl/models/networks/mine.py",
    "mscl/datasets/formats/mine.py",
    "mscl/measures/mine.py",
    "mine.py",
)


def test_a_new_file_of_any_kind_reruns_nothing(tree):
    folder, _ = tree
    for name in NEW:
        (folder / name).write_text(statement(""))
    assert planned(folder) == {}
    for name in NEW:
        (folder / name).unlink()


def test_a_dry_run_names_the_setting_and_the_file_that_changed(tree):
    folder, config = tree
    other = with_settings(config, {"models.r18.finetune.lr": 0.003})
    with edited(folder / "my.yaml", lambda _: yaml.safe_dump(other)), edited(folder / "mscl/evaluation/frozen.py", statement):
        run = run_snakemake(folder, "-n")
    reasons = [line for line in run.stdout.splitlines() + run.stderr.splitlines() if line.startswith("Reason: ")]
    assert any("before: 'finetune.lr = 0.002' now: 'finetune.lr = 0.003'" in reason for reason in reasons), reasons
    assert any("mscl/evaluation/frozen.py = " in reason for reason in reasons), reasons
    assert not any("backbone" in reason for reason in reasons)  # only what differs is named


def test_a_manifest_that_is_only_newer_and_a_result_that_is_gone(tree):
    folder, _ = tree
    manifest, lost = folder / "data/manifests/ss.parquet", folder / "results/frozen/ss/r18/moco/seed0/metrics.json"
    times = manifest.stat()
    manifest.touch()
    assert planned(folder) == {}
    os.utime(manifest, ns=(times.st_atime_ns, times.st_mtime_ns))
    lost.rename(folder / "kept")
    assert planned(folder) == {}  # the report made from it still exists; the result is made again only if it is a target
    assert planned(folder, lost.relative_to(folder)) == {"frozen": 1}
    (folder / "kept").rename(lost)


@pytest.fixture(scope="module")
def brought(finished, tmp_path_factory):
    """A user's own videos, as SSv2 and as one folder per class, with frames and flow extracted."""
    folder = tmp_path_factory.mktemp("brought")
    copy_code(folder)
    config, videos = tiny_config(Path(".")), finished[0] / "data/videos"
    shutil.copytree(videos / "ss", folder / "videos/ss")
    classes = [folder / "videos/mine/a class", folder / "videos/mine/another"]
    for number, video in enumerate(sorted((videos / "kin").rglob("*.mp4"))[:4]):
        classes[number % 2].mkdir(parents=True, exist_ok=True)
        shutil.copy2(video, classes[number % 2])
    frames = config["datasets"]["ss"].pop("frames")
    config["datasets"]["ss"] |= {"root": "videos/ss", "frames": frames}
    del config["datasets"]["ss"]["embedded"]
    config["datasets"]["mine"] = {"format": "folder", "root": "videos/mine", "shards": 1, "frames": frames}
    config["pretrain"] = {"datasets": ["mine"]}
    del config["datasets"]["kin"]
    run = run_snakemake(folder, "prepared", config=config)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return folder


def preparation(folder: Path, *arguments: str) -> dict[str, int]:
    return rules_planned(run_snakemake(folder, "-n", "prepared", *arguments))


def test_an_edited_annotation_and_a_new_video(brought):
    assert preparation(brought) == {}
    with edited(brought / "videos/ss/train.json", lambda text: text.replace("],", "], ", 1) + " "):
        assert preparation(brought) == {"dataset": 1, "manifest": 1, "frames": 1, "prepared": 1}
    assert preparation(brought) == {}
    video = next((brought / "videos/mine").rglob("*.mp4"))
    video.write_bytes(video.read_bytes())  # changes of a video's bytes are not detected
    assert preparation(brought) == {}
    assert preparation(brought, "-R", "manifest") == {"manifest": 2, "frames": 2, "flow": 1, "prepared": 1}
    shutil.copy2(video, video.with_name("new.mp4"))
    assert preparation(brought) == {"dataset": 1, "manifest": 1, "frames": 1, "flow": 1, "prepared": 1}


def tars(folder: Path) -> dict[str, int]:
    """Which files (inodes) the shards are."""
    return {str(p.relative_to(folder)): p.stat().st_ino for p in sorted((folder / "data").rglob("*.tar"))}


@pytest.fixture
def with_own_videos(brought, tmp_path):
    """A copy of it, hard links kept, in which nothing is left to do."""
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-al", brought, folder], check=True)
    run = run_snakemake(folder, "prepared", config=yaml.safe_load((brought / "my.yaml").read_text()))
    assert run.returncode == 0 and preparation(folder) == {}  # with whatever an earlier test has left to do
    return folder


def test_a_folder_of_videos_that_is_away_for_one_call_costs_nothing(with_own_videos):
    folder = with_own_videos
    before = tars(folder)
    (folder / "videos").rename(folder / "away")
    run = run_snakemake(folder, "prepared")
    assert run.returncode != 0 and "root: no folder videos/" in run.stdout + run.stderr
    (folder / "away").rename(folder / "videos")
    assert preparation(folder) == {} and tars(folder) == before


def test_a_wrong_root_and_a_manifest_made_again_leave_shards_as_they_are(with_own_videos):
    """The failed check deletes its own small list; what follows it runs again, and keeps its results within seconds."""
    folder = with_own_videos
    before, config = tars(folder), yaml.safe_load((folder / "my.yaml").read_text())
    (folder / "elsewhere").mkdir()
    wrong = copy.deepcopy(config)
    wrong["datasets"]["ss"]["root"] = "elsewhere"
    assert run_snakemake(folder, "prepared", config=wrong).returncode != 0
    run = run_snakemake(folder, "prepared", config=config)
    assert run.returncode == 0 and "kept, since settings, code and inputs are the same" in run.stdout + run.stderr
    assert tars(folder) == before and preparation(folder) == {}
    run = run_snakemake(folder, "prepared", "-R", "manifest", config=config)
    assert run.returncode == 0 and tars(folder) == before and preparation(folder) == {}


def test_a_replaced_video_is_extracted_when_the_manifest_is_made_again(with_own_videos):
    """The same name and the same row: only the file's size and time tell."""
    folder = with_own_videos
    before = tars(folder)
    one, other = sorted((folder / "videos/mine").rglob("*.mp4"))[:2]
    content = other.read_bytes()
    one.unlink()  # it is a hard link
    one.write_bytes(content)
    run = run_snakemake(folder, "extracted", "-R", "manifest", config=yaml.safe_load((folder / "my.yaml").read_text()))
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert [name for name, inode in tars(folder).items() if inode != before[name]] == ["data/frames/mine/0000.tar"]


def test_new_videos_are_extracted_and_the_other_shards_kept(with_own_videos):
    folder = with_own_videos
    config = yaml.safe_load((folder / "my.yaml").read_text())
    config["datasets"]["mine"]["shards"] = 4
    assert run_snakemake(folder, "extracted", config=config).returncode == 0
    before = tars(folder)
    video = next((folder / "videos/mine").rglob("*.mp4"))
    shutil.copy2(video, video.with_name("one more.mp4"))
    run = run_snakemake(folder, "extracted", config=config)
    after = tars(folder)
    changed = [name for name in before if name.startswith("data/frames/mine") and after[name] != before[name]]
    assert run.returncode == 0 and len(changed) == 1 and preparation(folder) != {}


TRACKER = """
import json

class Lines:
    def __init__(self, project, run):
        self.file = open("points.jsonl", "a")
        self.start = [project, run]
    def log(self, values, step):
        self.file.write(json.dumps([*self.start, step, values["epoch/loss"]]) + "\\n" if "epoch/loss" in values else "")
    def finish(self):
        self.file.close()
"""


def test_a_tracker_gets_the_points_of_a_job(tree, tmp_path):
    folder, config = tmp_path / "tree", with_settings(tree[1], {"compute.tracking": "my_tracker:Lines"})
    shutil.copytree(tree[0], folder)
    (folder / "my_tracker.py").write_text(TRACKER)
    weights = folder / "results/pretrain/r18/moco/seed0/weights.safetensors"
    before = weights.read_bytes()
    for path in weights.parent.glob(".*.kept*"):  # from which an unchanged result is put back
        path.unlink()
    run = run_snakemake(folder, weights.relative_to(folder), "-R", "pretrain", config=config)
    assert run.returncode == 0 and weights.read_bytes() == before, run.stdout + run.stderr
    points = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    assert [point[:3] for point in points] == [["results", "pretrain/r18/moco/seed0", step] for step in (3, 6)]
