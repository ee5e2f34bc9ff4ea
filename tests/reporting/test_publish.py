"""A pretraining is published: the bytes of its run card, a card with the numbers of the tests, and nothing that does not belong together."""

import json
import math
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import mscl
from mscl.cli.stages import carded
from mscl.config.schema import load_config
from mscl.datasets.generated.motion import SCENES
from mscl.evaluation.embed import embed
from mscl.evaluation.frozen import evaluate_frozen
from mscl.machine.files import sha256
from mscl.models.published import CONFIG, MODEL, MODEL_CARD
from mscl.reporting.model_card_tables import SHOWN, chance_of, with_interval
from mscl.reporting.publish import publish
from mscl.stages.layout import Layout
from mscl.stages.table import planned
from mscl.training.finetune import finetune
from mscl.training.pretrain import pretrain
from tests.conftest import tiny_config

RUN = {"model": "r18", "method": "moco", "seed": 0}
STEPS = {"pretrain": pretrain, "finetune": finetune, "embed": embed, "frozen": evaluate_frozen}


def config_of(prepared, results: Path, **changes):
    """scratch and MoCo in two seeds; a second target with few videos shares stored features with the first."""
    config = tiny_config(Path(prepared.paths.data).parent)
    config["paths"]["results"] = str(results)
    config |= {"methods": ["scratch", "moco"], "seeds": [0, 1]}
    few = {"dataset": "ss", "name": "few", "per_class": 1, "measures": ["probe"]}
    config["targets"] = [{"dataset": "ss", "measures": ["finetune", "retrieval"]}, few]
    config["models"]["r18"]["pretrain"]["epochs"] = config["models"]["r18"]["finetune"]["epochs"] = 1
    return load_config(config | changes)


@pytest.fixture(scope="module")
def results(prepared, tmp_path_factory):
    """The folder of the results of every pretraining and test, with run cards."""
    config = config_of(prepared, tmp_path_factory.mktemp("published") / "results")
    at = Layout(config)
    for job in planned(config, *STEPS):
        out, settings = Path(getattr(at, job.stage.name)(**job.values)), job.stage.settings(config, job.values)
        with carded(job.stage.name, settings, out, Path(at.records(out))):
            STEPS[job.stage.name](settings, out)
    return Path(config.paths.results)


@pytest.fixture
def case(prepared, results, tmp_path):
    """(configuration, folder of the pretraining): a copy of the results that may be damaged. Its run cards name the original's paths."""
    shutil.copytree(results, tmp_path / "results")
    config = config_of(prepared, tmp_path / "results")
    return config, Path(Layout(config).pretrain(**RUN))


def test_the_folder_is_the_run_and_tells_what_was_measured(prepared, results, tmp_path):
    config = config_of(prepared, results)
    folder = Path(Layout(config).pretrain(**RUN))
    said = publish(folder, tmp_path / "a", config, "my.yaml")
    publish(folder / "weights.safetensors", tmp_path / "b", config, "my.yaml")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [MODEL_CARD, CONFIG, MODEL]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    card = json.loads(Path(Layout(config).card(folder)).read_text())
    digest = sha256(tmp_path / "a" / MODEL)
    assert card["outputs"][str(folder / "weights.safetensors")] == digest and digest in said
    for name in (CONFIG, MODEL):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a" / MODEL_CARD).read_text()
    assert text.replace("# a\n", "# b\n") == (tmp_path / "b" / MODEL_CARD).read_text()
    assert (
        str(tmp_path) not in text and str(results) not in text and str(prepared.paths.data) not in text
    )  # no path of this machine
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "apache-2.0" and "r3d_18" in front["tags"]
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    assert recipe["optim"]["batch"] == 8 and recipe["method"] == "moco" and "flow" not in recipe
    assert text.count("Of finetuning on") == text.count("Of finetuning on ss:") == 1  # `few` is never finetuned
    for test in ("pretrain-r18-moco-seed0", "finetune-ss-r18-moco-seed1", "frozen-few-r18-moco-seed0"):
        stage = test.split("-")[0]
        below = Path(*test.split("-")[1:])
        assert sha256(results / "cards" / stage / below / "run.json") in text
    loaded = mscl.load_backbone(tmp_path / "a")
    assert loaded.feature_dim == json.loads((tmp_path / "a" / CONFIG).read_text())["feature_dim"] == 32


