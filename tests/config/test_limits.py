"""Settings that contradict each other, or that a network or OpenCV cannot take, are refused before anything runs."""

from pathlib import Path

import pytest

from mscl.config.overlay import from_snakemake, merged, read_config
from mscl.config.schema import load_config
from mscl.config.validation import ConfigError, read_yaml
from mscl.planning.rates import load_rates
from tests.config.test_config import changed
from tests.conftest import tiny_config


@pytest.mark.parametrize("changes", [
    {"flow/size": [8, 8]}, {"flow/size": [64, 15]},
], ids=str)  # fmt: skip
def test_flow_that_opencv_cannot_compute_is_refused(changes):
    ((path, value),) = changes.items()
    with pytest.raises(
        ConfigError, match=rf"flow.size: \[{value[0]}, {value[1]}\] is too small for OpenCV's DIS; use at least 16"
    ):
        load_config(changed(path, value))


def model(part: str, **recipe) -> dict:
    values = changed("models/r18/size", 16)
    values["models"]["r18"][part] |= recipe
    return values


def test_sizes_that_batch_norm_cannot_take_are_refused():
    with pytest.raises(
        ConfigError, match=r"models.r18.finetune.batch: a batch-norm group has 1 video, of which r3d_18 keeps one"
    ):
        load_config(model("finetune", batch=2, accumulate=2))
    load_config(model("finetune", batch=2, accumulate=2, frames=16))  # two positions in time
    load_config(model("finetune", batch=4, accumulate=2))
    with pytest.raises(ConfigError, match=r"models.r18.pretrain.batch: a batch-norm group has 1 video"):
        load_config(model("pretrain", batch=8) | {"contrast": {"queue": 32, "bn_groups": 8}})
    load_config(changed("contrast/bn_groups", 8))  # one video of 32 pixels has 4 positions


@pytest.mark.parametrize(("path", "value", "sentence"), [
    ("models/r18/finetune/steps", [2, 1], "models.r18.finetune.steps: [2, 1] must increase; sort them"),
    ("models/r18/pretrain/steps", [1, 1], "models.r18.pretrain.steps: [1, 1] must increase; sort them"),
    ("models/r18/pretrain/steps", [1, 2], "models.r18.pretrain.steps: 2 is not before the end of 2 epochs"),
    ("method_settings", {"moco": {"pretrain": {"steps": [9]}}}, "models.r18.pretrain.steps: 9 is not before the end of 2 epochs"),
    ("augment", {"area": [1.0, 0.2]}, "augment.area: [1, 0.2] is reversed; give the smaller number first"),
    ("augment", {"ratio": [2, 0.5]}, "augment.ratio: [2, 0.5] is reversed"),
    ("augment", {"blur_sigma": [2, 0.1]}, "augment.blur_sigma: [2, 0.1] is reversed"),
    ("method_settings", {"moco": {"augment": {"area": [1.0, 0.2]}}}, "method_settings.moco.augment.area: [1, 0.2] is reversed"),
    ("models/r18/finetune/area", [0.9, 0.1], "models.r18.finetune.area: [0.9, 0.1] is reversed"),
    ("augment", {"area": [0, 1]}, "augment.area.0: input should be greater than 0"),
    ("paths", {"data": "x", "results": "./x"}, "paths.results: x is also paths.data; give each its own folder"),
    ("datasets/kin/fold", 2, "datasets.kin.fold: the kinetics format has no folds; remove this key"),
])  # fmt: skip
def test_contradictions_are_refused(path, value, sentence):
    with pytest.raises(ConfigError) as error:
        load_config(changed(path, value), "c.yaml")
    assert str(error.value).startswith(f"c.yaml: {sentence}"), error.value


def test_paths_are_expanded_as_a_shell_does(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    values = changed("paths", {"data": "~/x", "results": "$HOME/y"})
    values["datasets"]["ss"]["root"] = "${DISK}/ss"
    values["flow"] |= {"weights": "~/raft.pth"}
    config = load_config(values)
    assert config.paths.data == Path("/home/me/x") and config.paths.results == Path("/home/me/y")
    assert config.datasets["ss"].root == Path("/disk/ss") and config.flow.weights == Path("/home/me/raft.pth")
    with pytest.raises(ConfigError, match=r"paths.data: '\$NOWHERE/x': the environment variable \$NOWHERE is not set"):
        load_config(changed("paths/data", "$NOWHERE/x"))
    with pytest.raises(ConfigError, match="the home folder of ~nobody-here is not known"):
        load_config(changed("paths/data", "~nobody-here/x"))


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("contrast: {dim: 8}\nseeds: [0]\ncontrast:\n  dim: 16\n")
    with pytest.raises(ConfigError, match="c.yaml: lines 1 and 3 both have the key 'contrast'; keep one of them"):
        read_yaml(path)
    path.write_text("models:\n  r18:\n    size: 16\n    width: 8\n    size: 32\n")
    with pytest.raises(ConfigError, match="lines 3 and 5 both have the key 'size'"):
        read_yaml(path)
    path.write_text("base: &b {dim: 8}\ncontrast: {<<: *b, dim: 16}\n")  # a merge is no repetition
    assert read_yaml(path)["contrast"]["dim"] == 16
    path.write_text("machine: a\nmachine: b\n")
    with pytest.raises(ConfigError, match="lines 1 and 2 both have the key 'machine'"):
        load_rates(path, load_config(tiny_config(tmp_path)))


def test_pairs_on_the_command_line_are_yaml_and_are_merged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("name: base\nseeds: [0]\ncontrast: {dim: 8, queue: 64}\n")
    assert read_config(Path("config.yaml"), ["seeds=[1, 2]", "contrast={dim: 16}", "pretrain={monitor: null}"]) == {
        "name": "base", "seeds": [1, 2], "contrast": {"dim": 16, "queue": 64}, "pretrain": {"monitor": None},
    }  # fmt: skip
    Path("part.yaml").write_text("seeds: [5]\n")  # a part is put over config.yaml, as by Snakemake
    assert read_config(Path("part.yaml")) == {"name": "base", "seeds": [5], "contrast": {"dim": 8, "queue": 64}}
    assert merged({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    for pair, sentence in (
        ("seeds", "'seeds' is not key=value"),
        ("a={x: 1, x: 2}", "--config a: lines 1 and 1 both have the key"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read_config(Path("config.yaml"), [pair])


def test_values_that_snakemake_gives_as_text_have_their_types():
    values = from_snakemake(
        changed("datasets/ss", {"format": "ucf101", "root": "x", "shards": "2", "fold": "2", "download": "null"})
    )
    values["targets"][0]["test"] = "test"
    data = load_config(values).datasets["ss"]
    assert (data.fold, data.shards, data.download) == (2, 2, None) and data.annotations["train"].endswith("trainlist02.txt")
    own = {"mine": {"switches": {"options": {"a": "0.5", "b": "true", "c": "word", "d": "3"}}}}
    options = load_config(changed("method_settings", own)).method_settings["mine"].switches.options
    assert options == {"a": 0.5, "b": True, "c": "word", "d": 3} and type(options["d"]) is int
