"""Finetuning and tests straight from videos (frames.keep: none): the same bits as from stored frames, and an error where a video is not the listed one."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mscl.config.schema import load_config
from mscl.evaluation.features import Machine as Features
from mscl.evaluation.features import Options, write_features
from mscl.evaluation.frozen import evaluate_frozen
from mscl.evaluation.videos import of_manifest
from mscl.stages import build
from mscl.stages.jobs import Watched
from mscl.store.index import Damaged
from mscl.training.engine import Machine
from mscl.training.finetune import finetune
from mscl.training.linear import linear
from mscl.training.pretrain import pretrain
from mscl.video.extract import extract_shard
from tests.conftest import tiny_config


@pytest.fixture(scope="module")
def jobs(prepared, tmp_path_factory):
    """{"all" or "none": the jobs of a target on the same videos}; these are a copy, which a test may change."""
    folder, found = tmp_path_factory.mktemp("keep"), {}
    shutil.copytree(prepared.paths.data / "videos" / "ss", folder / "videos")
    before = build.source(prepared, "ss")
    rows = pd.read_parquet(before.manifest)
    rows["path"] = [str(folder / "videos" / "videos" / Path(path).name) for path in rows["path"]]
    rows.to_parquet(folder / "ss.parquet")
    values = tiny_config(prepared.paths.data.parent)
    changes = {"finetune": {"test_clips": 2}, "linear": {"epochs": 1, "warmup": 0}}
    values["targets"] = [{"dataset": "ss", "measures": ["finetune", "linear", "probe", "retrieval"], "clips": 2, **changes}]
    for keep in ("all", "none"):
        values["datasets"]["ss"]["frames"] = values["datasets"]["ss"]["frames"] | {"keep": keep}
        config = load_config(values)
        source = before.model_copy(update={"manifest": folder / "ss.parquet", "frames": folder / keep / "ss"})
        index = source.frame_indexes()[0]
        extract_shard(build.frames_job(config, "ss"), source.manifest, 0, index.with_suffix(".tar"), index, 2)
        made = {"finetune": build.finetune_job, "linear": build.linear_job, "frozen": build.frozen_job}
        run = ("ss", "r18", "scratch", 0)
        found[keep] = {name: job(config, *run).model_copy(update={"source": source}) for name, job in made.items()}
    return found


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.parametrize("name", ["finetune", "linear"])
def test_a_training_and_its_test_have_the_same_bits(jobs, tmp_path, name):
    train = {"finetune": finetune, "linear": linear}[name]
    train(jobs["all"][name], tmp_path / "all", Machine())
    for workers in (0, 2):
        out = tmp_path / f"none{workers}"
        train(jobs["none"][name], out, Machine(workers))
        assert written(out) == written(tmp_path / "all")
    assert {"predictions.parquet", "metrics.json", "weights.safetensors"} <= set(written(tmp_path / "all"))


def test_frozen_tests_and_features_have_the_same_bits(jobs, tmp_path):
    evaluate_frozen(jobs["all"]["frozen"], tmp_path / "all")
    for workers in (0, 2):
        evaluate_frozen(jobs["none"]["frozen"], tmp_path / f"none{workers}", workers)
        assert written(tmp_path / f"none{workers}") == written(tmp_path / "all")
    finetune(jobs["all"]["finetune"], tmp_path / "weights", Machine())
    rows = of_manifest(jobs["all"]["frozen"].source.manifest, "validation")
    for keep in ("all", "none"):
        store = jobs[keep]["frozen"].source.frame_indexes()
        options = Options(frames=4, size=32, clips=2, batch=4)
        weights = tmp_path / "weights" / "weights.safetensors"
        write_features(weights, rows, tmp_path / f"{keep}.parquet", options, Features("cpu"), store)
    one, two = (pd.read_parquet(tmp_path / f"{keep}.parquet") for keep in ("all", "none"))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_pretraining_may_be_watched_by_videos_whose_frames_are_not_stored(prepared, jobs, tmp_path):
    for keep in ("all", "none"):
        watched = Watched(source=jobs[keep]["frozen"].source, split="train", videos=10, every=1)
        job = build.pretrain_job(prepared, "r18", "moco", 0)
        optim = job.optim.model_copy(update={"epochs": 1})
        pretrain(job.model_copy(update={"monitor": watched, "optim": optim}), tmp_path / keep)
    assert "knn_top1" in (tmp_path / "all" / "history.csv").read_text()
    assert written(tmp_path / "none") == written(tmp_path / "all")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_replaced_video_stops_the_run_in_one_sentence(jobs, tmp_path, workers):
    """One of the test's videos, so it is found after the training where only its content has changed, and else before."""
    job = jobs["none"]["finetune"]
    rows = pd.read_parquet(job.source.manifest)
    video = Path(rows[rows["split"] == "validation"]["path"].iloc[3])
    before = video.read_bytes()
    try:
        video.write_bytes(before[:-400] + bytes(400))  # the same size
        with pytest.raises(
            ValueError, match=rf"{video.name}: decodes to .*, so it is not what was listed; frames.keep is none.*manifest$"
        ):
            finetune(job, tmp_path / "replaced", Machine(workers))
        assert not list((tmp_path / "replaced").glob("*.parquet")) and (tmp_path / "replaced" / "checkpoint.pt").exists()
        video.write_bytes(before[:-400])
        with pytest.raises(Damaged, match=rf"{video.name}: another file than the one that was listed"):
            finetune(job, tmp_path / "truncated", Machine(workers))
        video.unlink()
        with pytest.raises(Damaged, match=rf"{video.name}: cannot be read \(no such file or directory\)"):
            finetune(job, tmp_path / "missing", Machine(workers))
        assert not (tmp_path / "truncated").exists() and not (tmp_path / "missing").exists()  # nothing was trained
    finally:
        video.write_bytes(before)
    finetune(job, tmp_path / "replaced", Machine(workers))  # the video is back: the run goes on where it stopped
    finetune(jobs["all"]["finetune"], tmp_path / "all", Machine())
    assert written(tmp_path / "replaced") == written(tmp_path / "all")
