"""Restoring a fresh clone from a folder and from an S3 server, in full or only for the tables; and the error messages."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import attempt, commit, rules_planned, run

RESTORE = ("python", "-m", "workflow.restore")
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def clone_of(source: Path, to: Path) -> Path:
    run(to.parent, "git", "clone", "-q", str(source), str(to))
    return to


@pytest.fixture(scope="module")
def pushed(reproduced, tmp_path_factory) -> Path:
    """A git repository to clone, whose results were pushed to a DVC remote that is a folder."""
    base = tmp_path_factory.mktemp("pushed")
    source = base / "source"
    shutil.copytree(reproduced, source, ignore=shutil.ignore_patterns("videos"))
    run(source, "dvc", "remote", "add", "--default", "storage", str(base / "remote"))
    run(source, "dvc", "push")
    commit(source, "a remote")
    return source


@pytest.fixture
def fresh(pushed, tmp_path) -> Path:
    """A fresh clone with its own copy of the remote, which a test may damage."""
    folder = clone_of(pushed, tmp_path / "fresh")
    shutil.copytree(pushed.parent / "remote", tmp_path / "remote")
    run(folder, "dvc", "remote", "modify", "storage", "url", str(tmp_path / "remote"))
    return folder


def refused(folder: Path, *arguments: str, **environment: str) -> str:
    done = attempt(folder, *RESTORE, *arguments, **environment)
    said = done.stderr.strip().splitlines()
    assert done.returncode == 1 and said and said[-1].startswith("error: ") and "Traceback" not in done.stderr, done.stderr
    return said[-1]


def object_of(folder: Path, path: str) -> Path:
    """The object of a recorded single file in the remote of `fresh`."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    md5 = next(out["md5"] for stage in lock["stages"].values() for out in stage["outs"] if out["path"] == path)
    return folder.parent / "remote/files/md5" / md5[:2] / md5[2:]


def test_a_fresh_clone_is_restored_without_videos_and_nothing_is_left_to_do(pushed, tmp_path):
    folder = clone_of(pushed, tmp_path / "fresh")
    assert "nothing to be done" in run(folder, *RESTORE) and not (folder / "data/demo/videos").exists()
    assert "Nothing to be done" in run(folder, "snakemake", "--cores", "1", "-n")
    assert "Data and pipelines are up to date" in run(folder, "dvc", "status")
    assert "differences: 0, missing inputs: 0" in run(folder, "python", "-m", "mscl", "verify", "results/demo")
    run(folder, "snakemake", "--cores", "1", "--forcerun", "report", "--quiet", "all")
    assert "Data and pipelines are up to date" in run(folder, "dvc", "status")  # the same report, byte for byte
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["models"]["r18"]["finetune"]["lr"] = 0.003
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    plan = rules_planned(attempt(folder, "snakemake", "--cores", "1", "-n"))
    assert plan == {"finetune": 2, "analysis": 1, "report": 1, "all": 1}  # Snakemake knows the settings of the restored results
    assert "config.yaml: models: changed since dvc.lock was written" in refused(folder)


def test_the_tables_come_from_an_s3_server_without_data_or_weights(pushed, tmp_path):
    from moto.server import ThreadedMotoServer

    folder, source = clone_of(pushed, tmp_path / "tables"), tmp_path / "source"
    shutil.copytree(pushed, source)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        make_bucket(endpoint)
        for place in (source, folder):
            run(place, "dvc", "remote", "add", "--local", "--default", "bucket", "s3://results/mscl")
            run(place, "dvc", "remote", "modify", "--local", "bucket", "endpointurl", endpoint)
        assert "cannot be read: Unable to locate credentials" in refused(folder, **no_keys(tmp_path))
        assert "the first is the file list of data/demo/" in refused(folder, **KEYS)  # nothing has been pushed yet
        assert "files pushed" in run(source, "dvc", "push", **KEYS)
        said = run(folder, *RESTORE, "--only", "tables", **KEYS)
        assert "Table 1" in said and "rebuilt: all hashes are those recorded in dvc.lock" in said and "s3://results/mscl" in said
        assert not (folder / "data").exists() and not list(folder.rglob("*.safetensors"))
        mine, theirs = (p / "results/demo/report/tables/table1.csv" for p in (folder, source))
        assert mine.read_bytes() == theirs.read_bytes()
        run(folder, "dvc", "pull", "--force", **KEYS)  # the rest, with DVC alone
        assert "Data and pipelines are up to date" in run(folder, "dvc", "status", **KEYS)
    finally:
        server.stop()


def make_bucket(endpoint: str) -> None:
    import boto3

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="results")


def no_keys(folder: Path) -> dict[str, str]:
    """Environment variables with which no credentials are found."""
    nowhere = str(folder / "no such file")
    return {"AWS_SHARED_CREDENTIALS_FILE": nowhere, "AWS_CONFIG_FILE": nowhere, "AWS_EC2_METADATA_DISABLED": "true"}


