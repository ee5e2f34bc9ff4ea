"""A tracker gets the curves of a training, and changes nothing else: not the weights, not the settings, not the time; if it fails, that is said once."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import warnings

import pandas as pd
import pytest

from mscl.config.schema import load_config
from mscl.config.tracking import TRACKERS
from mscl.config.validation import ConfigError
from mscl.stages import build
from mscl.stages.jobs import dumps
from mscl.stages.layout import Layout
from mscl.stages.table import planned
from mscl.training.engine import Machine
from mscl.training.pretrain import pretrain
from mscl.watch import tracking
from mscl.watch.tracking import ASKED, Tracking

OWN = '''
import json, os, time
from pathlib import Path

class lines:
    """A tracker of one's own: a line of JSON per point."""
    def __init__(self, project, run):
        self.file = Path(f"{project}-{run.replace('/', '-')}.jsonl").open("a")
    def log(self, values, step):
        self.file.write(json.dumps({"step": step} | values) + "\\n")
    def finish(self):
        self.file.close()

class at_start:
    def __init__(self, project, run):
        raise RuntimeError("no account")

class at_a_point(lines):
    def log(self, values, step):
        raise OSError(28, "No space left on device")

class leaves(lines):
    def log(self, values, step):
        raise SystemExit("not logged in")

class hangs(lines):
    def finish(self):
        time.sleep(60)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder with a file of trackers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_tracker.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_tracker", None)


def trained(prepared, out, curves=None) -> bytes:
    """The bytes of the weights."""
    pretrain(build.pretrain_job(prepared, "r18", "moco", 0), out, Machine(curves=curves))
    return (out / "weights.safetensors").read_bytes()


def test_the_points_of_a_training_arrive_and_the_weights_stay_the_same(prepared, own, monkeypatch):
    plain = trained(prepared, own / "plain")
    monkeypatch.setenv(ASKED, "own_tracker:lines")
    config = load_config(prepared.model_dump(mode="json") | {"paths": {"data": str(prepared.paths.data), "results": "tracked"}})
    curves = own / Layout(config).curves("pretrain", {"model": "r18", "method": "moco", "seed": 0})
    assert trained(prepared, own / "with", curves) == plain
    points = [json.loads(line) for line in (own / "tracked-pretrain-r18-moco-seed0.jsonl").read_text().splitlines()]
    history = pd.read_csv(own / "with" / "history.csv")
    losses = {point["step"]: point["epoch/loss"] for point in points if "epoch/loss" in point}
    assert losses == pytest.approx(dict(zip([3, 6], history.loss)))  # 24 videos in batches of 8
    assert all(point["speed/clips_per_second"] > 0 for point in points if "step/loss" in point)
    assert any("step/loss" in point for point in points) and any(curves.iterdir())  # TensorBoard's stay


