"""Others' weights in a configuration: what is not possible is one sentence with its key."""

import pytest

from mscl.config.schema import load_config
from mscl.config.validation import ConfigError
from tests.conftest import tiny_config

GIVEN = {"file": "w.pth", "trained_on": "Kinetics-400 labels"}


def foreign_config(tmp_path, weights=None, **own) -> dict:
    config = tiny_config(tmp_path)
    config["methods"] = ["scratch", "supervised"]
    config["method_settings"] = {"supervised": {"weights": {"r18": GIVEN} if weights is None else weights} | own}
    return config


def test_such_a_method_is_not_pretrained_and_has_a_title(tmp_path):
    config = load_config(foreign_config(tmp_path, title="supervised (torchvision)"))
    assert config.pretrained_methods == [] and config.title("supervised") == "supervised (torchvision)"
    assert load_config(config.model_dump(mode="json")) == config  # as the report's job takes it
    assert config.foreign("r18", "supervised").trained_on == "Kinetics-400 labels" and config.foreign("r18", "scratch") is None


@pytest.mark.parametrize(("weights", "own", "says"), [
    (GIVEN, {}, "method_settings.supervised.weights: give the file per model, as in weights: {r18:"),
    ({"r50": GIVEN}, {}, "method_settings.supervised.weights: no model 'r50'"),
    ({"r18": {"file": "w.pth"}}, {}, "method_settings.supervised.weights.r18.trained_on: missing"),
    ({"r18": GIVEN | {"sha256": "12"}}, {}, "method_settings.supervised.weights.r18.sha256: "),
    ({"r18": GIVEN | {"published": 52.8}}, {}, "method_settings.supervised.weights.r18.source: a published number needs its source"),
    ({"r18": GIVEN | {"published": {"ucf": 9}, "source": "s"}}, {}, "weights.r18.published: no finetuned target 'ucf'"),
    ({"r18": GIVEN | {"mean": [0.4, 0.4, 0.4]}}, {}, "method_settings.supervised.weights.r18.std: mean and std belong together"),
    (None, {"like": "moco"}, "method_settings.supervised.like: others' weights are not pretrained here"),
    (None, {"pretrain": {"lr": 1}}, "method_settings.supervised.pretrain: others' weights are not pretrained here"),
])  # fmt: skip
def test_refusals_name_the_key(weights, own, says, tmp_path):
    with pytest.raises(ConfigError) as error:
        load_config(foreign_config(tmp_path, weights, **own))
    assert says in str(error.value)


def test_every_model_needs_a_file_and_several_targets_need_names(tmp_path):
    config = foreign_config(tmp_path)
    config["models"]["other"] = config["models"]["r18"]
    with pytest.raises(ConfigError, match=r"method_settings.supervised.weights: no file for model 'other'; add"):
        load_config(config)
    config = foreign_config(tmp_path, {"r18": GIVEN | {"published": 52.8, "source": "s"}})
    config["targets"] += [{"dataset": "ss", "name": "again"}]
    with pytest.raises(ConfigError, match=r"weights.r18.published: 2 targets are finetuned; say which one the number is of"):
        load_config(config)
    config["targets"] = [{"dataset": "ss", "measures": ["probe"]}]
    with pytest.raises(ConfigError, match=r"weights.r18.published: no targets are finetuned; remove it$"):
        load_config(config)
    config["method_settings"]["supervised"]["weights"]["r18"]["published"] = {"ss": 52.8}
    with pytest.raises(
        ConfigError, match=r"published: no target is finetuned; remove it, or add finetune to the measures of a target$"
    ):
        load_config(config)
    config = foreign_config(tmp_path, {"r18": GIVEN | {"published": 52.8, "source": "s"}})
    config["targets"][0] |= {"per_class": 1, "draws": 2}  # one target for a reader
    given = load_config(config).foreign("r18", "supervised")
    assert given.published_on("ss", False) == 52.8
    config = foreign_config(tmp_path)
    config["method_settings"]["moco"] = {"weights": {"r18": GIVEN}}
    with pytest.raises(ConfigError, match="method_settings.moco.weights: 'moco' is a built-in method; give yours another name"):
        load_config(config)
