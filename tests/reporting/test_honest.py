"""The report does not flatter: what differs from the paper, what the data share, and cells that a spreadsheet would run."""

import json
import shutil
from pathlib import Path

import pandas as pd

from mscl.config.schema import load_config
from mscl.config.validation import read_yaml
from mscl.reporting.formats import Table
from mscl.reporting.health import data_table
from mscl.reporting.paper import differences
from mscl.reporting.results import read_results
from mscl.reporting.tables import KIND, banner, kind_of, table1, table3
from tests.reporting.conftest import settings

PAPER = read_yaml(Path(__file__).parents[2] / "config/paper.yaml")


def changed(**values) -> list[str]:
    """The differences of the paper's configuration with changes, `a__b=1` for a.b."""
    config = json.loads(json.dumps(PAPER))
    for key, value in values.items():
        *path, last = key.split("__")
        section = config
        for part in path:
            section = section[part]
        section[last] = value
    return differences(load_config(config))


def test_only_the_papers_experiment_is_of_kind_paper():
    config = load_config(PAPER)
    assert differences(config) == [] and banner(config) == KIND["paper"] and kind_of(config) == "paper"
    assert changed(seeds=[0, 1], methods=["mscl"], name="mine", compute={"device": "cpu"}, flow__batch=2) == []
    assert changed(models__r18__width=8) == ["models.r18.width: 8 (paper: 64)"]
    assert changed(models__r18__pretrain__epochs=10) == ["models.r18.pretrain.epochs: 10 (paper: 400)"]
    assert changed(flow__size=[128, 128]) == ["flow.size: [128, 128] (paper: [384, 640])"]
    assert changed(datasets__ssv2__subset={"fraction": 0.1}) == ["datasets.ssv2.subset.fraction: 0.1 (paper: 1.0)"]
    assert changed(datasets__kinetics400__frames={"short_side": 128}) == [
        "datasets.kinetics400.frames.short_side: 128 (paper: 256)"
    ]
    target = {"dataset": "ssv2", "measures": ["finetune", "probe"]}
    assert changed(targets=[target | {"clips": 1}]) == ["targets.ssv2.clips: 1 (paper: 10)"]
    assert changed(targets=[target | {"clips": 10, "finetune": {"test_crops": 3}}]) == [
        f"models.{model}.finetune on ssv2.test_crops: 3 (paper: 1)" for model in ("r18", "r50")
    ]
    assert changed(models__r18__backbone="r2plus1d_18") == ["models.r18.backbone: r2plus1d_18 (paper: r3d_18, slow_r50)"]
    assert changed(pretrain__datasets=["ssv2"], pretrain__monitor=None)[0] == "pretrain.datasets: [ssv2] (paper: [kinetics])"
    own = PAPER["method_settings"] | {"mscl": {"contrast": {"queue": 128}}}
    assert changed(method_settings=own) == ["models.r18.contrast.queue: 128 (paper: 65536)",
                                                                             "models.r50.contrast.queue: 128 (paper: 65536)"]  # fmt: skip


def test_another_experiment_of_kind_paper_says_what_differs(shared_tree):
    config = settings(kind="paper")
    assert banner(config).startswith("Configured as kind: paper, but not the paper's experiment. Real videos, but not")
    assert "models.r18.pretrain.batch: 4 (paper: 128)" in banner(config)
    table = table1(read_results(config, shared_tree))
    assert banner(config) in table.caption and set(table.data["kind"]) == {"real"}


def test_the_share_of_the_most_frequent_class_stands_beside_chance(shared_tree, job):
    results = read_results(job.config, shared_tree)
    for table, unit in ((table1(results), " %"), (table3(results), "")):
        columns = list(table.shown.columns)
        assert columns.index(f"Majority{unit}") == columns.index(f"Chance{unit}") + 1
        assert set(table.shown[f"Majority{unit}"]) - {"–"} == {"16.7"} and "Majority is the share" in table.caption


