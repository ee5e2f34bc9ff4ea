"""A mistake in a configuration is reported in one clear sentence before anything runs."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from mscl.config import schema
from mscl.config.datasets import Dataset
from mscl.config.methods import METHODS
from mscl.config.schema import load_config
from mscl.config.validation import ConfigError, Strict
from mscl.reporting.paper import differences
from mscl.stages import build, jobs, rerun
from mscl.stages.by_hand import by_hand
from mscl.stages.rules import Rules
from mscl.stages.table import planned
from tests.conftest import ROOT, tiny_config

SHIPPED = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]


def changed(path: str, value) -> dict:
    """The tiny configuration with one key set, or removed if `value` is `...`."""
    values = copy.deepcopy(tiny_config(Path("x")))
    *parents, last = path.split("/")
    at = values
    for key in parents:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return values


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_configurations_are_valid(path):
    assert load_config(path).name


@pytest.mark.parametrize(("path", "value", "sentence"), [
    ("modles", {}, "modles: unknown key; did you mean 'models'?"),
    ("models/r18/pretrain/epoch", 3, "models.r18.pretrain.epoch: unknown key; did you mean 'epochs'?"),
    ("models/r18/pretrain/epochs", "many", "models.r18.pretrain.epochs: input should be a valid integer"),
    ("models/r18/pretrain/epochs", 10**30, "models.r18.pretrain.epochs: input should be less than or equal to 1000000000 (got 1"),
    ("models/r18/pretrain/epochs", 0, "models.r18.pretrain.epochs: input should be greater than or equal to 1 (got 0)"),
    ("models/r18/backbone", "resnet", "models.r18.backbone: unknown backbone 'resnet'; known: r3d_18, slow_r50, slowonly_r50, r2plus1d_18, or give your own as package.module:Name"),
    ("models/r18/finetune", ..., "models.r18.finetune: missing; add it"),
    ("methods", ["mcsl"], "methods: unknown method 'mcsl'; did you mean 'mscl'?"),
    ("pretrain/datasets", ["kim"], "pretrain.datasets: no data set 'kim' under datasets; did you mean 'kin'?"),
    ("datasets/kin/frames", {"keep": "none", "step": 1}, "datasets.kin.frames.keep: none is for targets; pretraining on 'kin' computes flow and reads random clips"),
    ("datasets/ss/frames", {"keep": "none"}, None),
    ("datasets/ss/frames", {"keep": "some"}, "datasets.ss.frames.keep: input should be 'all' or 'none' (got 'some')"),
    ("targets", [{"dataset": "ss", "test": "val"}], "datasets.ss.annotations: no split 'val'; it has train, validation"),
    ("contrast/queue", 30, "contrast.queue: 30 is not a multiple of models.r18.pretrain.batch 8"),
    ("seeds", [0, 0], "seeds: [0, 0] contains a duplicate"),
    ("seeds", [-1], "seeds.0: input should be greater than or equal to 0 (got -1)"),
    ("method_settings", {"mscl": {"like": "moco"}}, "method_settings: 'mscl' is a built-in method; give yours another name"),
    ("method_settings", {"odd": {"switches": {"mds": True}}}, "method_settings.odd.switches: mds needs the optical flow: set flow: true"),
    ("seeds", [2**64], f"seeds.0: input should be less than 4294967296 (got {2**64})"),
    ("models/r18/pretrain/lr", float("inf"), "models.r18.pretrain.lr: input should be a finite number (got inf)"),
    ("paths/data", "x" * 300, f"paths.data: '{'x' * 40}…' is no path: a name in it is longer than 255 bytes, or has a NUL byte"),
    ("paths/data", "x\0y", "paths.data: 'x\0y…' is no path: a name in it is longer than 255 bytes, or has a NUL byte"),
    ("paths/results", __file__, f"paths.results: {__file__} is a file; give a folder"),
    ("name", "x" * 101, "name: string should have at most 100 characters"),
    ("flow/method", "command", "flow.command: method: command needs the program and its arguments, such as [python, my_flow.py]; set it"),
    ("flow/command", ["python", "x.py"], "flow.command: only with method: command; set that, or remove it"),
    ("flow/method", "raft", "flow.weights: RAFT needs a local file of torchvision's raft_large weights; set it, or method: dis"),
    ("contrast/bn_groups", 3, "contrast.bn_groups: models.r18.pretrain.batch 8 is not a multiple of 3 groups"),
    ("clip/stride", 3, None),
    ("flow/step", 2, None),
    ("flow/step", 3, "mds.stride: 4 is not a multiple of flow.step 3, so there are no fields that far apart"),
    ("flow/step", 4, "clip.stride: 2 is not a multiple of 4 (flow.step 4 x datasets.kin.frames.step 1), so not every frame of a clip has a field"),
    ("datasets/kin/frames", {"step": 2}, None),
    ("datasets/kin/frames", {"step": 4}, "clip.stride: 2 is not a multiple of datasets.kin.frames.step 4, so these frames are not stored"),
    ("datasets/ss/annotations", {"train": "t", "validation": "v"}, "datasets.ss.annotations: the ssv2 format needs 'labels' (labels.json)"),
    ("datasets/kin/embedded/clips", {"val": 3}, "datasets.kin.embedded.clips: give the number of videos for each of train"),
    ("method_settings", {"odd": {"switches": {"lmcl": True}}}, "method_settings.odd.switches: rotated, lmcl and fra need the flow network: set flow: true"),
    ("datasets/kin/format", "kinetic", "datasets.kin.format: unknown format 'kinetic'; did you mean 'kinetics'?, or give your own as package.module:Name"),
    ("datasets/kin/fold", 4, "datasets.kin.fold: input should be 1, 2 or 3 (got 4)"),
    ("datasets/kin/holdout", {"train": 0.1}, "datasets.kin.holdout: split 'train' already has a file; give the new split another name"),
    ("datasets/kin/holdout", {"a": 0.5, "b": 0.5}, "datasets.kin.holdout: the shares must sum to less than 1"),
    ("datasets/kin/holdout", {"a": 1.0}, "datasets.kin.holdout.a: input should be less than 1 (got 1.0)"),
    ("datasets/kin/holdout_from", "val", "datasets.kin.holdout_from: no split 'val' under annotations; there are train"),
    ("datasets/kin/subset", {"splits": ["test"]}, "datasets.kin.subset.splits: no split 'test'; there are train"),
    ("datasets/kin/subset", {"fraction": 0}, "datasets.kin.subset.fraction: input should be greater than 0 (got 0)"),
    ("datasets/kin/subset", {"class": []}, "datasets.kin.subset.class: unknown key; did you mean 'classes'?"),
    ("datasets/kin/download", {"source": "kinetics400"}, "datasets.kin.download: an embedded data set is generated, not downloaded; remove embedded or download"),
    ("datasets/kin", {"format": "ucf101", "root": "x", "shards": 1, "download": {"source": "hmdb51"}},
     "datasets.kin.download.source: hmdb51 is not available in the ucf101 format; change source or format"),
    ("datasets/kin", {"format": "ssv2", "root": "x", "shards": 1, "annotations": {"labels": "l", "train": "t"}, "download": {"source": "ssv2"}},
     "datasets.kin.download.source: input should be 'kinetics400', 'ucf101' or 'hmdb51' (got 'ssv2')"),
    ("datasets/kin", {"format": "csv", "root": "x", "shards": 1}, "datasets.kin.annotations: name at least one split and its file"),
    ("datasets/kin", {"format": "csv", "root": "x", "shards": 1, "annotations": {"labels": "l"}},
     "datasets.kin.annotations: name at least one split and its file"),
    ("datasets/kin", {"format": "folder", "root": "x", "shards": 1, "videos": "y"},
     "datasets.kin.videos: the folder format takes its videos from the folders under annotations; remove this key"),
    ("datasets/kin", {"format": "hmdb51", "root": "x", "shards": 1, "annotations": {"train": "splits", "val": "splits"}},
     "datasets.kin.annotations: the hmdb51 lists define only the splits train and test; use holdout for another split"),
    ("datasets/kin/holdout", {"validation": 0.1}, None),
    ("datasets/kin", {"format": "folder", "root": "x", "shards": 1}, None),
    ("datasets/kin", {"format": "ucf101", "root": "x", "shards": 1, "download": {"source": "ucf101"}}, None),
    ("datasets/kin", {"format": "hmdb51", "root": "x", "shards": 1, "holdout": {"v": 0.1}, "subset": {"splits": ["v"]}}, None),
    ("method_settings", {"odd": {"switches": {"family": "rho-moco", "flow": True}}},
     "method_settings.odd.switches: family rho-moco has no switch flow: remove it, or set family: mscl"),
    ("method_settings", {"odd": {"switches": {"clips": 3}}}, "method_settings.odd.switches: family mscl uses 2 clips per video: remove clips, or set"),
    ("method_settings", {"odd": {"switches": {"family": "corp-f", "clips": 3}}}, "method_settings.odd.switches: family corp-f uses 2 clips per video"),
    ("method_settings", {"odd": {"switches": {"family": "rho-moco", "clips": 1}}}, "method_settings.odd.switches.clips: input should be greater than or equal to 2"),
    ("method_settings", {"odd": {"switches": {"family": "modist"}}}, "method_settings.odd.switches: family modist needs the optical flow: set flow: true"),
    ("method_settings", {"odd": {"switches": {"flow_contrast": False}}}, "method_settings.odd.switches: flow_contrast is a term of the flow network: set flow"),
    ("method_settings", {"odd": {"switches": {"family": "rho_moco"}}}, "method_settings.odd.switches.family: unknown family 'rho_moco'; did you mean 'rho-moco'?"),
    ("method_settings", {"rho-8": {"switches": {"family": "rho-moco", "clips": 8}}}, None),
    ("method_settings", {"odd": {}}, "method_settings.odd: not a built-in method; add switches, like with the name of a built-in method, or weights"),
    ("method_settings", {"odd": {"like": "mocco"}}, "method_settings.odd.like: no method 'mocco'; did you mean 'moco'?"),
    ("method_settings", {"moco": {"contrast": {"temprature": 0.2}}}, "method_settings.moco.contrast.temprature: unknown key; did you mean"),
    ("method_settings", {"moco": {"pretrain": {"lr": 0}}}, "method_settings.moco.pretrain.lr: input should be greater than 0 (got 0)"),
    ("method_settings", {"moco": {"contrast": {"queue": 30}}}, "contrast.queue: 30 is not a multiple of models.r18.pretrain.batch 8"),
    ("method_settings", {"odd": {"switches": {"family": "nowhere.at:All"}}}, "family 'nowhere.at:All': no module 'nowhere.at' in"),
    ("targets", [{"dataset": "ss", "measures": ["prob"]}], "targets.0.measures.0: unknown measure 'prob'; did you mean 'probe'?"),
    ("targets", [{"dataset": "ss", "measures": []}], "targets.0.measures: name at least one, such as finetune or probe"),
    ("targets", [{"dataset": "ss"}, {"dataset": "ss"}], "targets.1.name: 'ss' is the name of another target"),
    ("targets", [{"dataset": "ss"}, {"dataset": "ss", "per_class": 1, "draws": 2}], "targets.0.name: 'ss' is the name of another target"),
    ("targets", [{"dataset": "sss"}], "targets.0.dataset: no data set 'sss' under datasets; did you mean 'ss'?"),
    ("targets", [{"dataset": "ss", "models": {"r81": {}}}], "targets.0.models: no model 'r81'; did you mean 'r18'?"),
    ("targets", [{"dataset": "ss", "finetune": {"test_crops": 2}}], "targets.0.finetune.test_crops: "),
    ("targets", [{"dataset": "ss", "finetune": {"batch": 7}}], None),
    ("targets", [{"dataset": "ss", "examples": 9, "per_class": 2}], "targets.0.per_class: examples is also given; remove one of the two"),
    ("targets", [{"dataset": "ss", "per_class": 0}], "targets.0.per_class: input should be greater than or equal to 1 (got 0)"),
    ("targets", [{"dataset": "ss", "examples": 1}], "targets.0.examples: input should be greater than or equal to 2 (got 1)"),
    ("targets", [{"dataset": "ss", "draws": 3}], "targets: draws: target 'ss' uses all training videos; add examples"),
    ("targets", [{"dataset": "ss", "per_class": 1, "draws": 0}], "targets: draws: 0 is not a number of draws; give a whole number from 1"),
    ("targets", [{"dataset": "ss", "measures": ["linear"], "linear": {"epochs": 3}}], "models.r18.linear.warmup: 8 epochs of 3; set a smaller"),
    ("finetune", {"dataset": "ss", "test": "validation"}, "finetune: there may be several targets now; write targets: [{dataset: ss, test: validation}]"),
    ("analysis/measures", ["probe"], "analysis.measures: belongs to a target now; write it under targets"),
    ("models/r18/pretrain/accumulate", 2, "models.r18.pretrain.accumulate: contrast.bn_groups 1 must be a multiple of 2 (processes of this run"),
    ("models/r18", tiny_config(Path("x"))["models"]["r18"] | {"contrast": {"bn_groups": 3}}, "contrast.bn_groups: models.r18.pretrain.batch 8"),
    ("models/r18/pretrain/warmup", -1, "models.r18.pretrain.warmup: input should be greater than or equal to 0 (got -1)"),
    ("clip/frames", 16, "clip.frames: LMCL needs 8 frames, since it pairs 4 time steps of the neck with 4 of the flow network; set 8"),
])  # fmt: skip
def test_each_mistake_is_one_sentence(path, value, sentence):
    values = changed(path, value)
    if sentence is None:
        assert load_config(values)
        return
    with pytest.raises(ConfigError) as error:
        load_config(values, "my.yaml")
    assert sentence in str(error.value) and len(str(error.value).splitlines()) == 1


def test_official_lists_need_no_annotations():
    ucf = Dataset(format="ucf101", root="r", shards=1, fold=2)
    assert ucf.videos == "UCF-101" and ucf.annotations == {
        "labels": "ucfTrainTestlist/classInd.txt",
        "train": "ucfTrainTestlist/trainlist02.txt",
        "test": "ucfTrainTestlist/testlist02.txt",
    }
    assert ucf.splits == ["train", "test"] and ucf.holdout_from == "train"
    assert Dataset(format="folder", root="r", shards=1).annotations == {"train": "."}


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="absent.yaml: no such file"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "torn.yaml").write_text("name: [demo")
    with pytest.raises(ConfigError, match="torn.yaml: not readable YAML: .* line 1"):
        load_config(tmp_path / "torn.yaml")
    (tmp_path / "list.yaml").write_text("- name")
    with pytest.raises(ConfigError, match="list.yaml: expected keys and values, found list"):
        load_config(tmp_path / "list.yaml")


def test_built_in_methods_have_the_switches_of_the_paper():
    on = {
        name: {
            k
            for k, v in s.model_dump(exclude={"family", "clips", "flow_contrast", "options"}).items()
            if v not in (False, "none")
        }
        for name, s in ((n, m.switches) for n, m in METHODS.items())
    }
    assert on["scratch"] == set()
    assert on["moco"] == {"pretrain"}
    assert on["baseline"] == {"pretrain", "flow", "rotated"}
    assert on["mscl"] == on["baseline"] | {"lmcl", "fra", "mds"}
    assert METHODS["mscl"].switches.fra == "paper" and METHODS["mscl-released"].switches.fra == "released"


def test_a_job_has_the_settings_of_its_stage_and_survives_json():
    config = load_config(tiny_config(Path("x")))
    job = build.pretrain_job(config, "r18", "mscl", 0)
    assert jobs.loads(jobs.PretrainJob, jobs.dumps(job)) == job
    other = load_config(changed("models/r18/finetune/lr", 0.5))
    assert jobs.dumps(build.pretrain_job(other, "r18", "mscl", 0)) == jobs.dumps(job)
    assert jobs.dumps(build.finetune_job(other, "ss", "r18", "mscl", 0)) != jobs.dumps(
        build.finetune_job(config, "ss", "r18", "mscl", 0)
    )
    assert build.pretrain_job(config, "r18", "moco", 0).sources[0].flow is None


def test_a_default_that_came_later_changes_no_settings_of_before():
    """`frames.keep`: neither what jobs are hashed by, nor the parameters that Snakemake compares as a set, which has "" in any case."""
    frames = {"step": 1, "short_side": 36, "quality": 4}
    config, other = load_config(tiny_config(Path("x"))), load_config(changed("datasets/ss/frames", frames | {"keep": "none"}))
    before, after = (build.frames_job(one, "ss") for one in (config, other))
    assert jobs.dumps(before) == '{"frames":{"quality":4,"short_side":36,"step":1,"timeout":300},"shards":1}'
    assert set(rerun.lines(before).values()) == {
        "", "frames.step = 1", "frames.short_side = 36", "frames.quality = 4", "frames.timeout = 300", "shards = 1",
    }  # fmt: skip
    assert set(rerun.lines(after).values()) - set(rerun.lines(before).values()) == {'frames.keep = "none"'}
    assert jobs.loads(jobs.FramesJob, jobs.dumps(after)) == after
    assert "" in Rules(config).code("frames")
    same = [job for job in planned(other) if job.stage.name not in ("frames", "report")]
    assert all(
        jobs.dumps(job.stage.settings(other, job.values)) == jobs.dumps(job.stage.settings(config, job.values)) for job in same
    )
    assert not [said for said in differences(other) if "keep" in said]


def test_pretraining_may_watch_videos_whose_frames_are_not_stored():
    values = changed("datasets/ss/frames", {"keep": "none"})
    values["pretrain"]["monitor"] = {"dataset": "ss", "split": "train"}
    assert load_config(values).pretrain.monitor.dataset == "ss"


def test_a_job_of_another_class_is_refused():
    with pytest.raises(ConfigError, match="--job: method: missing; add it"):
        jobs.loads(jobs.PretrainJob, "{}")
    with pytest.raises(ConfigError, match="this job cannot be read"):
        jobs.loads(jobs.PretrainJob, "{torn")


def test_every_key_is_documented():
    text = (ROOT / "config" / "README.md").read_text()
    models = [m for m in vars(schema).values() if isinstance(m, type) and issubclass(m, Strict) and m is not Strict]
    absent = [f"{m.__name__}.{key}" for m in models for key in m.model_fields if f"`{key}`" not in text]
    assert not absent


def test_the_json_schema_follows_the_typed_configuration():
    kept = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    assert kept == schema.Config.model_json_schema(), "run: python -m mscl schema > workflow/schemas/config.schema.json"


def test_groups_of_batch_norm_keep_their_size_where_a_batch_comes_in_parts():
    """8 clips in 4 groups of 2; in 2 parts of 4 clips the networks see 2 groups of 2."""
    values = changed("contrast/bn_groups", 4)
    values["models"]["r18"]["pretrain"]["accumulate"] = 2
    assert build.pretrain_job(load_config(values), "r18", "moco", 0).contrast.bn_groups == 2
    with pytest.raises(
        ConfigError, match="accumulate: fra: released puts keys into the queue within a step; set accumulate to 1"
    ):
        load_config(values | {"methods": ["mscl-released"]})


def test_a_method_has_its_own_recipe_and_the_released_one_its_own_colours():
    own = {
        "moco": {"contrast": {"temperature": 0.2}, "pretrain": {"epochs": 5}},
        "mine": {"like": "mscl", "augment": {"flip": 0.0}},
    }
    config = load_config(changed("method_settings", own) | {"methods": ["moco", "mine", "mscl", "mscl-released"]})
    jobs_of = {m: build.pretrain_job(config, "r18", m, 0) for m in config.methods}
    assert [j.contrast.temperature for j in jobs_of.values()] == [0.2, 0.1, 0.1, 0.1]
    assert [j.optim.epochs for j in jobs_of.values()] == [5, 2, 2, 2]
    assert [j.augment.colours for j in jobs_of.values()] == ["clip", "clip", "clip", "frame"]
    assert jobs_of["mine"].augment.flip == 0 and jobs_of["mine"].switches == jobs_of["mscl"].switches


def test_the_test_split_is_not_trained_on_or_watched_with_its_labels():
    values = changed("targets", [{"dataset": "ss", "train": "validation"}])
    with pytest.raises(ConfigError, match="targets.0.test: 'validation' is also train; test on another split"):
        load_config(values)
    values = changed("pretrain/monitor", {"dataset": "ss", "split": "validation"})
    with pytest.raises(ConfigError, match="pretrain.monitor: split 'validation' of 'ss' is the test split"):
        load_config(values)


def test_a_pretraining_uses_as_many_processes_as_its_groups_divide_among():
    """The paper's R18 has 4 batch-norm groups and its R50 8: of 8 GPUs the one takes 4, the other all."""
    values = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    used = {}
    for processes in (1, 2, 3, 4, 8):
        values["compute"]["processes"] = processes
        if processes == 3:  # finetuning's batch of 32 cannot be shared by 3
            with pytest.raises(ConfigError, match="finetune.batch: 32 is not a multiple of 3"):
                load_config(values)
            continue
        config = load_config(values)
        used[processes] = [config.processes_of(model, "mscl") for model in ("r18", "r50")]
    assert used == {1: [1, 1], 2: [2, 2], 4: [4, 4], 8: [4, 8]}


