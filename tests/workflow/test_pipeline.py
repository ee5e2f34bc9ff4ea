"""The real Snakefile, from videos to the report, and its behaviour on errors."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, tiny_config
from tests.workflow.conftest import copy_code, rules_planned, run_snakemake

PYTHON = Path(sys.executable)


def snakemake(folder: Path, *arguments: str, config: dict | None = None) -> subprocess.CompletedProcess:
    """Run the workflow of this checkout in `folder`, as a user would, with `config` as its complete configuration."""
    path = folder / "my.yaml"
    if config is not None:
        path.write_text(yaml.safe_dump(config))
    command = [PYTHON, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "2"]
    command += ["-d", folder, *arguments, "--configfile", path]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600)


def test_it_writes_every_table_figure_and_card(finished):
    folder, _, _ = finished
    report = folder / "results/report"
    page = (report / "index.html").read_text()
    assert all(word in page for word in ("Table 1", "Table 2", "MoDist", "demo"))
    for table in ("table1", "table2"):
        assert all((report / "tables" / f"{table}.{suffix}").stat().st_size for suffix in ("csv", "md", "tex"))
    assert list((report / "figures").glob("*fig*.png")) and len(list((report / "cards").glob("*.json"))) == 12
    table = pd.read_csv(report / "tables/table1.csv")
    assert len(table) == 4 and set(table.origin) == {"measured"}
    assert len(pd.read_csv(report / "tables/table1_published.csv")) == 6


def test_the_broken_and_the_missing_video_are_rows_with_reasons(finished):
    folder, _, ids = finished
    rows = {r["clip_id"]: r for r in json.loads((folder / "results/data.json").read_text())["ss"]["not_ok"]}
    assert set(rows) == set(ids[:2])
    assert rows[ids[0]]["status"] == "broken" and rows[ids[0]]["reason"]
    assert rows[ids[1]]["status"] == "missing" and rows[ids[1]]["reason"]
    predictions = pd.read_parquet(folder / "results/finetune/ss/r18/mscl/seed0/predictions.parquet").set_index("clip_id")
    assert len(predictions) == 12 and (predictions.loc[ids[:2], "status"] != "ok").all()
    assert json.loads((folder / "results/finetune/ss/r18/mscl/seed0/metrics.json").read_text())["videos"] == 10


def test_a_second_run_has_nothing_to_do(finished):
    folder, _, _ = finished
    run = run_snakemake(folder)
    assert run.returncode == 0 and "Nothing to be done" in run.stdout + run.stderr


def test_a_run_card_names_its_inputs_by_hash(finished):
    from mscl.stages.runcard import sha256

    folder, _, _ = finished
    card = json.loads((folder / "results/cards/finetune/ss/r18/mscl/seed0/run.json").read_text())
    weights = "results/pretrain/r18/mscl/seed0/weights.safetensors"
    assert card["inputs"][weights] == sha256(folder / weights)
    assert card["seed"] == 0 and card["wall_seconds"] > 0 and card["versions"]["torch"] and card["hardware"]["cpu"]


def test_a_wrong_key_stops_before_anything_runs(tmp_path):
    config = tiny_config(tmp_path)
    config["models"]["r18"]["pretrain"]["epoch"] = 3
    run = snakemake(tmp_path, "-n", config=config)
    assert run.returncode != 0
    assert "models.r18.pretrain.epoch: unknown key; did you mean 'epochs'?" in run.stdout + run.stderr


def test_missing_data_is_planned_and_then_refused_before_any_job(tmp_path):
    config = tiny_config(tmp_path)
    config["datasets"]["ss"].pop("embedded")
    config["datasets"]["ss"]["root"] = str(tmp_path / "nowhere")
    assert rules_planned(snakemake(tmp_path, "-n", config=config))["dataset"] == 2
    run = snakemake(tmp_path, config=config)
    said = run.stdout + run.stderr
    assert run.returncode != 0 and "Traceback" not in said, said
    assert (
        "datasets.ss.root: no folder" in said and "register for Something-Something v2" in said and "no job was started" in said
    ), said
    assert not (tmp_path / "data" / "datasets").exists()


def test_the_papers_plan_and_the_slurm_profile_resolve():
    """`-n` needs neither data nor a cluster."""

    def dry(*arguments):
        command = [str(PYTHON), "-m", "snakemake", "--cores", "all", "-n", "--nolock", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)

    plan = rules_planned(dry("--configfile", "config/paper.yaml"))
    assert (plan["frames"], plan["flow"], plan["pretrain"], plan["finetune"]) == (816, 512, 10, 36)
    assert rules_planned(dry("--profile", "slurm", "--forceall"))["pretrain"] == 3


def again(finished, tmp_path, **compute):
    """A copy of the finished run with another folder of results, so that training must run again."""
    folder, config, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    paths = config["paths"] | {"results": "again"}
    return tmp_path / "copy", copy.deepcopy(config) | {"compute": compute, "paths": paths}


def test_jobs_on_a_workstation_share_its_gpus_in_turn(finished, tmp_path, monkeypatch):
    """One GPU (pretended: torch finds none and uses the CPU), two cores, two jobs that need the GPU, no --resources."""
    folder, config = again(finished, tmp_path, device="auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    targets = [f"again/{stage}/ss/r18/scratch/seed0/metrics.json" for stage in ("finetune", "frozen")]
    run = run_snakemake(folder, *targets, config=config)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    events = re.findall(r"^(?:Job \d+: (?:Finetuning|Evaluating)|Finished jobid: \d+)", said, re.M)
    assert [event.split()[0] for event in events] == ["Job", "Finished", "Job", "Finished"], said


def test_draws_of_few_videos_go_through_the_rules(finished, tmp_path):
    """A target with linear evaluation and two draws, on data and frames that are there."""
    folder, config = again(finished, tmp_path, device="cpu")
    few = {"dataset": "ss", "per_class": 1, "draws": 2, "measures": ["linear", "knn"], "linear": {"epochs": 1, "warmup": 0}}
    config |= {"methods": ["scratch"], "targets": [few]}
    run = run_snakemake(folder, config=config)
    assert run.returncode == 0, run.stdout + run.stderr
    assert rules_planned(run_snakemake(folder, "-n", "--forcerun", "embed", config=config)) == {
        "embed": 1,
        "frozen": 2,
        "report": 1,
        "all": 1,
    }
    table = (folder / "again/report/tables/table3.csv").read_text().splitlines()
    assert len(table) == 2 and table[1].startswith('"ss, mean of 2 draws",r18,scratch,demo,1,')
    card = json.loads((folder / "again/cards/linear/ss-draw2/r18/scratch/seed0/run.json").read_text())
    assert card["stage"] == "linear" and card["job"]["few"] == {"examples": None, "per_class": 1, "draw": 2}
    verified = subprocess.run(
        [str(PYTHON), "-m", "mscl", "verify", "again", "--quick"], cwd=folder, capture_output=True, text=True
    )
    assert "differences: 0" in verified.stdout, verified.stdout


def test_too_few_gpus_are_reported_before_anything_runs(tmp_path, monkeypatch):
    copy_code(tmp_path)
    config = tiny_config(Path(".")) | {"compute": {"device": "auto", "processes": 4}}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    run = run_snakemake(tmp_path, "pretrained", config=config)
    said = run.stdout + run.stderr
    assert run.returncode != 0 and not (tmp_path / "data").exists()
    assert "a job needs 4 GPU(s) (compute.device: auto, in 4 processes), but only 3 can be used here" in said
    plan = rules_planned(run_snakemake(tmp_path, "-n", "pretrained", config=config))
    assert plan["pretrain"] == 3  # a dry run may plan for another machine


@pytest.mark.parametrize("processes", [1, 4, 8])
def test_the_papers_plan_can_run_on_1_4_and_8_gpus(processes, tmp_path):
    """A dry run with this many GPUs. R18 has 4 batch-norm groups and so uses 4 of 8."""
    config = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    config["compute"]["processes"] = processes
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "all", "--configfile", "my.yaml"]
    command += ["-n", "--resources", f"gpu={processes}", "--printshellcmds", "pretrained"]
    run = subprocess.run([str(c) for c in command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    asked = re.findall(r"Pretraining (r18|r50) by (?:.|\n)*?--processes (\d+)", run.stdout + run.stderr)
    assert len(asked) == 10 and set(asked) == {("r18", str(min(4, processes))), ("r50", str(processes))}
