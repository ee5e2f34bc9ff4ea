"""Others' weights as a row: from their file through finetuning, frozen measures and the report, with the file's hash in the card."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from mscl.cli.stages import carded
from mscl.config.schema import load_config
from mscl.config.validation import ConfigError
from mscl.evaluation.frozen import evaluate_frozen
from mscl.machine.files import sha256
from mscl.models.adopt import adopt
from mscl.models.colours import Colours
from mscl.models.networks.build import own_colours
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.networks.slow_r50 import SlowR50
from mscl.planning.check import describe
from mscl.planning.count import count_jobs
from mscl.reporting.report import build_report
from mscl.stages import build
from mscl.stages.layout import Layout
from mscl.stages.table import STAGES
from mscl.stages.verify import verify
from mscl.training.finetune import finetune
from tests.conftest import tiny_config

COLOURS = Colours((0.43, 0.39, 0.38), (0.23, 0.22, 0.22))
RUN = {"target": "ss", "model": "r18", "method": "supervised", "seed": 0}


def checkpoint(path: Path, net=R3D18, seed: int = 0) -> Path:
    """A checkpoint as torchvision's references save one: nested, with the classifier of 400 classes."""
    torch.manual_seed(seed)
    weights = net(4).state_dict()
    torch.save({"model": weights | {"fc.weight": torch.zeros(400, 32), "fc.bias": torch.zeros(400)}, "epoch": 44}, path)
    return path


def config_with(prepared, file: Path, results: Path, **more):
    """The prepared data with scratch and a row of others' weights."""
    config = tiny_config(Path(prepared.paths.data).parent)
    config["paths"]["results"] = str(results)
    config["methods"] = ["scratch", "supervised"]
    given = {
        "file": str(file),
        "sha256": sha256(file),
        "trained_on": "Kinetics-400 labels",
        "published": 52.8,
        "source": "their page",
    }
    given |= {"mean": COLOURS.mean, "std": COLOURS.std} | more
    config["method_settings"] = {"supervised": {"title": "supervised (theirs)", "weights": {"r18": given}}}
    return load_config(config)


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """(configuration, file) after every job of the row."""
    folder = tmp_path_factory.mktemp("foreign")
    file = checkpoint(folder / "r3d_18.pth")
    config = config_with(prepared, file, folder / "results")
    for stage, run in (("adopt", adopt), ("finetune", finetune), ("frozen", evaluate_frozen)):
        values = {name: RUN[name] for name in STAGES[stage].per}
        out = Path(getattr(Layout(config), stage)(**values))
        job = STAGES[stage].settings(config, values)
        with carded(stage, job, out, Path(Layout(config).records(out))):
            run(job, out)
    return config, file


def test_the_row_is_measured_and_says_whose_weights_they_are(finished):
    config, _ = finished
    build_report(build.report_job(config), Path(config.paths.results), Path(Layout(config).report()))
    tables = Path(Layout(config).report()) / "tables"
    row = pd.read_csv(tables / "table1.csv").set_index("method").loc["supervised"]
    assert (row.pretrain, row.published, row.origin, row.seeds) == ("Kinetics-400 labels", 52.8, "measured", 1)
    assert row.source == "tiny, demo; weights: their page"
    assert row.top1 >= 0 and "cards/adopt-r18-supervised.json" in row.cards
    assert " 52.8 |" in (tables / "table1.md").read_text()
    assert pd.read_csv(tables / "table3.csv").set_index("method").loc["supervised"].probe_top1 >= 0
    text = (tables.parent / "report.md").read_text()
    note = "supervised (theirs) was not pretrained by this pipeline: others' weights were taken as they are, r18: r3d_18.pth"
    assert note in text and note in (tables.parent / "index.html").read_text().replace("&#39;", "'")


def test_the_card_has_the_hash_of_the_file_and_verify_follows_it(finished, capsys):
    config, file = finished
    card = json.loads(Path(Layout(config).card(Layout(config).adopt("r18", "supervised"))).read_text())
    assert card["inputs"] == {str(file): sha256(file)} and card["job"]["trained_on"] == "Kinetics-400 labels"
    assert verify(config.paths.results, None, "config.yaml") == 0
    kept = file.read_bytes()
    file.write_bytes(kept + b"!")
    assert verify(config.paths.results, None, "config.yaml") == 1 and f"differs: {file} (input of" in capsys.readouterr().out
    file.write_bytes(kept)


def test_finetuned_weights_keep_the_colours_of_those_they_began_with(finished):
    config, _ = finished
    assert own_colours(Path(Layout(config).finetune(**RUN)) / "weights.safetensors") == COLOURS


def test_only_another_content_changes_what_finetuning_reads(finished, prepared, tmp_path):
    config, file = finished
    same, other = Path(shutil.copy(file, tmp_path / "renamed.pth")), checkpoint(tmp_path / "other.pth", seed=1)
    first = Path(Layout(config).adopt("r18", "supervised")) / "weights.safetensors"
    for path, unchanged in ((same, True), (other, False)):
        adopt(build.adopt_job(config_with(prepared, path, tmp_path / "r"), "r18", "supervised"), tmp_path / path.stem)
        made = tmp_path / path.stem / "weights.safetensors"
        assert (made.read_bytes() == first.read_bytes()) == unchanged


def test_the_plan_counts_its_jobs_and_no_pretraining(finished):
    counted = count_jobs(finished[0])
    assert counted["adopt"] == 1 and counted["finetune"] == counted["frozen"] == 2 and "pretrain" not in counted


@pytest.mark.parametrize(("made", "more", "says"), [
    (R3D18, {"sha256": "0" * 64}, "method_settings.supervised.weights.r18.sha256: "),
    (SlowR50, {}, "method_settings.supervised.weights.r18.file: "),
])  # fmt: skip
def test_check_reads_the_file(made, more, says, prepared, tmp_path):
    file = checkpoint(tmp_path / "w.pth", made)
    with pytest.raises(ConfigError, match=says) as error:
        describe(config_with(prepared, file, tmp_path / "results", **more))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_check_tells_of_a_missing_file_and_of_what_is_assumed(prepared, tmp_path):
    file = checkpoint(tmp_path / "w.pth")
    config = config_with(prepared, file, tmp_path / "results", sha256=None, mean=None, std=None)
    notes = [line for line in describe(config) if line.startswith("note: method_settings.supervised.weights.r18.")]
    assert f"this one's is {sha256(file)}" in notes[0] and "normalised as the file says, else by ImageNet's" in notes[1]
    file.unlink()
    assert f"missing: method_settings.supervised.weights.r18.file: no file {file}" in describe(config)
    with pytest.raises(ValueError, match=r"^method_settings.supervised.weights.r18.file: no file"):
        adopt(build.adopt_job(config, "r18", "supervised"), tmp_path / "out")
