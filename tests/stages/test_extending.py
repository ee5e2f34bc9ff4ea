"""The examples of docs/extending.md, each as a file of the user's own, without any edit of this package."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from mscl.config.module_path import load
from mscl.config.schema import load_config
from mscl.datasets.manifest import build_manifest
from mscl.stages.rules import Rules
from mscl.stages.table import STAGES
from mscl.training.finetune import finetune
from mscl.training.pretrain import pretrain
from tests.conftest import ROOT, tiny_config

PAGE = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = {name: text for name, text in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.S)}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working folder with the example files of the page. Their modules are removed from sys.modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(text)
    yield tmp_path
    for name in EXAMPLES:
        sys.modules.pop(name, None)


def own_config(prepared, **changes) -> dict:
    return tiny_config(prepared.paths.data.parent) | changes


def test_the_page_has_one_example_of_each_kind():
    assert list(EXAMPLES) == ["my_method", "my_net", "my_format", "my_measure"]


def test_own_method_backbone_and_measure_run_from_training_to_evaluation(prepared, mine):
    switches = {"family": "my_method:SimCLR", "options": {"temperature": 0.1}}
    values = own_config(
        prepared,
        methods=["moco", "simclr"],
        method_settings={"simclr": {"title": "SimCLR", "switches": switches, "pretrain": {"lr": 0.001}}},
        targets=[{"dataset": "ss", "measures": ["finetune", "knn", "my_measure:centroid"]}],
    )
    values["models"]["r18"] |= {"backbone": "my_net:Tiny", "width": 8}
    config = load_config(values)
    run = {"model": "r18", "method": "simclr", "seed": 0}
    job = STAGES["pretrain"].settings(config, run)
    assert job.optim.lr == 0.001 and config.pretrain_of("r18", "moco").lr == 0.002 and config.title("simclr") == "SimCLR"
    pretrain(job, mine / "pre")
    history = pd.read_csv(mine / "pre" / "history.csv")
    assert np.isfinite(history.loss).all() and {"loss_rgb", "acc_rgb"} <= set(history)
    weights = {"weights": mine / "pre" / "weights.safetensors"}
    finetune(STAGES["finetune"].settings(config, {"target": "ss"} | run).model_copy(update=weights), mine / "fine")
    from mscl.evaluation.frozen import evaluate_frozen

    evaluate_frozen(STAGES["frozen"].settings(config, {"target": "ss"} | run).model_copy(update=weights), mine / "frozen")
    measured = pd.read_json(mine / "frozen" / "metrics.json", typ="series")["measures"]
    assert 0 <= measured["my_measure:centroid"]["top1"] <= 1 and set(measured) == {"knn", "my_measure:centroid"}


def test_an_own_file_counts_only_for_its_own_jobs(prepared, mine):
    simclr = {"switches": {"family": "my_method:SimCLR"}}
    values = own_config(prepared, methods=["moco", "simclr"], method_settings={"simclr": simclr})
    (mine / "my_parts.py").write_text("X = 1\n")
    (mine / "my_method.py").write_text("import my_parts\n" + EXAMPLES["my_method"])

    def code(method):
        rules = Rules(load_config(values))
        run = {"model": "r18", "method": method, "seed": "0"}
        found = [line if isinstance(line, str) else line(run) for line in rules.code("pretrain")]
        return {line.split(" = ")[0]: line.split(" = ")[1] for line in found if line}

    before = {method: code(method) for method in ("moco", "simclr")}
    assert {"my_method.py", "my_parts.py"} <= set(before["simclr"]) and "mscl/models/methods/mscl.py" not in before["simclr"]
    assert "my_method.py" not in before["moco"]
    (mine / "my_parts.py").write_text("X = 22\n")
    after = {method: code(method) for method in ("moco", "simclr")}
    assert after["moco"] == before["moco"]
    assert {path for path in after["simclr"] if after["simclr"][path] != before["simclr"][path]} == {"my_parts.py"}


def test_a_backbone_without_stages_is_refused_by_lmcl_only(prepared, mine):
    values = own_config(prepared)
    values["models"]["r18"] |= {"backbone": "my_net:Tiny", "width": 8}
    job = STAGES["pretrain"].settings(load_config(values), {"model": "r18", "method": "mscl", "seed": 0})
    with pytest.raises(ValueError, match="my_net:Tiny has no stages for LMCL's neck; take methods without lmcl"):
        pretrain(job, mine / "pre")


def test_an_own_format_becomes_a_manifest(prepared, mine):
    (mine / "videos").mkdir()
    for split in ("train", "test"):
        (mine / "videos" / f"{split}.txt").write_text(f"{split}1.mp4 0\n{split}2.mp4 1\n")
        (mine / "videos" / f"{split}1.mp4").write_bytes(b"a video")
    annotations = {"train": "train.txt", "test": "test.txt"}
    dataset = {"format": "my_format:read_annotations", "root": "videos", "annotations": annotations, "shards": 1}
    values = own_config(prepared)
    values["datasets"]["mine"] = dataset
    table = build_manifest("mine", load_config(values).datasets["mine"])
    assert table[["clip_id", "split", "label", "status"]].values.tolist() == [
        ["test1", "test", 0, "ok"],
        ["test2", "test", 1, "missing"],
        ["train1", "train", 0, "ok"],
        ["train2", "train", 1, "missing"],
    ]


def test_two_measures_of_one_name_are_refused(prepared, mine):
    (mine / "other.py").write_text("def centroid(*_):\n    return {}\ndef knn(*_):\n    return {}\n")
    for names, said in (
        (["my_measure:centroid", "other:centroid"], "'my_measure:centroid' and 'other:centroid' would both be 'centroid'"),
        (["knn", "other:knn"], "'knn' and 'other:knn' would both be 'knn'"),
        (["knn", "knn"], "'knn' is listed twice"),
    ):
        with pytest.raises(ValueError, match=said):
            load_config(own_config(prepared, targets=[{"dataset": "ss", "measures": names}]))


def test_a_name_that_a_file_does_not_define_is_refused_at_the_start(prepared, mine):
    (mine / "odd.py").write_text("import os\nif os.name:\n    first = second = print\n\n\ndef third():\n    inner = 1\n")
    for name in ("odd:os", "odd:first", "odd:second", "odd:third"):
        load_config(own_config(prepared, targets=[{"dataset": "ss", "measures": [name]}]))
    with pytest.raises(ValueError, match=r"measure 'odd:inner': .*odd.py has no 'inner'; correct the name after the colon"):
        load_config(own_config(prepared, targets=[{"dataset": "ss", "measures": ["odd:inner"]}]))


@pytest.mark.parametrize(
    "class_body, said",
    [
        ("def __init__(s, *_):\n  torch.nn.Module.__init__(s)", "set self.encoder to an mscl.models.moco.Encoder"),
        ("def forward(s, query, key):\n  return s.encoder(query.rgb_BCTHW)[1].mean()", "must return two dictionaries of scalar"),
        (
            "def forward(s, query, key):\n  return {'rgb': s.encoder(query.rgb_BCTHW)[1]}, {}",
            "must return two dictionaries of scalar",
        ),
    ],
)
def test_a_method_that_does_not_keep_its_promise_is_told_at_the_first_step(prepared, mine, class_body, said):
    text = EXAMPLES["my_method"] + "\n\nclass Wrong(SimCLR):\n" + "".join(f" {line}\n" for line in class_body.split("\n"))
    (mine / "my_method.py").write_text(text)
    settings = {"wrong": {"switches": {"family": "my_method:Wrong"}}}
    config = load_config(own_config(prepared, methods=["wrong"], method_settings=settings))
    with pytest.raises(ValueError, match=said):
        pretrain(STAGES["pretrain"].settings(config, {"model": "r18", "method": "wrong", "seed": 0}), mine / "pre")


def test_a_measure_returns_a_number_per_column(prepared, mine):
    from mscl.evaluation.frozen import evaluate_frozen

    (mine / "my_measure.py").write_text(
        "import numpy as np\ndef one(*_):\n  return .5\ndef two(*_):\n  return {'top1': np.float32(.5)}\n"
    )
    for name, said in (("one", "measure 'my_measure:one' returned 0.5; it must return a dictionary"), ("two", "")):
        config = load_config(
            own_config(prepared, methods=["scratch"], targets=[{"dataset": "ss", "measures": [f"my_measure:{name}"]}])
        )
        job = (
            STAGES["frozen"]
            .settings(config, {"target": "ss", "model": "r18", "method": "scratch", "seed": 0})
            .model_copy(update={"weights": None})
        )
        if said:
            with pytest.raises(ValueError, match=said):
                evaluate_frozen(job, mine / name)
        else:
            evaluate_frozen(job, mine / name)
            assert json.loads((mine / name / "metrics.json").read_text())["measures"]["my_measure:two"] == {"top1": 0.5}


def test_a_missing_module_or_name_is_reported(mine):
    with pytest.raises(ValueError, match="my_methods:SimCLR: no module 'my_methods' in"):
        load("my_methods:SimCLR")
    with pytest.raises(ValueError, match="my_method.py has no 'SimCRL'; correct the name after the colon"):
        load("my_method:SimCRL")
