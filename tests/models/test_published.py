"""Published folders: loaded from a disk, from the hub's cache, from a server that speaks as the hub does, and by torch.hub; never what was changed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import mscl
from mscl.machine.files import sha256
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.published import CONFIG, MODEL, weights_file
from mscl.training.checkpoint import save_weights
from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLIP = torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def folder(tmp_path):
    """A folder as `mscl publish` writes it."""
    torch.manual_seed(1)
    made = tmp_path / "r18"
    save_weights(made / MODEL, R3D18(4).state_dict(), {"backbone": "r3d_18", "width": "4"})
    (made / CONFIG).write_text(json.dumps({"model_type": "mscl", "sha256": sha256(made / MODEL)}))
    return made


def test_a_folder_its_file_and_torch_hub_give_the_same_network(folder, tmp_path):
    with torch.inference_mode():
        expected = mscl.load_backbone(folder / MODEL)(CLIP)
        assert torch.equal(mscl.load_backbone(folder)(CLIP), expected)
        assert torch.equal(mscl.load_backbone(str(folder))(CLIP), expected)
    clone = tmp_path / "clone"  # not the checkout of these tests: torch.hub takes the package that lies beside hubconf.py
    shutil.copytree(ROOT / "mscl", clone / "mscl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "hubconf.py", clone)
    code = (
        "import sys, torch; net = torch.hub.load(sys.argv[1], 'backbone', sys.argv[2], source='local'); import mscl;"
        "assert mscl.__file__.startswith(sys.argv[1]), mscl.__file__;"
        "torch.save(net.state_dict(), sys.argv[3])"
    )
    subprocess.run([sys.executable, "-c", code, clone, folder, tmp_path / "hub.pt"], check=True, cwd=tmp_path, timeout=300)
    assert same(tmp_path / "hub.pt", folder)


def same(saved, folder) -> bool:
    """Whether a saved state is that of the network in the folder."""
    ours, theirs = mscl.load_backbone(folder).state_dict(), torch.load(saved, weights_only=True)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def refused(source, says: str):
    with pytest.raises(ValueError) as error:
        mscl.load_backbone(source)
    assert str(error.value).startswith(f"{source}: ") and says in str(error.value) and "\n" not in str(error.value)


def test_what_was_changed_is_not_loaded(folder, tmp_path):
    whole = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(folder, "get the folder again")
    (folder / MODEL).write_bytes(whole)
    (folder / MODEL).rename(tmp_path / "elsewhere")
    refused(folder, "no model.safetensors in this folder")
    (folder / MODEL).symlink_to(
        tmp_path / "elsewhere"
    )  # the right bytes, but a folder that was fetched must not point at others' files
    refused(folder, "is a link to a file outside the folder")


@pytest.mark.parametrize(
    "text",
    ["", "[]", '"x"', '{"model_type": "bert", "sha256": "0"}', '{"model_type": "mscl"}', '{"model_type": "mscl", "sha256": 7}'],
)
def test_the_configuration_of_something_else_is_refused(folder, text):
    (folder / CONFIG).write_text(text)
    refused(folder, "is not one that mscl publish writes")


def test_a_configuration_cannot_name_another_file(folder, tmp_path):
    other = tmp_path / "other.safetensors"
    save_weights(other, R3D18(8).state_dict(), {"backbone": "r3d_18", "width": "8"})
    values = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(values | {"file": str(other), "weights": "../other.safetensors", "width": 8}))
    assert weights_file(folder) == folder / MODEL and mscl.load_backbone(folder).feature_dim == 32


@pytest.mark.parametrize(
    "name", ["hf://user/name", "hf://name@main", "hf://user/../name@main", "hf://user/name@", "hf://@main", "hf://user/na me@v1"]
)
def test_a_name_on_the_hub_has_a_user_and_a_revision(name):
    refused(name, "not of the form hf://user/name@revision")


def fetched(source, **environment) -> subprocess.CompletedProcess:
    """Prints the file. In a process of its own: the hub's library reads these variables when it is imported."""
    command = [
        sys.executable,
        "-c",
        "import sys; from mscl.models.published import weights_file; print(weights_file(sys.argv[1]))",
        source,
    ]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def in_cache(cache, folder):
    """The folder as the hub's cache keeps a repository: links into a store of files."""
    repository = cache / "models--lab--mscl-r18"
    snapshot = repository / "snapshots" / COMMIT
    for made in (snapshot, repository / "blobs", repository / "refs"):
        made.mkdir(parents=True)
    (repository / "refs" / "v1.0").write_text(COMMIT)
    for path in folder.iterdir():
        shutil.copy(path, repository / "blobs" / sha256(path))
        (snapshot / path.name).symlink_to(f"../../blobs/{sha256(path)}")
    return snapshot


def is_fetched(source, folder, **environment) -> bool:
    run = fetched(source, **environment)
    assert run.returncode == 0, run.stderr
    return mscl.load_backbone(run.stdout.strip()).feature_dim == 32 and sha256(run.stdout.strip()) == sha256(folder / MODEL)


def test_from_the_cache_of_the_hub_without_a_network(folder, tmp_path):
    pytest.importorskip("huggingface_hub")
    snapshot = in_cache(tmp_path / "cache", folder)
    offline = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    assert is_fetched("hf://lab/mscl-r18@v1.0", folder, **offline) and is_fetched(
        f"hf://lab/mscl-r18@{COMMIT}", folder, **offline
    )
    assert weights_file(snapshot) == snapshot / MODEL  # the folder in the cache, given by its path
    missing = fetched("hf://lab/mscl-r18@v2.0", **offline)
    assert missing.returncode and "ValueError: hf://lab/mscl-r18@v2.0: cannot be fetched (" in missing.stderr


@pytest.fixture
def hub(folder):
    """The address of a server that answers for lab/mscl-r18 at the revision main as the hub does, and what it was asked for."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(f"{self.command} {self.path}")
            known = {
                f"/lab/mscl-r18/resolve/{revision}/{name}": name for revision in ("main", COMMIT) for name in (CONFIG, MODEL)
            }
            content = (folder / known[self.path]).read_bytes() if self.path in known else b""
            self.send_response(200 if self.path in known else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def do_GET(self):
            self.wfile.write(self.do_HEAD())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def files_in(asked) -> list[str]:
    """The files of repositories that were fetched; the library also asks the server other things."""
    return sorted(line.rpartition("/")[2] for line in asked if line.startswith("GET") and "/resolve/" in line)


def test_it_is_fetched_once_from_a_server_and_only_the_two_files(folder, tmp_path, hub):
    pytest.importorskip("huggingface_hub")
    (folder / "pytorch_model.bin").write_bytes(b"not asked for")
    address, asked = hub
    online = {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
    assert is_fetched("hf://lab/mscl-r18@main", folder, **online)
    assert files_in(asked) == [CONFIG, MODEL]
    assert is_fetched("hf://lab/mscl-r18@main", folder, **online) and files_in(asked) == [CONFIG, MODEL]
    (folder / MODEL).write_bytes(
        (folder / MODEL).read_bytes() + b"\0"
    )  # now the server holds another file than its config.json says
    changed = fetched("hf://lab/mscl-r18@main", **online | {"HF_HUB_CACHE": str(tmp_path / "empty")})
    assert "ValueError: hf://lab/mscl-r18@main: model.safetensors has sha256" in changed.stderr
    assert "cannot be fetched (" in fetched("hf://lab/other@main", **online).stderr


def test_without_the_package_of_the_hub_the_cure_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("hf://lab/mscl-r18@main", "run pip install huggingface_hub")
