"""Features of videos as a table: those of the frozen tests, also without a store; broken videos are rows; an interruption costs nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mscl.cli.features import features
from mscl.config.datasets import FramesConfig
from mscl.evaluation import features as module
from mscl.evaluation.features import Machine, Options, write_features
from mscl.evaluation.videos import of_manifest, of_paths, store_of
from mscl.machine.files import sha256
from mscl.models.networks.r3d_18 import R3D18
from mscl.models.published import CONFIG, MODEL
from mscl.stages import build
from mscl.store.shards import Shards
from mscl.training.checkpoint import save_weights
from mscl.training.clips import UniformClips
from mscl.training.features import extract_features
from tests.conftest import ROOT

SMALL = Options(frames=4, size=32, batch=4, extract=FramesConfig(step=1, short_side=36, quality=4))
CPU = Machine("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    torch.save(R3D18(4).state_dict(), path)
    return path


@pytest.fixture
def target(prepared):
    return build.source(prepared, "ss")


def test_the_table_has_the_features_of_the_frozen_tests(prepared, target, weights, tmp_path):
    rows = of_manifest(target.manifest, "validation")
    write_features(weights, rows, tmp_path / "x.parquet", SMALL, CPU, store_of(target.manifest))
    table = pd.read_parquet(tmp_path / "x.parquet")
    store = Shards(target.frame_indexes())
    manifest = pd.read_parquet(target.manifest)
    clips = UniformClips(store, manifest[manifest.split == "validation"], 4, 32)
    net = R3D18(4)
    net.load_state_dict(torch.load(weights))
    expected = extract_features(net.eval(), clips, torch.device("cpu"))
    by_id = dict(zip(clips.rows.clip_id, expected))
    assert len(table) == 12 and (table.status == "ok").all() and set(table.split) == {"validation"}
    for row in table.itertuples():
        assert np.allclose(row.features, by_id[row.clip_id], atol=1e-5)


def test_videos_without_a_store_give_the_same_bits_as_those_in_it(target, weights, tmp_path):
    rows = of_manifest(target.manifest, "validation")
    for name, store in (("stored", store_of(target.manifest)), ("decoded", [])):
        write_features(weights, rows, tmp_path / f"{name}.npz", SMALL, CPU, store)
    stored, decoded = (np.load(tmp_path / f"{name}.npz") for name in ("stored", "decoded"))
    assert np.array_equal(stored["features"], decoded["features"]) and stored["features"].shape == (12, 32)


def test_per_time_features_have_the_pooled_one_as_mean_and_clips_follow_one_another(target, weights, tmp_path):
    rows, index = of_manifest(target.manifest, "validation"), store_of(target.manifest)
    made = {}
    for name, more in {"pooled": {"clips": 2}, "time": {"clips": 2, "per_time": True}}.items():
        write_features(weights, rows, tmp_path / f"{name}.parquet", SMALL.model_copy(update=more | {"frames": 16}), CPU, index)
        made[name] = pd.read_parquet(tmp_path / f"{name}.parquet").features
    time = np.array([np.stack(each) for each in made["time"]])
    assert time.shape == (12, 2 * 2, 32)  # 16 frames are 2 time steps of r3d_18
    assert np.allclose(time.mean(1), np.stack(made["pooled"]), atol=1e-5)


def command(*arguments) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "mscl", "features", *map(str, arguments), "--device", "cpu", "--workers", "0"]
    return subprocess.run(run, capture_output=True, text=True, cwd=ROOT, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_real_videos_in_folders_and_one_that_is_broken(real_videos, weights, tmp_path):
    folder = tmp_path / "videos" / "deeper"
    folder.mkdir(parents=True)
    for path in sorted((real_videos / "hmdb51").rglob("*.avi"))[:2]:
        shutil.copy(path, folder)
    (folder / "torn.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not looked at")
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"")
    small = (
        "--mean",
        0.4,
        0.4,
        0.4,
        "--std",
        0.2,
        0.2,
        0.2,
        "--frames",
        4,
        "--size",
        32,
        "--stride",
        2,
        "--crops",
        3,
        "--short-side",
        36,
    )
    done = command(folder.parent, tmp_path / "absent.mp4", "--weights", weights, "--out", tmp_path / "x.parquet", *small)
    assert done.returncode == 0 and "features of 2 videos; 3 could not be read" in done.stdout, done.stderr
    table = pd.read_parquet(tmp_path / "x.parquet")
    good = table.query("status == 'ok'")
    assert np.stack(good.features).shape == (2, 32) and np.isfinite(np.stack(good.features)).all()
    bad = table[table.status == "broken"].set_index("clip_id")
    assert bad.features.isna().all() and bad.reason[str(tmp_path / "absent.mp4")] == "no such file"
    assert bad.reason[f"{folder}/caf\\xe9.mp4"] == "its name is not UTF-8 text; rename it"
    assert bad.reason[str(folder / "torn.mp4")]  # the words are ffmpeg's


class Stopping:
    """Computes, and sends this process a signal in batch `stop`."""

    def __init__(self, monkeypatch, stop: int = 0):
        self.batches, self.stop, self.real = 0, stop, module.features_of
        monkeypatch.setattr(module, "features_of", self)

    def __call__(self, *arguments):
        self.batches += 1
        if self.batches == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.real(*arguments)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_an_interrupted_command_goes_on_to_the_same_bytes(suffix, target, weights, tmp_path, monkeypatch, capsys):
    rows, whole, out = of_manifest(target.manifest), tmp_path / f"whole{suffix}", tmp_path / f"x{suffix}"
    write_features(weights, rows, whole, SMALL, CPU, [])
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        Stopping(patch, stop=3)
        write_features(weights, rows, out, SMALL, CPU, [])
    assert not out.exists() and "stopped after 12 of 36 videos" in capsys.readouterr().err
    again = Stopping(monkeypatch)
    write_features(weights, rows, out, SMALL, CPU, [])
    assert again.batches == 6 and "going on after 12 of 36" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes() and sorted(p.name for p in tmp_path.iterdir()) == [whole.name, out.name]
    write_features(weights, rows, out, SMALL, CPU, [])
    assert again.batches == 6 and "there already" in capsys.readouterr().out


def test_parts_of_other_weights_or_options_are_not_used(target, weights, tmp_path, monkeypatch, capsys):
    rows, out = of_manifest(target.manifest), tmp_path / "x.npz"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        Stopping(patch, stop=3)
        write_features(weights, rows, out, SMALL, CPU, [])
    changed = Stopping(monkeypatch)
    write_features(weights, rows, out, SMALL.model_copy(update={"frames": 5}), CPU, [])
    assert changed.batches == 9 and "frames was 4 and is 5" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "says"), [
    (("--out", "x.csv", "v.mp4"), "--out x.csv: the suffix must be .parquet or .npz"),
    (("--out", "x.npz"), "give either video files and folders, or --manifest"),
    (("--out", "x.npz", "--backbone", "slow_r50", "v.mp4"), "no slow_r50 under the names"),
    (("--out", "x.npz", "--frames", "0", "v.mp4"), "features: frames: "),
])  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(arguments, says, weights):
    done = command("--weights", weights, *arguments)
    assert done.returncode == 1 and says in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_folder_without_videos_is_said(tmp_path):
    with pytest.raises(ValueError, match="no video there; name files, folders of videos, or --manifest"):
        of_paths([tmp_path])


def test_a_published_folder_says_what_the_clips_are_and_the_command_line_overrules_it(target, tmp_path, capsys):
    folder, manifest = tmp_path / "r18", tmp_path / "m.parquet"
    torch.manual_seed(1)
    save_weights(folder / MODEL, R3D18(4).state_dict(), {"backbone": "r3d_18", "width": "4"})
    clip = {"frames": 4, "stride": 2, "size": 32, "step": 1, "short_side": 36}
    (folder / CONFIG).write_text(json.dumps({"model_type": "mscl", "sha256": sha256(folder / MODEL)} | clip))
    pd.read_parquet(target.manifest).head(2).to_parquet(manifest)
    found = {}
    given = {"told": {}, "same": clip, "other": {"frames": 8, "stride": 0}}
    for name, options in given.items():
        out = tmp_path / f"{name}.npz"
        features(str(folder), out, manifest=manifest, workers=0, device="cpu", **options)
        found[name] = np.load(out)["features"]
    assert np.array_equal(found["told"], found["same"]) and not np.array_equal(found["told"], found["other"])
    said = capsys.readouterr().err
    assert "clips of 4 frames, 2 frames of the video apart, 32 x 32 pixels" in said
    assert "clips of 8 frames, uniform over the video, 32 x 32 pixels" in said
