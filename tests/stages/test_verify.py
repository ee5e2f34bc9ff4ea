"""`mscl verify` looks behind the indexes that a run card names."""

import json
import shutil

import numpy as np
import pytest
import simplejpeg

from mscl.config.datasets import FramesConfig
from mscl.machine.files import sha256
from mscl.stages.jobs import FramesJob
from mscl.stages.verify import verify
from mscl.video.extract import extract_shard
from tests.conftest import ROOT
from tests.store.shards import write_frames
from tests.video.shard import write_manifest


@pytest.fixture
def results(tmp_path):
    """Results whose one run card names two shards; its code is not compared here."""
    picture = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    stores = [write_frames(tmp_path / "frames" / "set" / f"000{n}.parquet", {f"clip{n}": [picture] * 3}) for n in range(2)]
    card = {"stage": "frozen", "job": {}, "inputs": {str(p): sha256(p) for p in stores}, "outputs": {}}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.json").write_text(json.dumps(card))
    return tmp_path / "results"


def said(results, capsys, *arguments):
    verify(results, None, "config.yaml", *arguments)
    return capsys.readouterr().out


def test_a_damaged_tar_behind_a_run_card_is_a_difference(results, capsys):
    assert "its content has changed" not in said(results, capsys)
    tar = results.parent / "frames" / "set" / "0001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    assert f"differs: {tar}: its content has changed since it was written (sha256)" in said(results, capsys)
    quick = said(results, capsys, False, True)
    assert "its content has changed" not in quick and "not looked at: the tars of 2 shards (--quick)" in quick


def test_a_shard_copied_over_another_is_a_difference(results, capsys):
    folder = results.parent / "frames" / "set"
    for suffix in (".tar", ".parquet"):
        shutil.copy(folder / f"0000{suffix}", folder / f"0001{suffix}")
    assert "0001.parquet: is a copy of shard set/0000" in said(results, capsys)


def test_a_missing_tar_is_mentioned_and_an_index_that_is_rubbish_is_reported(results, capsys):
    folder = results.parent / "frames" / "set"
    (folder / "0000.tar").unlink()
    (folder / "0001.parquet").write_bytes(b"PAR1 rubbish")
    text = said(results, capsys)
    assert f"missing: {folder / '0000.tar'} (tar of" in text and "0001.parquet: not a readable parquet file" in text
    assert text.splitlines()[-1].startswith(
        "not looked at: whether the images in the tars of 2 shards can be decoded; the content of the original videos"
    )


def test_videos_whose_frames_are_not_stored_are_inputs(results, capsys, tmp_path):
    """A missing one is reported, as any missing input; one of another size is a difference."""
    video = shutil.copy(ROOT / "tests/video/cases/plain.mp4", tmp_path / "v.mp4")
    manifest, index = write_manifest(tmp_path / "list", [("a", video)]), tmp_path / "frames" / "mine" / "0003.parquet"
    extract_shard(FramesJob(frames=FramesConfig(keep="none")), manifest, 3, index.with_suffix(".tar"), index)
    card = {"stage": "frozen", "job": {}, "inputs": {str(index): sha256(index)}, "outputs": {}}
    (results / "run.json").write_text(json.dumps(card))
    assert f"{video}: " not in said(results, capsys)
    video.write_bytes(b"another")
    assert f"differs: {video}: another file than the one that was listed, of 7 bytes" in said(results, capsys)
    video.unlink()
    text = said(results, capsys, False, False)
    assert f"missing: {video}: cannot be read (no such file or directory)" in text and "missing inputs: 1" in text
