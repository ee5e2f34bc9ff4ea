"""`dvc repro` from a clean clone to the report: what DVC versions, what reruns a stage, and that two runs give the same bits."""

import json
import re
import shutil

import pytest
import yaml

from mscl.config.schema import load_config
from mscl.stages.pipelines import ROWS
from mscl.stages.table import STAGES, planned
from tests.config.test_foreign import foreign_config
from tests.conftest import ROOT
from tests.workflow.conftest import attempt, commit, run, tiny_clone

VOLATILE = (
    "results/demo/cards/",
    "results/demo/benchmarks",
    "results/demo/report/cards",
    "results/demo/report/report.md",
    "results/demo/report/index.html",
)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Another clone, run by Snakemake alone and therefore in another order, then recorded by DVC."""
    folder = tiny_clone(tmp_path_factory.mktemp("second"))
    run(folder, "snakemake", "--cores", "2", "--quiet", "all")
    unused = [f"results/demo/{kind}{stage}" for kind in ("", "cards/") for stage in ("adopt", "linear", "embed")]
    for made in ("data/demo/downloads", "data/demo/flow", *unused):  # as the commands of dvc.yaml do
        (folder / made).mkdir(exist_ok=True)
    run(folder, "dvc", "commit", "--force")
    commit(folder, "the results")
    return folder


def recorded(folder) -> dict[str, str]:
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}


def test_dvc_repro_ends_with_the_report_and_a_second_one_does_nothing(reproduced):
    assert "Table 1" in (reproduced / "results/demo/report/index.html").read_text()
    lock = yaml.safe_load((reproduced / "dvc.lock").read_text())
    assert set(lock["stages"]) == {"data", "frames", "flow", "pretrain", "finetune", "report"}
    assert "Data and pipelines are up to date" in run(reproduced, "dvc", "status")
    assert "Nothing to be done" in run(reproduced, "snakemake", "--cores", "1", "-n")


def test_two_runs_in_two_places_give_the_same_hashes(reproduced, second):
    """Data, weights, predictions, tables and figures are the same; only files with times differ, as noted in dvc.yaml."""
    one, two = recorded(reproduced), recorded(second)
    assert set(one) == set(two) and len(one) == 28
    differ = {path for path in one if one[path] != two[path]}
    assert all(path.startswith(VOLATILE) for path in differ), differ
    assert {f"results/demo/cards/{stage}" for stage in ("pretrain", "finetune", "frozen", "analysis")} <= differ
    tables = [path.relative_to(reproduced) for path in (reproduced / "results/demo/report/tables").glob("*.csv")]
    assert len(tables) >= 7 and all((reproduced / t).read_bytes() == (second / t).read_bytes() for t in tables)


def test_checkpoints_and_half_written_files_never_enter_dvc(copy):
    run_folder, shards = copy / "results/demo/pretrain/r18/mscl/seed0", copy / "data/demo/frames/motion_ssv2"
    for name in ("checkpoint.pt", "checkpoint.previous.pt", ".checkpoint.pt.link", ".weights.safetensors.7.tmp", "run.lock"):
        (run_folder / name).write_text("left behind")
    for name in (".0000.tar.part", ".0000.tar.journal", ".snakemake_timestamp"):
        (shards / name).write_text("left behind")
    assert "Data and pipelines are up to date" in run(copy, "dvc", "status")
    (run_folder / "weights.safetensors").write_bytes(b"other weights")
    assert "modified:           results/demo/pretrain" in run(copy, "dvc", "status")


def test_an_edit_of_code_or_settings_reruns_its_stage_and_what_follows(copy):
    def changed():
        return set(json.loads(run(copy, "dvc", "status", "--json").splitlines()[0]))

    code = copy / "mscl/flow/mds.py"
    code.write_text(code.read_text() + "EDITED = True\n")
    assert changed() == {"flow", "pretrain", "finetune", "report"}
    run(copy, "git", "checkout", "-q", "mscl")
    settings = copy / "config.yaml"
    config = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump(config | {"contrast": config["contrast"] | {"temperature": 0.2}}))
    assert changed() == {"pretrain", "report"}  # also finetune, as soon as the weights differ


def test_stale_stages_are_told_without_data_and_without_running(copy):
    def stale():
        done = attempt(copy, "python", "-m", "workflow.recorded")
        found = dict(re.findall(r"^  (\w+) +(.+)$", done.stdout, re.M))
        assert not done.stderr and done.returncode == bool(found)
        assert ("To mend it: dvc repro && git add dvc.lock" if found else "all 6 stages have the code and") in done.stdout
        return found

    shutil.rmtree(copy / "data")
    shutil.rmtree(copy / "results")
    assert stale() == {}
    code = copy / "mscl/flow/mds.py"
    code.write_text(code.read_text() + "EDITED = True\n")
    assert stale() == {"flow": "mscl/flow", "pretrain": "mscl/flow", "finetune": "mscl/flow", "report": "mscl"}
    run(copy, "git", "checkout", "-q", "mscl")
    settings = copy / "config.yaml"
    config = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump(config | {"contrast": config["contrast"] | {"temperature": 0.2}}))
    assert stale() == {"pretrain": "config.yaml: contrast", "report": "config.yaml: contrast"}
    run(copy, "git", "checkout", "-q", "config.yaml")
    lock = yaml.safe_load((copy / "dvc.lock").read_text())
    del lock["stages"]["frames"]
    lock["stages"]["flow"]["outs"][0]["md5"] = f"{0:032x}.dir"  # as after a merge of two branches
    (copy / "dvc.lock").write_text(yaml.safe_dump(lock))
    found = stale()
    assert found["frames"] == "not recorded" and found["pretrain"].endswith(
        "data/demo/flow (recorded with another hash by its stage)"
    )


def test_dvc_has_a_stage_for_every_row_of_the_stage_table():
    assert sorted(name for names in ROWS.values() for name in names) == sorted(STAGES)


@pytest.mark.parametrize("stage", ROWS)
def test_a_stage_depends_on_all_code_that_its_rules_run(stage):
    """Snakemake follows imports itself. dvc.yaml lists folders, which must contain every imported file."""
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    config = load_config(ROOT / "config.yaml")
    jobs = [(config, job) for job in planned(config, *ROWS[stage])]
    paths = {"download": ROOT / "config/paper.yaml", "linear": ROOT / "config/severe.yaml", "adopt": foreign_config("of others")}
    paths["embed"] = paths["linear"]
    for absent in {"download", "linear", "embed", "adopt"} & set(ROWS[stage]):  # stages that the demo does not have
        other = load_config(paths[absent])
        jobs += [(other, job) for job in planned(other, absent)]
    assert {job.stage.name for _, job in jobs} == set(ROWS[stage])
    run_by = {path for of, job in jobs for path in job.stage.code_hashes(job.stage.settings(of, job.values))}
    lacking = [path for path in run_by if not any(path == dep or path.startswith(f"{dep}/") for dep in deps)]
    assert not lacking
    assert "mscl" in deps or {"mscl/config", "mscl/stages"} <= set(deps)  # the code that makes the jobs


def test_an_experiment_shows_in_metrics_and_plots(second):
    run(second, "dvc", "exp", "run", "-S", "config.yaml:models.r18.finetune.epochs=1")
    assert yaml.safe_load((second / "config.yaml").read_text())["models"]["r18"]["finetune"]["epochs"] == 1
    params = json.loads(run(second, "dvc", "params", "diff", "--json"))["config.yaml"]
    assert params == {"models.r18.finetune.epochs": {"old": 2, "new": 1, "diff": -1}}
    metrics = json.loads(run(second, "dvc", "metrics", "diff", "--json", "--all"))["results/demo/report/metrics.json"]
    assert {f"motion_ssv2.r18.{of}" for of in ("mscl.top1", "scratch.probe_top1", "mscl.retrieval_5")} <= set(metrics)
    assert (
        metrics["motion_ssv2.r18.mscl.probe_top1"]["diff"] == 0
    )  # the probe uses the backbone before finetuning, which has not changed
    run(second, "dvc", "plots", "diff", "--out", "plots")
    page = (second / "plots/index.html").read_text()
    assert all(name in page for name in ("r18-mscl-seed0", "r18-scratch-seed0", "finetune_top1.png", "Pretraining loss"))