def test_folds_stand_for_one_target_each():
    values = changed("datasets/ucf", {"format": "ucf101", "root": "u", "shards": 1, "fold": 2})
    values["targets"].append({"dataset": "ucf", "folds": [1, 2, 3], "test": "test", "measures": ["retrieval"]})
    config = load_config(values)
    assert [(t.name, t.fold, t.folds_of) for t in config.targets] == [
        ("ss", None, ""),
        ("ucf-fold1", 1, "ucf"),
        ("ucf-fold2", 2, "ucf"),
        ("ucf-fold3", 3, "ucf"),
    ]
    assert load_config(config.model_dump(mode="json")) == config  # as the report's job is written
    assert build.manifest_job(config, "ucf").folds == (1, 3) and build.manifest_job(config, "ss").folds == ()
    sources = [build.frozen_job(config, f"ucf-fold{k}", "r18", "moco", 0).source for k in (1, 2, 3)]
    assert [s.fold for s in sources] == [1, None, 3] and len({s.frames for s in sources}) == 1  # the frames are shared
    other = config.datasets["ucf"].of_fold(3)
    assert other.annotations["train"] == "ucfTrainTestlist/trainlist03.txt" and config.datasets["ucf"].fold == 2
    few = {"dataset": "ucf", "name": "few", "folds": [1, 2], "test": "test", "measures": ["knn"], "examples": 101, "draws": 2}
    drawn = load_config(values | {"targets": [few]})
    assert [(t.name, t.fold, t.folds_of, t.draw, t.draws_of) for t in drawn.targets] == [
        ("few-fold1-draw1", 1, "few", 1, "few-fold1"),
        ("few-fold1-draw2", 1, "few", 2, "few-fold1"),
        ("few-fold2-draw1", 2, "few", 1, "few-fold2"),
        ("few-fold2-draw2", 2, "few", 2, "few-fold2"),
    ]
    assert load_config(drawn.model_dump(mode="json")) == drawn
    values["targets"] = [{"dataset": "ss"}, {"dataset": "ucf", "folds": [], "test": "test"}]
    with pytest.raises(ConfigError, match="targets.1.folds: unknown key"):  # no target disappears without a word
        load_config(values)
    values["targets"] = [{"dataset": "ss", "folds": [1, 2]}]
    with pytest.raises(ConfigError, match="targets.0.fold: the ssv2 format has no folds; remove this key"):
        load_config(values)