@pytest.mark.parametrize(("name", "why"), [
    ("own_tracker:at_start", "no account"),
    ("own_tracker:at_a_point", "No space left on device"),
    ("own_tracker:leaves", "not logged in"),
    ("own_tracker:nothing", "has no 'nothing'"),
    ("no_such_module:lines", "no module 'no_such_module'"),
])  # fmt: skip
def test_a_tracker_that_fails_is_said_once_and_the_training_ends_well(prepared, own, monkeypatch, name, why):
    monkeypatch.setenv(ASKED, name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert trained(prepared, own / "out", own / "tensorboard" / "run")
    told = [str(w.message) for w in said if "compute.tracking" in str(w.message)]
    assert len(told) == 1 and told[0].startswith(f"compute.tracking: {name} gets no more points (") and why in told[0]
    assert told[0].endswith("training goes on without it")


def test_a_tracker_that_hangs_is_left_behind(own, monkeypatch):
    monkeypatch.setattr(tracking, "LEAVE_AFTER", 0.2)
    before = set(threading.enumerate())  # of other tests in this process
    with pytest.warns(UserWarning, match="it has not taken all points 0.2 s after the training"):
        Tracking("own_tracker:hangs", own).close()
    left = set(threading.enumerate()) - before
    assert left and all(thread.daemon for thread in left)  # the end of the process does not wait for it


def test_points_are_not_collected_for_a_tracker_that_is_gone(own):
    with pytest.warns(UserWarning, match="no account"):
        gone = Tracking("own_tracker:at_start", own)
        gone._thread.join()
    for number in range(10):
        gone.add({"loss": 1.0}, number)
    assert gone._points.empty()


def test_no_job_has_it_among_its_settings(prepared):
    values = prepared.model_dump(mode="json")
    other = load_config(values | {"compute": values["compute"] | {"tracking": "trackio"}})
    jobs = [[dumps(job.stage.settings(config, job.values)) for job in planned(config)] for config in (prepared, other)]
    assert jobs[0] == jobs[1] and len(jobs[0]) > 10


def test_the_configuration_knows_the_trackers(own, prepared):
    values = prepared.model_dump(mode="json")
    for name in (*TRACKERS, "own_tracker:lines", None):
        assert load_config(values | {"compute": {"tracking": name}}).compute.tracking == name
    for wrong, says in {"trackoi": "did you mean 'trackio'", "own_tracker:no": "has no 'no'", "x; rm": "unknown tracker"}.items():
        with pytest.raises(ConfigError, match=says):
            load_config(values | {"compute": {"tracking": wrong}})


def test_without_being_asked_no_tracker_is_imported(own):
    assert tracking.asked_for(own) == [] and not {"trackio", "wandb", "mlflow"} & {m for m in sys.modules if m in TRACKERS}


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_library_gets_the_points_of_a_run_that_resumes(name, own):
    """Where the library is installed; in a process of its own, which has its variables from the start, and with folders alone."""
    pytest.importorskip(name)
    code = (
        "import sys; from pathlib import Path; from mscl.watch import tracking; tracking.LEAVE_AFTER = 60\n"
        "made = tracking.Tracking(sys.argv[1], Path('results/demo/tensorboard/pretrain/r18/mscl/seed0'))\n"
        "for n in map(int, sys.argv[2:]): made.add({'epoch/loss': 1.0 / n, 'step/loss': 2.0 / n}, n)\n"
        "made.close()"
    )
    folders = {"TRACKIO_DIR": str(own / "trackio"), "WANDB_MODE": "offline", "WANDB_DIR": str(own), "HF_HUB_OFFLINE": "1"}
    folders |= {"MLFLOW_TRACKING_URI": f"sqlite:///{own}/mlflow.db", "HOME": str(own)}
    for steps in (["3", "6"], ["9"]):
        run = subprocess.run(
            [sys.executable, "-c", code, name, *steps],
            cwd=own,
            env=os.environ | folders,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert run.returncode == 0 and "compute.tracking" not in run.stderr, run.stdout + run.stderr
    assert found_by[name](own) == {3: 1 / 3, 6: 1 / 6, 9: 1 / 9}


def of_trackio(own) -> dict[int, float]:
    database = next((own / "trackio").glob("demo*.db"))
    rows = sqlite3.connect(database).execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert {name for name, *_ in rows} == {"pretrain/r18/mscl/seed0"}
    return {step: json.loads(metrics)["epoch/loss"] for _, step, metrics in rows}


def of_mlflow(own) -> dict[int, float]:
    database = sqlite3.connect(own / "mlflow.db")
    assert database.execute("select name from runs").fetchall() == [("pretrain/r18/mscl/seed0",)]  # resumed, not a second one
    assert ("demo",) in database.execute("select name from experiments").fetchall()
    return dict(database.execute("select step, value from metrics where key = 'epoch/loss' order by step").fetchall())


def of_wandb(own) -> dict[int, float]:
    """The steps whose loss, as written, is in the files of the two processes, which are sent later under one name."""
    files = [path.read_bytes() for path in own.glob("wandb/offline-run-*-pretrain-r18-mscl-seed0/*.wandb")]
    assert len(files) == 2
    return {step: 1 / step for step in (3, 6, 7, 9) if f"{1 / step}".encode() in b"".join(files)}


found_by = {"trackio": of_trackio, "mlflow": of_mlflow, "wandb": of_wandb}
