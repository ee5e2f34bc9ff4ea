"""What a stranger gets: experiments of one's own, a remote on a plain web server, and one archive; and attacks on these."""

import functools
import hashlib
import io
import json
import shutil
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import attempt, commit, run
from tests.workflow.test_restore import RESTORE, clone_of, refused

BUNDLE = ("python", "-m", "workflow.bundle")
ONLY_DATA = "only data/demo/downloads, data/demo/datasets, data/demo/manifests, data/demo/frames, data/demo/flow not restored"


@pytest.fixture(scope="module")
def source(reproduced, tmp_path_factory) -> Path:
    """A copy of the repository with results, which has no remote."""
    folder = tmp_path_factory.mktemp("share") / "source"
    shutil.copytree(reproduced, folder)
    return folder


@pytest.fixture(scope="module")
def bundle(source) -> Path:
    assert "at commit " in run(source, *BUNDLE)
    return source / "mscl-demo.tar"


def add_experiment(folder: Path, name: str, **changes) -> None:
    """A configuration with data of its own, written as a user would, and its DVC stages."""
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"name": name, "methods": ["scratch"]} | changes
    for dataset, settings in config["datasets"].items():
        settings["root"] = f"data/own/videos/{dataset}"
    config["paths"] = {"data": "data/own", "results": f"results/{name}"}
    (folder / f"config/{name}.yaml").write_text(yaml.safe_dump(config))
    run(folder, "python", "-m", "mscl", "dvc", f"config/{name}.yaml")


def test_a_new_experiment_is_run_pushed_and_restored_in_a_fresh_clone(source, tmp_path):
    """Two experiments share their data: only the second is restored, with the data that the stages of the first have made."""
    one = tmp_path / "one"
    shutil.copytree(source, one, ignore=shutil.ignore_patterns("*.tar"))
    add_experiment(one, "own")
    run(one, "snakemake", "--cores", "2", "--configfile", "config/own.yaml", "--quiet", "all")
    run(one, "dvc", "commit", "--force", "experiments/own/dvc.yaml")  # run before without DVC: recorded as it is
    add_experiment(one, "second", seeds=[1])
    said = run(one, "dvc", "repro", "experiments/second/dvc.yaml")
    assert "experiments/own/dvc.yaml:frames-motion_ssv2' didn't change" in said and "second/dvc.yaml:finetune'" in said
    run(one, "dvc", "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    commit(one, "two experiments")
    run(one, "dvc", "push", "experiments/second/dvc.yaml", "--with-deps")

    fresh = clone_of(one, tmp_path / "fresh")
    said = run(fresh, *RESTORE, "--experiment", "second")
    assert "experiments/second/dvc.lock\n" in said and "nothing to be done; dvc status: up to date" in said
    assert sorted(p.name for p in (fresh / "results").iterdir()) == ["second"]
    assert sorted(p.name for p in (fresh / "data/own/frames").iterdir()) == ["motion_ssv2"]  # nothing is pretrained
    assert "Nothing to be done" in run(fresh, "snakemake", "--cores", "1", "-n", "--configfile", "config/second.yaml")
    assert "up to date" in run(fresh, "dvc", "status", "--with-deps", "experiments/second/dvc.yaml")
    assert "differences: 0" in run(fresh, "python", "-m", "mscl", "verify", "results/second", "config/second.yaml")
    assert "experiments/third/dvc.yaml: missing (experiments here: own, second)" in refused(fresh, "--experiment", "third")

    settings = fresh / "config/second.yaml"
    text = settings.read_text()
    settings.write_text(text.replace("seeds:\n- 1", "seeds:\n- 2"))
    done = attempt(fresh, "python", "-m", "workflow.recorded", "--experiment", "second")
    assert done.returncode == 1 and "experiments/second/dvc.yaml:finetune  config/second.yaml: seeds" in done.stdout
    assert "dvc repro experiments/second/dvc.yaml && git add experiments/own/dvc.lock experiments/second/dvc.lock" in done.stdout
    settings.write_text(text.replace("data/own\n", "data/elsewhere\n"))
    assert "experiments/second/dvc.yaml: not the stages of config/second.yaml" in attempt(fresh, *done.args).stderr


def test_results_come_from_a_plain_web_server(source, tmp_path):
    """The publisher pushes everything but the data into a folder; strangers read it over HTTP, as .dvc/config says."""
    one, served, log = tmp_path / "one", tmp_path / "served", []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            log.append(self.command)

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        shutil.copytree(source, one, ignore=shutil.ignore_patterns("videos", "*.tar"))
        run(one, "dvc", "remote", "add", "--default", "public", url)
        commit(one, "the address for strangers")
        run(one, "dvc", "remote", "modify", "--local", "public", "url", str(served))
        run(one, "dvc", "push", "pretrain", "finetune", "report")
        fresh = clone_of(one, tmp_path / "fresh")
        assert "does not have 4 of 24 files; the first is the file list of data/demo/" in refused(fresh)
        said = run(fresh, *RESTORE, "--only", "results")
        assert url in said and "rebuilt: all hashes are those recorded in dvc.lock" in said and ONLY_DATA in said
        assert "Nothing to be done" in run(fresh, "snakemake", "--cores", "1", "-n") and not (fresh / "data").exists()
        assert set(log) == {"GET", "HEAD"}  # nothing is written
        server.shutdown()
    shutil.rmtree(fresh / ".dvc/cache")
    assert f"remote 'public' ({url}) cannot be used: " in refused(fresh, "--only", "results")  # it does not answer


def test_a_bundle_describes_itself(source, bundle, tmp_path):
    """Every file has its sha256 and size, every run its card, inputs and outputs; the same commit gives the same bytes."""
    with tarfile.open(bundle, "r:") as tar:
        tar.extractall(tmp_path, filter="data")
    root = tmp_path / "mscl-demo"
    graph = {entity["@id"]: entity for entity in json.loads((root / "ro-crate-metadata.json").read_text())["@graph"]}
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} - {"README.md", "ro-crate-metadata.json"}
    dataset = graph["./"]
    assert {part["@id"] for part in dataset["hasPart"]} == files == {i for i, e in graph.items() if e["@type"] == "File"}
    for name in files:
        content = (root / name).read_bytes()
        assert graph[name]["sha256"] == hashlib.sha256(content).hexdigest() and graph[name]["contentSize"] == len(content)
    assert dataset["license"] == {"@id": "LICENSE"} and dataset["mainEntity"]["@id"] == "results/demo/report/index.html"
    run_of_mscl = graph["#results/demo/cards/pretrain/r18/mscl/seed0/run.json"]
    assert run_of_mscl["result"][0]["@id"] == "results/demo/pretrain/r18/mscl/seed0/weights.safetensors"
    head = run(source, "git", "rev-parse", "HEAD").strip()
    assert head in dataset["description"] and f"git checkout {head}" in (root / "README.md").read_text()
    before = bundle.read_bytes()
    run(source, *BUNDLE)
    assert bundle.read_bytes() == before