def test_top5_is_left_out_of_five_classes(shared_tree, job, tmp_path):
    assert "Top-5" in table3(read_results(job.config, shared_tree)).shown
    shutil.copytree(shared_tree, tmp_path / "results")
    for path in (tmp_path / "results" / "finetune").rglob("metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chance": 0.2}))
    assert "Top-5" not in table3(read_results(job.config, tmp_path / "results")).shown


def test_the_notes_of_the_frozen_tests_stand_under_the_table(shared_tree, job, tmp_path):
    shutil.copytree(shared_tree, tmp_path / "results")
    path = next((tmp_path / "results" / "frozen").rglob("mscl/seed0/metrics.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": ["probe: one class is predicted"]}))
    table = table3(read_results(job.config, tmp_path / "results"))
    assert "The frozen tests of r18, mscl, seed 0: probe: one class is predicted." in table.notes


def test_test_videos_that_a_training_sees_are_noted(shared_tree, job):
    results = read_results(job.config, shared_tree)
    examples = {"videos": ["a1 and a2", "b1 and b2"], "copies": ["c1 and c2"], "clips": ["d1 and d2", "e1 and e2"]}
    both = {"videos": 7, "copies": 1, "clips": 5, "recordings": 2, "examples": examples}
    shared = [
        {"split": "validation", "dataset": "toy", "other": "train"} | both,
        {"split": "train", "dataset": "toy", "other": "validation"} | both,
        {"split": "validation", "dataset": "toy", "other": "train", "fold": 2} | both | {"videos": 99},
    ]
    results.data = {"toy": results.data["toy"] | {"shared": shared, "notes": ["2 files ignored"]}}
    notes = data_table(results).notes
    assert "toy: 2 files ignored." in notes and notes[-6:] == [
        "Test videos of toy whose files are also in pretraining (split train of toy), without their labels: 7, for example a1 and a2; b1 and b2.",
        "Test videos of toy that are exact copies of videos in pretraining (split train of toy), without their labels: 1, for example c1 and c2.",
        "Test videos of toy of 2 recordings with clips in pretraining (split train of toy), without their labels: 5, for example d1 and d2; e1 and e2.",
        "Test videos of toy whose files are also in its training split train: 7, for example a1 and a2; b1 and b2.",
        "Test videos of toy that are exact copies of videos in its training split train: 1, for example c1 and c2.",
        "Test videos of toy of 2 recordings with clips in its training split train: 5, for example d1 and d2; e1 and e2.",
    ]
    results.config = results.config.model_copy(
        update={"pretrain": results.config.pretrain.model_copy(update={"split": "validation"})}
    )
    assert (
        "Pretraining sees all test videos, without their labels: both use split validation of toy." in data_table(results).notes
    )


def test_padded_class_names_are_read_from_the_pairs_as_written(shared_tree, job, tmp_path):
    shutil.copytree(shared_tree, tmp_path / "results")
    path = next((tmp_path / "results" / "analysis").rglob("pairs.csv"))
    pairs = pd.read_csv(path)
    pairs.assign(a="001", b="010").to_csv(path, index=False)
    assert set(read_results(job.config, tmp_path / "results").pairs["toy", "r18"]["a"]) == {"001"}


def test_cells_that_a_spreadsheet_would_run_are_neutralised():
    cells = ["=1+1", "+x", "-rm", "@sum", " =1", "\t=1", "-1.5", "+3", "-1,234", "plain", "a=b", "–", "'=x"]
    table = Table("t", "T", pd.DataFrame({"name": cells, "=h": range(len(cells))}))
    lines = [line.rsplit(",", 1)[0].strip('"') for line in table.csv().splitlines()]
    assert lines[0] == "name" and "'=h" in table.csv().splitlines()[0]
    assert lines[1:] == ["'=1+1", "'+x", "'-rm", "'@sum", "' =1", "'\t=1", "-1.5", "+3", "-1,234", "plain", "a=b", "–", "'=x"]