def test_a_missing_remote_is_reported_in_one_sentence(fresh):
    shutil.rmtree(fresh.parent / "remote")
    assert "no such folder; mount it" in refused(fresh)
    assert "there is no DVC remote 'other' (known: storage)" in refused(fresh, "--remote", "other")
    run(fresh, "dvc", "remote", "remove", "storage")
    assert "no DVC remote is set: dvc remote add --default storage" in refused(fresh)
    (fresh / "dvc.lock").unlink()
    assert "dvc.lock: missing, so no results are recorded; run `dvc repro`" in refused(fresh)


def test_a_missing_or_damaged_object_in_the_remote_is_reported(fresh):
    """A missing object, then a damaged one: both are refused. With the right object it works."""
    path = "results/demo/data.json"
    stored = object_of(fresh, path)
    right = stored.read_bytes()
    stored.unlink()
    said = refused(fresh)
    assert (
        "does not have 1 of " in said and f"the first is {path} (md5 {stored.parent.name}{stored.name}); run `dvc push`" in said
    )
    stored.write_bytes(b"0" * len(right))
    stored.chmod(0o444)  # as DVC leaves it: DVC does not check the hash of a read-only object
    said = refused(fresh)
    assert f"{path}: expected md5 {stored.parent.name}{stored.name}, found " in said and not (fresh / path).exists()
    stored.chmod(0o644)
    stored.write_bytes(right)
    assert "nothing to be done" in run(fresh, *RESTORE)


def test_a_damaged_file_list_is_reported(fresh):
    listed = object_of(fresh, "results/demo/pretrain")
    listed.chmod(0o644)
    listed.write_text(listed.read_text()[:-5])
    assert "the file list of results/demo/pretrain is damaged there; delete it there and run `dvc push`" in refused(fresh)


def test_a_local_file_is_only_replaced_with_force(fresh):
    mine = fresh / "results/demo/pretrain/r18/mscl/seed0/weights.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"weeks of work")
    assert "seed0/weights.safetensors: exists and differs from the file recorded in dvc.lock; move it away" in refused(fresh)
    assert mine.read_bytes() == b"weeks of work"
    assert "nothing to be done" in run(fresh, *RESTORE, "--force") and len(mine.read_bytes()) > 1000


def test_results_of_other_code_are_refused(fresh):
    code = fresh / "mscl/flow/mds.py"
    code.write_text(code.read_text() + "EDITED = True\n")
    said = refused(fresh)
    assert "mscl/flow" in said and "changed since dvc.lock was written" in said and not (fresh / "results").exists()


def verify(folder: Path, *arguments: str) -> tuple[int, str]:
    done = attempt(folder, "python", "-m", "mscl", "verify", "results/demo", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_verify_names_what_differs(copy):
    """One byte of weights, one setting, one line of code, a missing output: each is named, with the expected and the actual value."""
    assert verify(copy)[0] == 0
    weights = copy / "results/demo/finetune/motion_ssv2/r18/mscl/seed0/weights.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    card = json.loads((copy / "results/demo/cards/finetune/motion_ssv2/r18/mscl/seed0/run.json").read_text())
    expected = card["outputs"][str(weights.relative_to(copy))]
    code, said = verify(copy)
    assert (
        code == 1
        and f"{weights.relative_to(copy)} (output of results/demo/cards/finetune" in said
        and f"expected {expected}, found " in said
    )
    assert "differences: 2," in said  # the analysis has read these weights as well
    weights.unlink()
    assert "found no such file" in verify(copy)[1]
    weights.write_bytes(right)

    settings = copy / "config.yaml"
    text = settings.read_text()
    config = yaml.safe_load(text)
    config["contrast"]["temperature"] = 0.25
    settings.write_text(yaml.safe_dump(config))
    code, said = verify(copy)
    assert code == 1 and "contrast.temperature (configuration of results/demo/cards/pretrain" in said
    assert "expected 0.1, found 0.25" in said and "differences: 1," in said
    settings.write_text(text)

    module = copy / "mscl/measures/retrieval.py"
    module.write_text(module.read_text() + "# A comment makes no difference.\n")
    assert verify(copy)[0] == 0
    module.write_text(module.read_text() + "EDITED = True\n")
    code, said = verify(copy)
    assert code == 1 and said.count("mscl/measures/retrieval.py (code of results/demo/cards/frozen/") == 2
    assert "differences: 2," in said


def test_verify_distinguishes_missing_inputs_from_wrong_ones(copy):
    shutil.rmtree(copy / "data/demo/frames")
    code, said = verify(copy)
    assert code == 0 and "missing: data/demo/frames/" in said and "differences: 0," in said
    assert verify(copy, "--strict")[0] == 1
    code, said = verify(copy, "--config", "config/paper.yaml")
    assert code == 0 and "files against no configuration (config/paper.yaml belongs to other results" in said
    (copy / "results/demo/cards/analysis/motion_ssv2/r18/run.json").write_text("{")
    code, said = verify(copy)
    assert code == 1 and "run.json: not a valid run card; run its stage again" in said
    (copy / "results/demo/cards/finetune/motion_ssv2/r18/mscl/seed0/run.json").unlink()
    assert "mscl/seed0/run.json: missing; this run of the configuration has not finished" in verify(copy)[1]
    shutil.rmtree(copy / "results")
    assert "no run card (run.json) in this folder" in verify(copy)[1]