def test_a_bundle_restores_results_in_a_fresh_clone(source, bundle, tmp_path):
    fresh = clone_of(source, tmp_path / "fresh")
    said = run(fresh, *RESTORE, "--from", str(bundle))
    assert "Table 1" in said and "rebuilt: all hashes are those recorded in dvc.lock" in said and ONLY_DATA in said
    assert "Nothing to be done" in run(fresh, "snakemake", "--cores", "1", "-n")
    assert "differences: 0" in run(fresh, "python", "-m", "mscl", "verify", "results/demo")
    run(fresh, "python", "-m", "workflow.bundle", "--to", "again.tar")  # what was restored can be given on
    with tarfile.open(bundle, "r:") as one, tarfile.open(fresh / "again.tar", "r:") as two:
        assert one.getnames() == two.getnames()


def test_a_bundle_with_data_restores_everything(source, tmp_path):
    fresh, tar = clone_of(source, tmp_path / "fresh"), tmp_path / "all.tar"
    run(source, *BUNDLE, "--data", "--to", str(tar))
    assert "snakemake -n: nothing to be done; dvc status: up to date" in run(fresh, *RESTORE, "--from", str(tar))
    assert "Data and pipelines are up to date" in run(fresh, "dvc", "status")


def test_a_bundle_of_the_tables_alone_has_no_weights(source, tmp_path):
    fresh, tar = clone_of(source, tmp_path / "fresh"), tmp_path / "tables.tar"
    run(source, *BUNDLE, "--only", "tables", "--to", str(tar))
    assert "rebuilt: all hashes are those recorded in dvc.lock" in run(fresh, *RESTORE, "--from", str(tar))
    assert not list(fresh.rglob("*.safetensors"))


