"""The same rules on real videos, at the smallest useful size: two formats, one missing video, both tables."""

import json

import pandas as pd

from tests.conftest import tiny_config
from tests.workflow.test_pipeline import snakemake


def real_config(folder, videos) -> dict:
    config = tiny_config(folder)
    frames = {"step": 1, "short_side": 36, "quality": 4}
    config |= {
        "kind": "real",
        "methods": ["scratch", "mscl"],
        "pretrain": {"datasets": ["kinetics400", "camera_ssv2"]},
        "finetune": {"dataset": "camera_ssv2"},
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
    }
    model = config["models"]["r18"]
    model["pretrain"] |= {"batch": 32, "epochs": 1}
    model["finetune"] |= {"epochs": 1}
    config["targets"][0]["measures"] = ["finetune"]
    config["analysis"] = {"gradcam": ["Turning the camera left while filming something"]}
    return config


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
    page = (tmp_path / "results/report/index.html").read_text()
    assert "cannot be counted" not in page
    assert "0wR5jVB-WPk" in page and "Turning the camera left while filming something" in page
