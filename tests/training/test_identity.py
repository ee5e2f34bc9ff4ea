"""A training does not go on over changed data."""

import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mscl.stages import build
from mscl.training import engine
from mscl.training.checkpoint import CheckpointError
from mscl.training.finetune import finetune
from mscl.training.pretrain import pretrain


@pytest.fixture
def copied(prepared, tmp_path):
    """f(source) -> the source with a manifest and stores of its own, which a test may change."""

    def copy(source):
        folders = {kind: tmp_path / kind / source.name for kind in ("frames", "flow") if getattr(source, kind)}
        for kind, folder in folders.items():
            shutil.copytree(getattr(source, kind), folder)
        manifest = shutil.copy(source.manifest, tmp_path / f"{source.name}.parquet")
        return source.model_copy(update={"manifest": manifest, **folders})

    return copy


def change(index):
    """One value of an index, as another extraction or another MDS gives it; the tar and the names stay."""
    table = pq.read_table(index)
    metadata = {**table.schema.metadata, b"mscl.tar_sha256": b"0" * 64}
    pq.write_table(table.replace_schema_metadata(metadata), index)


def stop(monkeypatch, train, job, out):
    """Leave a checkpoint behind."""

    def save_and_stop(run, *_, **__):
        run.save()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine.Run, "fit", save_and_stop)
        train(job, out)


@pytest.mark.parametrize("kind", ["frames", "flow"])
def test_pretraining_notices_another_content_of_a_shard(kind, prepared, tmp_path, copied, monkeypatch):
    job = build.pretrain_job(prepared, "r18", "mscl", 0)
    job = job.model_copy(update={"sources": tuple(map(copied, job.sources))})
    stop(monkeypatch, pretrain, job, tmp_path / "run")
    change(getattr(job.sources[0], kind) / "0001.parquet")
    with pytest.raises(CheckpointError, match=rf"another run \(the {kind} of data set 'kin' changed\); restore"):
        pretrain(job, tmp_path / "run")


def test_finetuning_notices_other_frames_and_other_labels(prepared, tmp_path, copied, monkeypatch):
    job = build.finetune_job(prepared, "ss", "r18", "scratch", 0)
    job = job.model_copy(update={"source": copied(job.source)})
    stop(monkeypatch, finetune, job, tmp_path / "run")
    rows = pd.read_parquet(job.source.manifest)
    rows.assign(label=rows.label.to_numpy()[::-1]).to_parquet(job.source.manifest)
    change(job.source.frames / "0000.parquet")
    with pytest.raises(CheckpointError, match=r"\(the frames of data set 'ss' changed; the list of videos changed\)"):
        finetune(job, tmp_path / "run")