def test_a_model_may_run_some_methods_on_some_targets():
    values = changed("methods", ["scratch", "moco", "mscl"])
    values["datasets"]["ucf"] = {"format": "ucf101", "root": "u", "shards": 1}
    values["targets"].append({"dataset": "ucf", "folds": [1, 2], "test": "test", "measures": ["finetune", "retrieval"]})
    small = values["models"]["r18"]
    values["models"] = {"r18": small | {"methods": ["mscl", "scratch"], "targets": ["ucf"]}, "other": small | {"targets": ["ss"]}}
    config = load_config(values)
    runs = {
        stage: [tuple(job.values.values()) for job in planned(config, stage)] for stage in ("pretrain", "finetune", "analysis")
    }
    seed = config.seeds[0]
    assert [run[:2] for run in runs["pretrain"] if run[2] == seed] == [("r18", "mscl"), ("other", "moco"), ("other", "mscl")]
    assert [run[:3] for run in runs["finetune"] if run[3] == seed] == [
        *(("ss", "other", method) for method in ("scratch", "moco", "mscl")),
        *((f"ucf-fold{fold}", "r18", method) for fold in (1, 2) for method in ("scratch", "mscl")),
    ]
    assert runs["analysis"] == [("ss", "other"), ("ucf-fold1", "r18"), ("ucf-fold2", "r18")]
    assert build.compared(config, "r18") == ("scratch", "mscl") and build.compared(config, "other") == ("moco", "mscl")
    assert build.analysis_job(config, "ucf-fold1", "r18").methods == ("scratch", "mscl")
    with pytest.raises(ValueError, match="models.r18.methods: 'moco' does not run with this model"):
        by_hand(config, "pretrain", "r18", "moco", seed)
    with pytest.raises(ValueError, match="models.other.targets: the model is not tested on 'ucf-fold1'"):
        by_hand(config, "finetune", "other", "mscl", seed, "ucf-fold1")
    assert "/ucf-fold1/r18/" in by_hand(config, "finetune", "r18", "mscl", seed)[0]  # the model's first target


