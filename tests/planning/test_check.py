"""`mscl check` compares a configuration with the data that are there, and says what it will do."""

import json
import time
from pathlib import Path

import pandas as pd
import pytest

from mscl.config.schema import load_config
from mscl.config.validation import ConfigError
from mscl.planning.check import describe
from mscl.stages.layout import Layout
from tests.cli.test_cli import mscl
from tests.conftest import ROOT, tiny_config


def real(root: Path, **changes):
    """The tiny configuration, of videos that the user provides."""
    values = tiny_config(root)
    for data in values["datasets"].values():
        del data["embedded"]
    values["datasets"]["ss"]["root"] = str(root / "ss")
    return values | changes


def manifest(config, name: str, rows: list[tuple]) -> None:
    path = Path(Layout(config).manifest(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["split", "status", "label", "class_name"]).to_parquet(path)


def test_what_is_missing_is_named_and_is_no_error(tmp_path):
    (tmp_path / "ss").mkdir()
    (tmp_path / "ss/something-something-v2-train.json").write_text("[]")
    lines = describe(load_config(real(tmp_path)))
    assert f"data set kin: train: not counted yet (in {tmp_path}/data/videos/kin)" in lines
    assert f"missing: datasets.kin.root: no folder {tmp_path}/data/videos/kin" in lines
    assert f"missing: datasets.ss.annotations.validation: no file {tmp_path}/ss/validation.json" in lines
    assert not any("annotations.train" in line for line in lines)
    assert any(line.startswith("jobs: ") and "4 finetune" in line and "3 pretrain" in line for line in lines)


def test_videos_are_counted_from_manifests_and_small_sets_are_refused(tmp_path):
    config = load_config(real(tmp_path))
    manifest(config, "kin", [("train", "ok", 0, "a")] * 5 + [("train", "missing", 1, "b")] * 20)
    manifest(config, "ss", [("train", "ok", 0, "a")] * 9 + [("validation", "ok", 1, "b")])
    with pytest.raises(ConfigError) as error:
        describe(config)
    assert str(error.value) == (
        "models.r18.pretrain.batch: 8 is more than the 5 usable videos of split 'train'; use a smaller batch or more videos"
    )
    manifest(config, "kin", [("train", "ok", 0, "a")] * 8 + [("train", "missing", 1, "b")] * 2000)
    lines = describe(config)
    assert "data set kin: train 2,008 videos (8 usable)" in lines
    assert "note: target ss: the usable videos of split 'train' are of 1 class(es), so no accuracy can be measured" in lines


def test_test_videos_that_pretraining_sees_are_a_note(tmp_path):
    values = real(tmp_path) | {
        "methods": ["scratch", "moco"],
        "targets": [{"dataset": "ucf", "folds": [1, 2], "train": "train", "test": "test"}],
    }
    values["datasets"] = {"ucf": {"format": "ucf101", "root": str(tmp_path), "shards": 1, "fold": 1}}
    values["pretrain"] |= {"datasets": ["ucf"], "split": "train"}
    seen = "note: targets.ucf-fold2: Pretraining uses split train of fold 1 of ucf, so it sees test videos of fold 2, without their labels"
    assert [line for line in describe(load_config(values)) if "Pretraining" in line] == [seen]
    assert not any("Pretraining" in line for line in describe(load_config(values | {"methods": ["scratch"]})))


def test_others_weights_need_no_data_of_pretraining(tmp_path):
    values = real(tmp_path) | {"methods": ["scratch"]}
    assert not any("kin" in line.partition("note:")[0] for line in describe(load_config(values)))


@pytest.mark.parametrize("written", [True, False])
def test_unknown_classes_are_refused_where_the_classes_are_known(tmp_path, written):
    values = real(tmp_path, analysis={"gradcam": ["Opening [something]", "Opening somethin"]})
    values["datasets"]["ss"]["subset"] = {"classes": ["Opening something", "Closing"]}
    config = load_config(values)
    describe(config)  # nothing is known yet
    (tmp_path / "ss").mkdir()
    if written:
        manifest(config, "ss", [("train", "ok", 0, "Opening something")] * 20)
    else:
        (tmp_path / "ss/labels.json").write_text(json.dumps({"Opening [something]": "0"}))
    with pytest.raises(ConfigError) as error:
        describe(config)
    assert str(error.value).splitlines() == [
        "datasets.ss.subset.classes: data set 'ss' has no class 'Closing'; known: Opening something",
        "analysis.gradcam: data set 'ss' has no class 'Opening somethin'; did you mean 'Opening something'?",
    ]


def test_too_few_videos_for_a_draw_are_said_where_there_is_a_manifest(prepared):
    values = tiny_config(prepared.paths.data.parent)
    values["targets"] = [
        {"dataset": "ss", "name": "five", "per_class": 5, "draws": 2, "measures": ["probe"]},
        {"dataset": "ss", "name": "many", "examples": 100, "measures": ["linear"]},
        {"dataset": "ss", "name": "two", "per_class": 1, "measures": ["linear"]},
    ]
    with pytest.raises(ConfigError) as error:
        describe(load_config(values))
    five, many, *rest = str(error.value).splitlines()
    assert (
        five.startswith("target five: per_class: 5, but class '") and "more classes have too few; give a smaller number" in five
    )
    assert many == "target many: examples: 100, but there are 24 usable training videos; give a smaller number"
    assert rest == []
    values["targets"] = [values["targets"][2] | {"linear": {"batch": 20}}]
    with pytest.raises(ConfigError, match="models.r18.linear.batch: 20 is more than the 12 usable videos of split 'train'"):
        describe(load_config(values))


def test_keys_without_effect_are_notes(tmp_path):
    values = tiny_config(tmp_path) | {
        "methods": ["scratch"],
        "mds": {"fields": 4},
        "targets": [{"dataset": "ss", "clips": 3, "measures": ["finetune"]}],
    }
    values["method_settings"] = {"simsiam": {"title": "S"}}
    values["datasets"]["spare"] = values["datasets"]["kin"]
    notes = [line.removeprefix("note: ") for line in describe(load_config(values)) if line.startswith("note: ")]
    assert notes == [
        "flow: no chosen method uses this section",
        "mds: no chosen method uses this section",
        "clip: no chosen method uses this section",
        "contrast: no chosen method uses this section",
        "method_settings.simsiam: not under methods, so it is not run",
        "datasets.kin: not used by pretrain or a target",  # no method is pretrained
        "datasets.spare: not used by pretrain or a target",
        "targets.0.clips: it has no measure of frozen features, so it is not used",
    ]
    values = tiny_config(tmp_path)
    values["flow"] |= {"batch": 4, "iterations": 2}
    assert "note: flow.batch, flow.iterations: used only with method: raft or raft-small" in describe(load_config(values))


def test_a_paper_that_is_none_is_noted(tmp_path):
    said = "\n".join(describe(load_config(tiny_config(tmp_path) | {"kind": "paper"})))
    assert "note: kind: paper, but " in said and "setting(s) differ from config/paper.yaml" in said


def test_the_command_takes_pairs_as_snakemake_does_and_is_quick():
    run = mscl("check", "config.yaml", "--config", "seeds=[0, 1, 2]", "methods=[moco]")
    assert run.returncode == 0 and "1 model(s) x 1 method(s) x 3 seed(s)" in run.stdout and "3 pretrain" in run.stdout
    assert run.stdout.count("\n") <= 12
    run = mscl("check", "--config", "seeds=[0", "config.yaml")
    assert (
        run.returncode == 1 and run.stderr.startswith("error: --config seeds: not readable YAML") and run.stderr.count("\n") == 1
    )
    loaded = "import sys, mscl.planning.check; sys.exit(bool({'torch', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    import subprocess
    import sys

    start = time.monotonic()
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, timeout=60).returncode == 0
    assert time.monotonic() - start < 30  # a loaded machine; alone it takes 0.4 s
