"""The same rules on real videos, at the smallest useful size: four formats, three targets, missing videos, all tables."""

import json
import shutil

import pandas as pd
import torch

from mscl.models.networks.r3d_18 import R3D18
from tests.conftest import tiny_config
from tests.workflow.test_pipeline import snakemake

FROZEN = ("ucf101-fold1", "ucf101-fold2", "hmdb51")


def real_config(folder, videos) -> dict:
    config = tiny_config(folder)
    frames = {"step": 1, "short_side": 36, "quality": 4}
    config |= {
        "kind": "real",
        "methods": ["scratch", "mscl", "theirs"],
        "method_settings": {"theirs": {"title": "supervised", "weights": {"r18": theirs(folder / "theirs.pth")}}},
        "pretrain": {"datasets": ["kinetics400", "camera_ssv2"]},
        "targets": [
            {"dataset": "camera_ssv2", "measures": ["finetune"], "finetune": {"test_clips": 3}},
            {"dataset": "ucf101", "folds": [1, 2], "test": "test", "measures": ["knn"], "finetune": {"stride": 2}},
            {"dataset": "hmdb51", "test": "test", "measures": ["retrieval"]},
        ],
    }
    config["datasets"] = {
        "kinetics400": {
            "format": "kinetics",
            "root": str(videos / "kinetics400"),
            "annotations": {"train": "annotations/train.csv"},
            "shards": 1,
            "frames": frames | {"step": 2},
        },
        "camera_ssv2": {
            "format": "ssv2",
            "root": str(videos / "camera_ssv2"),
            "annotations": {"labels": "labels.json", "train": "train.json", "validation": "validation.json"},
            "shards": 1,
            "frames": frames,
        },
        "ucf101": {
            "format": "ucf101",
            "root": str(with_second_fold(videos / "ucf101", folder / "ucf101")),
            "shards": 1,
            "frames": frames,
            "subset": {"classes": ["ApplyEyeMakeup", "BaseballPitch", "Basketball", "SoccerJuggling"]},
        },
        "hmdb51": {"format": "hmdb51", "root": str(videos / "hmdb51"), "shards": 1, "frames": frames},
    }
    model = config["models"]["r18"]
    model["pretrain"] |= {"batch": 32, "epochs": 1}
    model["finetune"] |= {"epochs": 1}
    config["analysis"] = {"gradcam": ["Turning the camera left while filming something"]}
    return config


def theirs(path) -> dict:
    """A checkpoint under torchvision's names, as distributed training saves it with its classifier."""
    weights = R3D18(4).state_dict() | {"fc.weight": torch.zeros(400, 32), "fc.bias": torch.zeros(400)}
    torch.save({"model": {f"module.{key}": value for key, value in weights.items()}}, path)
    return {
        "file": str(path),
        "trained_on": "Kinetics-400 labels",
        "published": {"camera_ssv2": 12.5},
        "source": "their page",
        "mean": [0.43, 0.39, 0.38],
        "std": [0.23, 0.22, 0.22],
    }


def with_second_fold(root, copy):
    """UCF101's lists of fold 1, and a fold 2 that swaps training and test; the videos are linked."""
    shutil.copytree(root / "ucfTrainTestlist", copy / "ucfTrainTestlist")
    (copy / "UCF-101").symlink_to(root / "UCF-101")
    lists = copy / "ucfTrainTestlist"
    (lists / "testlist02.txt").write_text(
        "\n".join(line.split()[0] for line in (lists / "trainlist01.txt").read_text().splitlines())
    )
    shutil.copy(lists / "testlist01.txt", lists / "trainlist02.txt")
    return copy


def test_real_videos_go_through_the_same_rules_to_both_tables(real_videos, tmp_path):
    run = snakemake(tmp_path, config=real_config(tmp_path, real_videos))
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    health = json.loads((tmp_path / "results/data.json").read_text())
    assert [r["clip_id"] for r in health["kinetics400"]["not_ok"]] == ["0wR5jVB-WPk_000417_000427"]
    assert health["kinetics400"]["not_ok"][0]["status"] == "missing"
    assert health["camera_ssv2"]["counts"] == {"train": {"ok": 240}, "validation": {"ok": 90}}
    predictions = pd.read_parquet(tmp_path / "results/finetune/camera_ssv2/r18/mscl/seed0/predictions.parquet")
    assert len(predictions) == 90 and (predictions.status == "ok").all()
    metrics = json.loads((tmp_path / "results/finetune/camera_ssv2/r18/mscl/seed0/metrics.json").read_text())
    assert (
        metrics["classes"] == 169 and metrics["chance"] == 1 / 6
    )  # classes: highest listed index + 1; chance: 1 / number of classes that occur
    frozen = {name: json.loads((tmp_path / f"results/frozen/{name}/r18/mscl/seed0/metrics.json").read_text()) for name in FROZEN}
    assert frozen["ucf101-fold1"]["videos"] == 3 and "training videos are of 1 class" in frozen["ucf101-fold1"]["notes"][0]
    assert frozen["ucf101-fold2"]["videos"] == 2 and frozen["ucf101-fold2"]["measures"]["knn"] == {
        "top1": 0.0
    }  # of a class never trained
    assert set(frozen["hmdb51"]["measures"]["retrieval"].values()) <= {0.0, 1.0} and frozen["hmdb51"]["videos"] == 1
    table3 = pd.read_csv(tmp_path / "results/report/tables/table3.csv")
    assert list(dict.fromkeys(table3.target)) == [
        "camera_ssv2",
        "ucf101-fold1",
        "ucf101-fold2",
        "ucf101, mean of folds 1, 2",
        "hmdb51",
    ]
    table1 = pd.read_csv(tmp_path / "results/report/tables/table1.csv")
    assert table1[table1.origin == "measured"][["target", "views"]].values.tolist() == [["camera_ssv2", "3x1"]] * 3
    row = table1.set_index("method").loc["theirs"]
    assert (row.pretrain, row.published, row.test_videos) == ("Kinetics-400 labels", 12.5, 90)
    assert table3[table3.method == "theirs"].seeds.tolist() == [1, 0, 1, 0, 1]  # fold 1 has one training class
    page = (tmp_path / "results/report/index.html").read_text()
    assert "cannot be counted" not in page and "supervised was not pretrained by this pipeline" in page
    assert "0wR5jVB-WPk" in (tmp_path / "results/report/tables/unusable.csv").read_text()
    assert "Turning the camera left while filming something" in page