def test_numbers_of_the_card_are_those_of_the_predictions_with_n_and_errors(prepared, results, tmp_path):
    config = config_of(prepared, results)
    publish(Path(Layout(config).pretrain(**RUN)), tmp_path / "out", config, "my.yaml")
    text = (tmp_path / "out" / MODEL_CARD).read_text()
    rows = {}
    for line in text.split("## Measured")[1].split("\n\n")[1].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0], cells[1]] = cells[2:]
    shares = {}
    for method in ("moco", "scratch"):
        for seed in (0, 1):
            table = pd.read_parquet(results / "finetune/ss/r18" / method / f"seed{seed}" / "predictions.parquet")
            shares[method, seed] = sum(t[0] == y for t, y in zip(table.top, table.label)) / 12
    p, other = shares["moco", 0], shares["moco", 1]
    mean, deviation = (p + other) / 2, abs(p - other) / math.sqrt(2)
    none = [shares["scratch", 0], shares["scratch", 1]]
    assert rows["ss", "Top-1 after finetuning"] == [
        with_interval(p, 12),
        "12",
        f"{100 * mean:.1f} ± {100 * deviation:.1f}",
        "2",
        f"{50 * sum(none):.1f} ± {100 * abs(none[0] - none[1]) / math.sqrt(2):.1f}",
        "8.3",
    ]
    assert rows["ss", "R@5"][-1] == f"{100 * (1 - (11 / 12) ** 5):.1f}" and ("few", "Probe top-1") in rows


def test_intervals_and_chance_by_hand():
    assert with_interval(0.5, 10) == "50.0 (23.7–76.3)" and with_interval(1.0, 640) == "100.0 (99.4–100.0)"
    assert chance_of("top1", 1 / 8) == 1 / 8 and chance_of("linear_top5", 1 / 8) == 5 / 8 and chance_of("top5", 1 / 4) == 1
    assert chance_of("retrieval_2", 1 / 4) == pytest.approx(7 / 16) and math.isnan(chance_of("mine_top", 1 / 4))


def test_the_lines_of_the_card_load_the_weights(prepared, results, tmp_path):
    config = config_of(prepared, results)
    publish(Path(Layout(config).pretrain(**RUN)), tmp_path / "out", config, "my.yaml")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "out" / MODEL_CARD).read_text(), re.S)[1]
    assert len(code.splitlines()) == 6
    told: dict = {}
    exec(code.replace("hf://user/name@revision", str(tmp_path / "out")), told)
    assert told["features"].shape == (1, 32) and torch.isfinite(told["features"]).all()


def refused(case, says: str, config=None, licence=None, **where):
    made, folder = case
    out = folder.parents[5] / "out"
    with pytest.raises(ValueError) as error:
        publish(where.get("folder", folder), out, config or made, "my.yaml", licence)
    assert says in str(error.value) and "\n" not in str(error.value), error.value
    assert not out.exists() and not list(out.parent.glob(".out*"))


def test_changed_files_are_not_published(case):
    folder = case[1]
    for path, cure in {
        folder / "weights.safetensors": "run pretrain again",
        folder.parents[3] / "finetune/ss/r18/moco/seed1/metrics.json": "run finetune again",
        folder.parents[3] / "frozen/few/r18/moco/seed0/metrics.json": "run frozen again",
    }.items():
        whole = path.read_bytes()
        path.write_bytes(whole + b" ")
        refused(case, f"{path}: not the file of its run card")
        refused(case, cure)
        path.write_bytes(whole)
    card = Path(Layout(case[0]).card(folder))
    card.unlink()
    refused(case, "no run card (")


def test_tests_of_other_weights_are_not_published_with_these(case):
    """The results of a second training, and its card, were copied over those of the first; its tests were not run again."""
    root = case[1].parents[3]
    for tree in (root, root / "cards"):
        shutil.copytree(tree / "pretrain/r18/moco/seed1", tree / "pretrain/r18/moco/seed0", dirs_exist_ok=True)
    path = root / "cards/pretrain/r18/moco/seed0/run.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"job": card["job"] | {"seed": 0}}))
    refused(case, f"{root}/finetune/ss/r18/moco/seed0: tested other weights than those in")


def test_another_configuration_is_not_told_of_as_the_recipe(case, prepared):
    other = config_of(prepared, Path(case[0].paths.results), contrast={"dim": 16, "queue": 32, "temperature": 0.2})
    refused(case, "my.yaml: contrast is not what pretrain-r18-moco-seed0 was trained with", config=other)
    refused(case, "no pretraining of my.yaml", folder=case[1].parents[3] / "finetune/ss/r18/moco/seed0")


def test_weights_that_have_seen_real_videos_need_a_licence(case, prepared):
    values = case[0].model_dump(mode="json")
    values["datasets"]["kin"]["embedded"] = None
    real = load_config(values)
    refused(case, "--license: the weights were trained on kin, whose publishers have terms of their own", config=real)
    refused(case, "--license CC BY: give an identifier", licence="CC BY")
    out = case[1].parents[5] / "licensed"
    publish(case[1], out, real, "my.yaml", "cc-by-nc-4.0")
    text = (out / MODEL_CARD).read_text()
    assert "license: cc-by-nc-4.0" in text and "The videos of kin have terms of their own" in text
    with pytest.raises(ValueError, match="exists already; give a new folder"):
        publish(case[1], out, real, "my.yaml", "cc-by-nc-4.0")


def test_the_card_can_say_what_every_kind_of_generated_videos_shows():
    assert set(SHOWN) == set(SCENES)
