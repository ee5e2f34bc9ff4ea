"""The shipped profile on a real Slurm: what each rule requests, which job gets which GPU, and what happens to interrupted jobs."""

import contextlib
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mscl.config.schema import Config, load_config
from mscl.stages import build, jobs
from mscl.stages.table import STAGES, planned
from tests.conftest import ROOT, tiny_config
from tests.workflow import cluster as slurm

PYTHON = Path(sys.executable)
QUICK = ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "20"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    try:
        with slurm.running(tmp_path_factory.mktemp("cluster")) as running:
            yield running
    except slurm.NoCluster as reason:
        pytest.skip(f"no Slurm cluster: {reason}")


def small_config(folder: Path) -> dict:
    """Two methods and two processes per training, with one GPU each if the cluster provides them."""
    config = tiny_config(folder)
    config |= {"methods": ["scratch", "mscl"], "compute": {"device": "auto", "processes": 2}}
    config["datasets"]["kin"]["shards"] = 1
    config["contrast"]["bn_groups"] = 2
    config["models"]["r18"]["pretrain"]["epochs"] = 30
    return config


def submit(cluster, folder: Path, config: Path, *arguments: str, log: str = "out") -> subprocess.Popen:
    """Start Snakemake as a user does on a submit host, here with one core. The output goes to a file, which the tests read."""
    command = ["taskset", "-c", "0", PYTHON, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "all"]
    command += ["--profile", ROOT / "slurm", *QUICK, "-d", folder, *arguments, "--configfile", config]
    with open(folder / f"{log}.txt", "wb") as out:
        return subprocess.Popen(
            [str(c) for c in command],
            env=cluster.environment | {"PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=react_to_ctrl_c,
        )


def react_to_ctrl_c() -> None:
    """Tests that run in the background ignore Ctrl-C, and their child processes would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def until(what, seconds: float, process: subprocess.Popen | None = None):
    """Wait until `what()` is true and return it. Fails after `seconds`, or when `process` ends before."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert process is None or process.poll() is None, "snakemake has ended"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)
    return found


def of_rule(cluster, rule: str, state: str = "") -> list[dict]:
    return [j for j in cluster.jobs() if re.match(rf"rule_{rule}(_wildcards|$)", j.get("Comment", "")) and state in j["JobState"]]


@pytest.fixture(scope="module")
def begun(cluster, tmp_path_factory):
    """The whole pipeline on the cluster, up to the middle of pretraining, whose first attempt is cancelled by `scancel`."""
    folder = tmp_path_factory.mktemp("slurm")
    config = small_config(folder)
    (folder / "my.yaml").write_text(yaml.safe_dump(config))
    process = submit(cluster, folder, folder / "my.yaml")
    try:
        log = folder / "results/logs/pretrain/r18/mscl/seed0.log"
        until(lambda: "epoch 1:" in text(log), 500, process)  # the training loop has started
        time.sleep(1)
        first = of_rule(cluster, "pretrain")[0]["JobId"]
        cluster("scancel", first)
        yield process, folder, config, first
    finally:
        end(process)


@pytest.fixture(scope="module")
def long(cluster, begun, tmp_path_factory):
    """Pretraining that needs more time than the limit of its job, at the same time as the pipeline."""
    folder = tmp_path_factory.mktemp("long")
    config = other(begun[2], folder / "results", processes=1, epochs=100_000)
    config["compute"]["device"] = "cpu"
    (folder / "my.yaml").write_text(yaml.safe_dump(config))
    process = submit(cluster, folder, folder / "my.yaml", "pretrained", "--set-resources", "pretrain:runtime=4")
    yield process, folder
    end(process)


@pytest.fixture(scope="module")
def failing(cluster, begun, tmp_path_factory):
    """Pretraining that must fail, at the same time as the pipeline."""
    folder = tmp_path_factory.mktemp("failing")
    config = other(begun[2], folder / "results", processes=1, batch=32)
    (folder / "my.yaml").write_text(yaml.safe_dump(config))
    process = submit(cluster, folder, folder / "my.yaml", "pretrained", "--retries", "0")
    yield process, folder
    end(process)


@pytest.fixture(scope="module")
def pipeline(begun, failing):
    """The finished pipeline: folder, configuration, output of Snakemake, number of the cancelled job."""
    process, folder, config, first = begun
    process.wait(timeout=700)
    said = text(folder / "out.txt")
    assert process.returncode == 0, said[-6000:]
    return folder, config, said, first


def other(config: dict, results: Path, processes: int, **pretrain) -> dict:
    """A configuration with the data of the pipeline and another folder of results."""
    config = json.loads(json.dumps(config))
    config["paths"]["results"], config["compute"]["processes"] = str(results), processes
    config["models"]["r18"]["pretrain"] |= pretrain
    return config


def end(process: subprocess.Popen) -> None:
    """Stop Snakemake by Ctrl-C, which also cancels its jobs in the queue."""
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(signal.SIGINT)
            process.wait(60)
    if process.poll() is None:
        process.kill()
        process.wait()


def test_training_at_its_time_limit_is_requeued_and_resumes(cluster, long, failing):
    """Slurm's warning signal, a checkpoint, the same job again. Then the user stops Snakemake, and the job is cancelled."""
    process, folder = long
    (number,) = until(lambda: re.findall(r"submitted with SLURM jobid (\d+)", text(folder / "out.txt")), 60, process)
    log = folder / f".snakemake/slurm_logs/rule_pretrain/r18_mscl_0/{number}.log"
    again = rf"time limit reached: Slurm job {number} is back in the queue.*resuming at step [1-9]\d* of 300000"
    until(lambda: re.search(again, text(log), re.S), 240, process)
    job = cluster.job(number)
    assert job["Restarts"] in ("1", "2") and job["TimeLimit"] == "00:04:00"
    assert "Trying to restart" not in text(folder / "out.txt")  # none of Snakemake's retries was used
    process.send_signal(signal.SIGINT)
    until(lambda: "CANCELLED" in cluster.job(number)["JobState"], 60)


CPUS = {"dataset": 2, "pretrain": 2, "finetune": 2}
GPUS = {"pretrain": 2, "finetune": 2, "frozen": 1, "analysis": 1}


def minutes(limit: str) -> int:
    days, _, clock = limit.rpartition("-")
    hours, mins, seconds = map(int, clock.split(":"))
    return int(days or 0) * 1440 + hours * 60 + mins + seconds // 60


def test_every_rule_requests_its_cpus_memory_time_and_gpus_as_one_task(cluster, pipeline):
    folder, settings, _, _ = pipeline
    assert "Table 1" in (folder / "results/report/index.html").read_text()
    rules = {job.stage.name for job in planned(Config.model_validate(settings))}
    assert len(rules) == 11
    for rule in rules:
        found = [j for j in of_rule(cluster, rule, "COMPLETED") if j["WorkDir"] == str(folder)]
        assert found, f"{rule}: no job"
        for job in found:
            again = sum(
                j["StartTime"] < job["StartTime"] for j in of_rule(cluster, rule, "CANCELLED") if j["WorkDir"] == str(folder)
            )
            memory = f"mem={STAGES[rule].memory_mb * (1 + again)}M"  # a retry asks for more
            assert minutes(job["TimeLimit"]) == 60 * STAGES[rule].hours and memory in job["TRES"].split(","), (rule, job)
            assert (job["CPUs/Task"], job["NumTasks"], job["NumNodes"]) == (str(CPUS.get(rule, 1)), "1", "1"), (rule, job)
            asked = job.get("TresPerJob", "gres:gpu:0")
            assert asked == f"gres:gpu:{GPUS.get(rule, 0)}", (rule, asked)


def test_two_gpus_are_one_task_with_torchrun_inside(pipeline):
    folder, _, _, _ = pipeline
    card = json.loads((folder / "results/cards/pretrain/r18/mscl/seed0/run.json").read_text())
    assert card["processes"] == 2
    assert "on 2 x cpu" in text(folder / "results/logs/pretrain/r18/mscl/seed0.log")  # the GPUs are pretended: torch finds none


def test_jobs_that_run_at_the_same_time_have_different_gpus(cluster, pipeline):
    """Two GPUs, and jobs that need one or two: never are more than two in use."""
    events = []
    for job in cluster.jobs():
        if job["JobState"] in ("COMPLETED", "FAILED", "CANCELLED") and (
            asked := re.search(r"gpu:(\d+)", job.get("TresPerJob", ""))
        ):
            events += [
                (job["StartTime"], 1, int(asked[1])),
                (job["EndTime"], 0, -int(asked[1])),
            ]  # at the same time ends are counted first
    used = most = 0
    for _, _, change in sorted(events):
        used += change
        most = max(most, used)
    assert len(events) >= 12 and used == 0 and most == 2


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_cancelled_pretraining_is_retried_with_the_same_result(cluster, pipeline, tmp_path):
    folder, config, said, first = pipeline
    attempts = [j for j in of_rule(cluster, "pretrain") if j["WorkDir"] == str(folder)]
    assert [j["JobState"] for j in attempts] == ["CANCELLED", "COMPLETED"] and attempts[0]["JobId"] == first
    assert f"SLURM-job '{first}' failed, SLURM status is: 'CANCELLED'" in said and "Trying to restart job" in said
    assert "resuming at step" in text(folder / "results/logs/pretrain/r18/mscl/seed0.log")
    job = jobs.dumps(build.pretrain_job(load_config(config), "r18", "mscl", 0))
    command = [PYTHON, "-m", "mscl", "pretrain", "--job", job, "--out", tmp_path, "--processes", "2"]
    subprocess.run([str(c) for c in command], check=True, capture_output=True, timeout=300)
    run = folder / "results/pretrain/r18/mscl/seed0"
    assert sha256(run / "weights.safetensors") == sha256(tmp_path / "weights.safetensors")
    measured = [c for c in pd.read_csv(run / "history.csv") if c.startswith(("loss", "acc"))]
    assert pd.read_csv(run / "history.csv")[measured].equals(pd.read_csv(tmp_path / "history.csv")[measured])


def test_the_error_of_a_failed_job_is_shown_to_the_user(failing):
    process, folder = failing
    assert process.wait(timeout=200) != 0
    said = text(folder / "out.txt")
    assert "error: 24 usable videos in split 'train' are fewer than one batch of 32" in said, said
    logs = re.search(r"^    log: (\S+/logs/pretrain/r18/mscl/seed0.log), (\S+/slurm_logs/\S+/\d+.log)", said, re.M)
    assert logs and all(Path(p).exists() for p in logs.groups()), said


def test_jobs_are_kept_while_the_controller_is_away(cluster, pipeline, tmp_path):
    """Slurm's controller stops in the middle of a training, which ends meanwhile; the next job is submitted when it is back."""
    config = other(pipeline[1], tmp_path / "results", processes=1, epochs=60)
    config["methods"] = ["mscl"]
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    metrics = tmp_path / "results/finetune/ss/r18/mscl/seed0/metrics.json"
    process = submit(cluster, tmp_path, tmp_path / "my.yaml", metrics)
    try:
        until(lambda: "epoch 1:" in text(tmp_path / "results/logs/pretrain/r18/mscl/seed0.log"), 100, process)
        with slurm.without_controller(cluster):
            until(lambda: "controller has not answered for" in text(tmp_path / "out.txt"), 60, process)
            until(lambda: (tmp_path / "results/pretrain/r18/mscl/seed0/weights.safetensors").exists(), 200, process)
        assert process.wait(timeout=200) == 0
    finally:
        end(process)
    said = text(tmp_path / "out.txt")
    assert "the jobs in the queue (1) are kept" in said and "controller answers again, after" in said, said
    assert metrics.exists() and "Trying to restart" not in said


def test_two_tasks_pretrain_one_network_with_the_results_in_place(cluster, pipeline, tmp_path):
    """As on two machines: each Slurm task has its own torchrun, and they meet by rendezvous."""
    config = other(pipeline[1], tmp_path / "results", processes=2, epochs=1)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    own = {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{PYTHON.parent}:{cluster.environment['PATH']}",
        "MSCL_HEAD": "localhost",
        "PROCESSES": "1",
    }
    command = [
        "sbatch",
        "--wait",
        "--ntasks=2",
        "--ntasks-per-node=2",
        "--gpus-per-task=1",
        "--time=10",
        f"--output={tmp_path}/out",
    ]
    command += [ROOT / "slurm/multinode.sh", tmp_path / "my.yaml", "r18", "mscl", "0", "--workers", "0"]
    run = subprocess.run([str(c) for c in command], env=cluster.environment | own, cwd=tmp_path, timeout=300)
    assert run.returncode == 0, text(tmp_path / "out")
    card = json.loads((tmp_path / "results/cards/pretrain/r18/mscl/seed0/run.json").read_text())
    assert card["processes"] == 2 and "2 x 1 processes" in text(tmp_path / "out")
    plan = submit(cluster, tmp_path, tmp_path / "my.yaml", "pretrained", "-n", log="plan")
    assert plan.wait(timeout=100) == 0 and "Nothing to be done" in text(tmp_path / "plan.txt")


RUNS = ("pretrain/r18/mscl/seed0", "finetune/ss/r18/scratch/seed0")


def its_time_is_up(cluster, number: str) -> None:
    """A job has three minutes left, and Slurm's warning comes at once, not up to a minute later."""
    ran = (time.time() - time.mktime(time.strptime(cluster.job(number)["StartTime"], "%Y-%m-%dT%H:%M:%S"))) / 60
    cluster("scontrol", "update", f"JobId={number}", f"TimeLimit={int(ran) + 3}")
    cluster("scancel", "--signal=TERM", number)


def its_node_fails(cluster, number: str, process: subprocess.Popen) -> None:
    """The node of a job goes down, and all that ran for the job dies with it. When the node is back, the job starts again."""
    cluster("scontrol", "update", "NodeName=node", "State=DOWN", "Reason=test")
    slurm.kill_job(cluster, number)
    until(lambda: cluster.job(number)["JobState"] == "PENDING", 60, process)

    def runs_again() -> bool:
        """The node may come back by itself, and then cannot be resumed; Slurm may hold the job, and then somebody releases it."""
        slurm.asked(cluster, "scontrol", "update", "NodeName=node", "State=RESUME")
        slurm.asked(cluster, "scontrol", "release", number)
        return "RUNNING" in cluster.job(number)["JobState"]

    until(runs_again, 120, process)


def test_results_are_the_same_after_time_limit_preemption_requeue_and_node_failure(cluster, pipeline, tmp_path):
    """The pipeline's trainings again, disturbed: finetuning in its test, pretraining all the time."""
    config = other(pipeline[1], tmp_path / "results", processes=2)
    config["compute"]["device"] = "cpu"
    config["models"]["r18"]["finetune"] |= {"test_clips": 200}  # a test of some seconds; the training is the pipeline's
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    weights = [Path("results") / run / "weights.safetensors" for run in RUNS]
    pretrain, finetune = (tmp_path / f"results/logs/{run}.log" for run in RUNS)
    process = submit(cluster, tmp_path, tmp_path / "my.yaml", *(str(tmp_path / path) for path in weights))

    def running(rule: str) -> str:
        return until(lambda: [j for j in of_rule(cluster, rule, "RUNNING") if j["WorkDir"] == str(tmp_path)], 200, process)[0][
            "JobId"
        ]

    try:
        until(lambda: "epoch 2:" in text(finetune), 100, process)
        time.sleep(1)
        its_time_is_up(cluster, limited := running("finetune"))
        until(lambda: "time limit reached" in text(finetune), 200, process)
        cluster("scontrol", "update", f"JobId={limited}", "TimeLimit=60")  # or its next start is warned at once
        until(lambda: "epoch 1:" in text(pretrain), 100, process)
        cluster("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true")
        until(lambda: text(pretrain).count("resuming at step") == 1, 200, process)
        cluster("scontrol", "requeue", number := running("pretrain"))  # soon after its start
        until(lambda: text(pretrain).count("resuming at step") == 2, 200, process)
        its_node_fails(cluster, number, process)
        assert process.wait(timeout=300) == 0, text(tmp_path / "out.txt")[-4000:]
    finally:
        end(process)
    assert "stopped after" in text(finetune) and re.search(r"going on after [1-9]\d* of 12 videos", text(finetune))
    assert int(cluster.job(number)["Restarts"]) >= 3 and cluster.job(number)["JobState"] == "COMPLETED"
    assert [sha256(tmp_path / path) for path in weights] == [sha256(pipeline[0] / path) for path in weights]
    said = text(tmp_path / "out.txt")
    assert f"Slurm has put job {number} (r18/mscl/s0 pretrain) back into the queue" in said and "Trying to restart" not in said


def test_a_job_that_used_more_than_its_memory_is_retried_with_more(cluster, pipeline, tmp_path):
    config = other(pipeline[1], tmp_path / "results", processes=1, epochs=1)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    memory = "pretrain:mem_mb=100 if attempt == 1 else 16000"
    process = submit(cluster, tmp_path, tmp_path / "my.yaml", "pretrained", "--set-resources", memory)
    try:
        assert process.wait(timeout=300) == 0, text(tmp_path / "out.txt")[-4000:]
    finally:
        end(process)
    said = text(tmp_path / "out.txt")
    assert "message: error: out of memory: Slurm ended this job, which had asked for 100 MB" in said, said
    assert '--set-resources "pretrain:mem_mb=200*attempt"' in said and "Trying to restart job" in said
