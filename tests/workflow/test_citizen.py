"""What users of Snakemake expect of a workflow: reports, use as a module, other environments, clear failures."""

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

from tests.conftest import ROOT, tiny_config
from tests.workflow.conftest import rules_planned, run_snakemake

STUB = """#!/bin/bash
# A stub for apptainer, which may not be installed: runs the command with another python first on the path.
if [ "$1" = --version ]; then echo "apptainer version 1.3.0"; exit; fi
while [ "$1" != -c ]; do shift; done
PATH="{folder}/within:$PATH" exec bash -c "$2"
"""
PYTHON_WITHIN = '#!/bin/bash\necho the python of the image\nexec "{python}" "$@"\n'


def test_snakemakes_own_report_holds_page_tables_figures_and_captions(finished, tmp_path):
    folder = finished[0]
    run = run_snakemake(folder, "--report", tmp_path / "report.zip")
    assert run.returncode == 0, run.stdout + run.stderr
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
        text = "".join(
            archive.read(name).decode(errors="replace") for name in archive.namelist() if name.endswith((".js", ".html"))
        )
    expected = {
        "index.html",
        "table1.csv",
        "table2.csv",
        "table3.csv",
        "unusable.csv",
        "pairs.csv",
        "fig1.png",
        "finetune_top1.png",
    }
    assert expected <= names
    for said in ("copied from papers", "confuses", "last residual stage", "cannot be compared between methods"):
        assert said in text


def test_every_job_is_measured_and_the_report_counts_it(finished):
    from mscl.config.schema import load_config
    from mscl.stages.layout import Layout
    from mscl.stages.table import planned

    folder, config, _ = finished
    asked = load_config(config)
    wanted = {Layout(asked).benchmark(job.stage.name, job.values) for job in planned(asked)}
    assert {p.relative_to(folder).as_posix() for p in (folder / "results/benchmarks").rglob("*.tsv")} == wanted
    used = (folder / "results/report/cards/used.csv").read_text()
    assert "finetune,4," in used and "frames,3," in used
    page = (folder / "results/report/index.html").read_text()
    assert "Compute used" in page and "measurement in results/benchmarks" not in page


def test_as_a_module_of_another_workflow(finished, tmp_path):
    """The rules run in another folder, renamed, with the configuration of the other workflow."""
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"mscl": tiny_config(Path("."))}))
    (tmp_path / "Snakefile").write_text(f"""
configfile: "my.yaml"

module mscl:
    snakefile: {str(ROOT / "workflow" / "Snakefile")!r}
    config: config["mscl"]

use rule * from mscl as mscl_*

rule mine:
    default_target: True
    input: rules.mscl_report.output.html, manifest="data/manifests/ss.parquet"
    output: "mine.txt"
    shell: "echo {{input.manifest:q}} > {{output:q}}"
""")
    plan = rules_planned(run_snakemake(tmp_path, "-n"))
    assert plan["mine"] == 1 and plan["mscl_finetune"] == 4 and plan["mscl_report"] == 1
    run = run_snakemake(tmp_path, "data/manifests/ss.parquet")
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "data/manifests/ss.parquet").stat().st_size


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_in_a_container_its_python_runs_the_stages_and_finds_the_package(tmp_path):
    executable(tmp_path / "bin/apptainer", STUB.format(folder=tmp_path))
    executable(tmp_path / "within/python", PYTHON_WITHIN.format(python=sys.executable))
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny_config(Path("."))))
    command = f"snakemake data/datasets/ss.json -s {ROOT}/Snakefile --cores 1 --sdm apptainer --configfile my.yaml"
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": ""}
    run = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=tmp_path, capture_output=True, text=True, env=os.environ | path
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "the python of the image" in (tmp_path / "results/logs/dataset/ss.log").read_text()


def test_a_failed_job_reports_the_reason_and_its_log(finished, tmp_path):
    folder = tmp_path / "tree"
    shutil.copytree(finished[0], folder)
    (folder / "data/manifests/ss.parquet").write_bytes(b"broken")
    run = run_snakemake(folder, "data/frames/ss/0000.parquet", "-R", "frames", "--show-failed-logs")
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert "log: results/logs/frames/ss/0000.log (check log file(s) for error details)" in said
    shown = said.split("Logfile results/logs/frames/ss/0000.log:")[1]
    assert "error: data/manifests/ss.parquet: not a readable manifest, make it again" in shown
    assert "Traceback" not in shown
    assert not (folder / "data/frames/ss/0000.parquet").exists()