def test_what_is_stale_or_not_committed_is_not_bundled(source, tmp_path):
    one = clone_of(source, tmp_path / "one")

    def refusal() -> str:
        done = attempt(one, *BUNDLE)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and not list(one.glob("*.tar"))
        return done.stderr

    assert "DVC's cache does not have" in refusal()
    (one / "mscl/flow/mds.py").write_text("EDITED = True\n")
    assert "dvc.lock: flow, pretrain, finetune, report: stale" in refusal()
    run(one, "git", "checkout", "-q", "mscl")
    with open(one / "dvc.lock", "a") as lock:
        lock.write("# edited\n")
    assert "dvc.lock: not committed" in refusal()


# Attacks: each changes a bundle, and must be refused before anything is written into the checkout.


def repack(bundle: Path, to: Path, change) -> Path:
    """A copy of a bundle; `change` takes (member, content) and returns the same, or None to leave the member out."""
    with tarfile.open(bundle, "r:") as old, tarfile.open(to, "w") as new:
        for member in old:
            changed = change(member, old.extractfile(member).read())
            if changed is not None:
                member, content = changed
                member.size = len(content) if member.isreg() else 0
                new.addfile(member, io.BytesIO(content))
    return to


def renamed(name: str):
    def change(member, content):
        member.name = name if member.name.endswith("/data.json") else member.name
        return member, content

    return change


def linked(member, content):
    if member.name.endswith("/data.json"):
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member, content


def other_content(ending: str):
    def change(member, content):
        return member, content[:-1] + b"X" if member.name.endswith(ending) else content

    return change


def sparse(member, content):
    if member.name.endswith("/data.json"):
        member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**13)}  # 10 TB of zeros
    return member, content


ATTACKS = {
    "a name outside": (renamed("mscl-demo/../../.bashrc"), "would be written outside the folder"),
    "an absolute name": (renamed("/etc/cron.d/x"), "would be written outside the folder"),
    "a link": (linked, "results/demo/data.json is a link, a folder or another special file"),
    "a file of zeros": (sparse, "results/demo/data.json is a link, a folder or another special file"),
    "other weights": (other_content("mscl/seed0/weights.safetensors"), "seed0/weights.safetensors: expected md5 "),
    "another file list": (other_content(".dir"), ".dir: expected md5 "),
    "a missing file": (
        lambda member, content: None if member.name.endswith("/data.json") else (member, content),
        "does not have 1 of ",
    ),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_a_changed_bundle_is_refused_before_anything_is_written(source, bundle, tmp_path, case):
    change, message = ATTACKS[case]
    fresh, bad = clone_of(source, tmp_path / "fresh"), repack(bundle, tmp_path / "bad.tar", change)
    assert message in refused(fresh, "--from", str(bad))
    assert not (fresh / "results").exists() and "" == run(fresh, "git", "status", "--porcelain")


def test_a_list_of_files_that_leads_outside_is_refused(source, bundle, tmp_path):
    """Also if dvc.lock names this list, as in a commit that somebody else wrote."""
    fresh = clone_of(source, tmp_path / "fresh")
    evil = json.dumps([{"md5": "0" * 32, "relpath": "../../../.bashrc"}]).encode()
    md5 = f"{hashlib.md5(evil).hexdigest()}.dir"
    text = (fresh / "dvc.lock").read_text()
    right = next(o["md5"] for o in yaml.safe_load(text)["stages"]["pretrain"]["outs"] if o["path"] == "results/demo/pretrain")
    (fresh / "dvc.lock").write_text(text.replace(right, md5))

    def change(member, content):
        if member.name.endswith(right):
            member.name, content = member.name.replace(right, md5), evil
        return member, content

    said = refused(fresh, "--from", str(repack(bundle, tmp_path / "bad.tar", change)))
    assert "the file list of results/demo/pretrain names '../../../.bashrc', which is no file in this folder" in said


def test_a_file_that_is_no_bundle_is_refused(source, bundle, tmp_path):
    fresh = clone_of(source, tmp_path / "fresh")
    assert "nothing.tar: no such file; FROM must name a bundle" in refused(fresh, "--from", "nothing.tar")
    (tmp_path / "text.tar").write_text("no tar")
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:  # may unpack to more than a disk holds
        tar.add(bundle, "mscl-demo/results/x")
    with tarfile.open(bundle) as tar:
        largest = max(tar.getmembers(), key=lambda member: member.size)
    (tmp_path / "half.tar").write_bytes(bundle.read_bytes()[: largest.offset_data + largest.size // 2])  # not between two files
    for name in ("text.tar", "packed.tar", "half.tar"):
        assert f"{name}: not a bundle, or damaged" in refused(fresh, "--from", str(tmp_path / name))