def test_draws_have_a_common_name_and_linear_evaluation_is_checked_where_it_runs():
    values = changed("targets", [{"dataset": "ss"}])
    few = {
        "dataset": "ss",
        "name": "few",
        "per_class": 2,
        "draws": 2,
        "measures": ["linear"],
        "linear": {"epochs": 4, "warmup": 0},
    }
    small = values["models"]["r18"]
    values["models"] = {"r18": small | {"targets": ["few"]}, "other": small | {"targets": ["ss"], "linear": {"batch": 7}}}
    values |= {"targets": [*values["targets"], few], "compute": {"processes": 2}}
    config = load_config(values)  # a batch of 7 for 2 processes would be refused where a linear evaluation of `other` ran
    assert [target.name for target in config.targets_of("r18")] == ["few-draw1", "few-draw2"]
    assert {job.values["model"] for job in planned(config, "linear")} == {"r18"}
    with pytest.raises(ValueError, match="models.other.targets: the model is not tested on 'few-draw1'"):
        by_hand(config, "linear", "other", "mscl", config.seeds[0], "few-draw1")


def test_examples_that_share_a_data_folder_prepare_a_data_set_alike():
    """Else each would undo what the other has made."""
    seen = {}
    for config in (load_config(path) for path in (ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml")))):
        for job in planned(config, "dataset", "manifest", "frames", "flow"):
            made = job.stage.settings(config, job.values)
            first, whose = seen.setdefault((config.paths.data, job.stage.name, *job.values.values()), (made, config.name))
            assert made == first, f"{config.name} and {whose}: {job.stage.name} {job.values}"


@pytest.mark.parametrize(("key", "chosen", "sentence"), [
    ("methods", ["msc"], "models.r18.methods: no 'msc'; did you mean 'mscl'"),
    ("methods", ["modist"], "models.r18.methods: none of them is under methods"),
    ("methods", ["mscl"], "methods: no model runs 'scratch'; add it to models"),
    ("targets", ["sss"], "models.r18.targets: no 'sss'; did you mean 'ss'"),
])  # fmt: skip
def test_methods_and_targets_of_a_model_must_exist_and_all_be_used(key, chosen, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(changed(f"models/r18/{key}", chosen))


def test_a_file_that_is_nested_without_end_is_no_configuration(tmp_path):
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 3000 + "]" * 3000)
    with pytest.raises(ConfigError, match="deep.yaml: not readable YAML: it is nested too deeply"):
        load_config(tmp_path / "deep.yaml")
