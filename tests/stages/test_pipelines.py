"""The DVC stages of an experiment: what they make and need, what experiments share, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mscl.config.schema import load_config
from mscl.config.validation import ConfigError
from mscl.stages.layout import Layout
from mscl.stages.pipelines import PER_DATASET, check_pipeline, pipeline, write_pipeline
from mscl.stages.table import planned
from tests.conftest import ROOT, tiny_config

GIVEN = ("evidence", "severe", "paper", "ucf101", "real")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with dvc.yaml and the configurations of this repository, as the working folder."""
    for name in ("dvc.yaml", "config.yaml"):
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(file: str = "mine", **changes) -> Path:
    """A small configuration of the user, in config/."""
    path = Path(f"config/{file}.yaml")
    values = tiny_config(Path(".")) | {"name": file, "paths": {"data": "data/mine", "results": f"results/{file}"}}
    path.write_text(yaml.safe_dump(values | changes, sort_keys=False))
    return path


def stages(path: Path) -> dict:
    return yaml.safe_load(pipeline(path)[1])["stages"]


def outs(stages: dict) -> list[str]:
    return [next(iter(out)) for stage in stages.values() for out in stage["outs"]]


def is_in(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


@pytest.mark.parametrize("name", GIVEN)
def test_every_file_of_the_stage_table_is_in_one_output(root, name):
    path = Path(f"config/{name}.yaml")
    config, found = load_config(path), stages(path)
    made = [file for job in planned(config) for file in job.stage.makes(Layout(config), **job.values).values()]
    assert all(sum(is_in(file, [out]) for out in outs(found)) == 1 for file in made)
    unused = [out for out in outs(found) if not any(is_in(file, [out]) for file in made)]
    assert all(out.startswith((f"{config.paths.results}/report/", f"{config.paths.results}/benchmarks")) for out in unused)


def test_every_stage_waits_for_what_its_jobs_read(root):
    """Each file that a job reads and another stage makes lies in a dependency: so DVC runs the stages in the right order."""
    found, config = stages(Path("config/severe.yaml")), load_config(Path("config/severe.yaml"))
    every, at = outs(found), Layout(config)
    for job in planned(config):
        files = job.stage.makes(at, **job.values).values()
        (mine,) = {name for name, stage in found.items() for file in files if is_in(file, outs({name: stage}))}
        read = [
            f for kind in job.stage.inputs(config, at, job.values, job.stage.settings(config, job.values)).values() for f in kind
        ]
        own_outs = outs({mine: found[mine]})
        assert all(is_in(file, found[mine]["deps"]) for file in read if is_in(file, every) and not is_in(file, own_outs))


def test_dvc_reads_the_stages_of_all_experiments_at_once(root):
    """No output has two homes, no two stages wait for each other, and every command is one of this checkout."""
    for name in GIVEN:
        write_pipeline(Path(f"config/{name}.yaml"))
    run = [sys.executable, "-m", "dvc"]
    subprocess.run([*run, "init", "--no-scm", "-q"], check=True)
    dag = subprocess.run([*run, "dag", "--dot"], capture_output=True, text=True, check=True).stdout
    assert '"experiments/severe/dvc.yaml:frames-ssv2" -> "experiments/paper/dvc.yaml:finetune"' in dag  # severe was first
    listed = subprocess.run([*run, "stage", "list", "--all", "--name-only"], capture_output=True, text=True, check=True).stdout
    assert sum("frames-ssv2" in line for line in listed.splitlines()) == 1 and "experiments/evidence/dvc.yaml:report" in listed


def test_what_the_second_experiment_has_alone_is_its_own(root):
    write_pipeline(own("first", methods=["scratch", "moco"]))  # which need no flow
    second = stages(own("second"))
    assert set(second) == {"flow-kin", "pretrain", "finetune", "report"}
    assert "data/mine/frames/kin" in second["flow-kin"]["deps"] and "data/mine/flow/kin" in second["pretrain"]["deps"]
    assert second["flow-kin"]["cmd"].endswith("-- prepared_kin")
    write_pipeline(own("second"))
    assert "flow-kin" not in stages(own("first"))  # now the second makes it
    assert set(stages(own("third", methods=["scratch"]))) == {"finetune", "report"}  # nothing is pretrained


def test_the_demos_data_are_shared(root):
    """The stages of config.yaml make whole folders; an experiment uses the data sets in them."""
    demo = yaml.safe_load(Path("config.yaml").read_text())
    Path("config/mine.yaml").write_text(
        yaml.safe_dump(demo | {"name": "mine", "paths": {"data": "data/demo", "results": "results/mine"}})
    )
    found = stages(Path("config/mine.yaml"))
    assert set(found) == {"pretrain", "finetune", "report"} and "data/demo/flow/motion_kinetics" in found["pretrain"]["deps"]


def test_settings_and_code_that_a_stage_depends_on(root, monkeypatch):
    Path("my_method.py").write_text("from mscl.models.methods.moco import MoCo\n\n\nclass Mine(MoCo):\n    pass\n")
    monkeypatch.syspath_prepend(str(root))
    path = own(methods=["mine"], method_settings={"mine": {"switches": {"family": "my_method:Mine"}}})
    found = stages(path)
    assert "my_method.py" in found["pretrain"]["deps"] and "my_method.py" not in found["frames-kin"]["deps"]
    assert found["frames-kin"]["params"] == [{"config/mine.yaml": ["paths", "datasets.kin"]}]
    assert found["report"]["params"] == [{"config/mine.yaml": None}]
    assert "mds" not in found["pretrain"]["params"][0]["config/mine.yaml"]  # a section that the file does not have


def test_a_changed_configuration_needs_new_stages(root):
    path = own()
    with pytest.raises(
        ConfigError, match="experiments/mine/dvc.yaml: not the stages of config/mine.yaml as it is now; write them with"
    ):
        check_pipeline(path)
    write_pipeline(path)
    check_pipeline(path)
    own(targets=[{"dataset": "ss", "measures": ["finetune", "linear"]}])
    with pytest.raises(ConfigError, match="not the stages of config/mine.yaml as it is now"):
        check_pipeline(path)


REFUSED = {
    "other settings": (
        {"datasets": {**tiny_config(Path("."))["datasets"], "ss": tiny_config(Path("."))["datasets"]["ss"] | {"frames": {"step": 2}}}},
        r"config/mine.yaml: paths.data: config/first.yaml makes data/mine/frames/ss with other settings \(frames.frames",
    ),
    "the results of another": (
        {"paths": {"data": "data/mine", "results": "results/first"}},
        "paths.results: results/first/.* is an output of experiments/first/dvc.yaml; give each experiment a folder of its own",
    ),
    "results in results": (
        {"paths": {"data": "data/mine", "results": "results/first/finetune"}},
        "paths.results: results/first/finetune is an output of experiments/first/dvc.yaml",
    ),
    "another disk": ({"paths": {"data": "/mnt/data", "results": "results/mine"}}, "paths.data: /mnt/data is not below the repository"),
    "above": ({"paths": {"data": "data/mine", "results": "../results"}}, "paths.results: ../results is not below the repository"),
    "the demo's folder, another data set": (
        {"paths": {"data": "data/demo", "results": "results/mine"}},
        "data/demo/.*/kin.* would lie in an output of dvc.yaml, and config.yaml makes no such data set there",
    ),
    "the same name": ({"name": "first"}, "experiments/first/dvc.yaml has the stages of config/first.yaml; give config/mine.yaml another name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_dvc_cannot_version_is_refused_in_a_sentence(root, case):
    changes, message = REFUSED[case]
    write_pipeline(own("first"))
    with pytest.raises(ConfigError, match=message):
        write_pipeline(own(**changes))
    assert not Path("experiments/mine").exists()


def test_elsewhere_than_in_a_checkout_it_says_so(root):
    Path("dvc.yaml").unlink()
    with pytest.raises(ConfigError, match="dvc.yaml: not in this folder; run this in the root of a checkout"):
        write_pipeline(own())


def test_files_that_are_no_experiment_are_refused(root, tmp_path_factory):
    Path("config/part.yaml").write_text("seeds: [1]\n")
    outside = tmp_path_factory.mktemp("outside") / "mine.yaml"
    shutil.copy2(own(), outside)
    for path, message in (
        ("config.yaml", "its stages are in dvc.yaml"),
        ("config/part.yaml", "only a part"),
        (outside, "not below"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_pipeline(Path(path))
    Path("experiments/mine").mkdir(parents=True)
    Path("experiments/mine/dvc.yaml").write_text("stages: {other: {cmd: 'true'}}\n")
    with pytest.raises(ConfigError, match="experiments/mine/dvc.yaml: not the DVC stages of an experiment"):
        write_pipeline(own())


def test_the_targets_of_data_sets_are_rules(root):
    """Each data set has its own targets in the workflow, also where its name is no word."""
    found = stages(Path("config/severe.yaml"))
    targets = [stage["cmd"].split()[-1] for name, stage in found.items() if name.split("-")[0] in PER_DATASET]
    assert "extracted_ucf101-split1" in targets
    command = [sys.executable, "-m", "snakemake", "--list-target-rules", "--cores", "1", "--configfile", "config/severe.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(targets) <= set(done.stdout.split())
