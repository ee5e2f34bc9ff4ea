import json

import numpy as np
import pytest
import simplejpeg

import mscl.flow.error
from mscl.config.settings import FlowConfig, MDSConfig
from mscl.flow.error import flow_error
from mscl.flow.estimate import make_estimator
from mscl.flow.mds import score_clip
from mscl.flow.quantise import decode_field
from mscl.flow.shard import field_pairs, flow_shard
from mscl.stages.jobs import FlowErrorJob, FlowJob
from mscl.store.jpeg import decode_gray
from mscl.store.shards import Shards
from tests.store.shards import write_frames

FLOW = FlowConfig(method="dis", gap=4, size=(96, 128), short_side=48)
H, W, SPEED = 60, 80, 1  # pixels, pixels per raw frame


def pictures(frames):
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 256, (H // 4, W // 2)), np.ones((4, 4))).astype(np.uint8)
    return [
        simplejpeg.encode_jpeg(np.repeat(noise[:, 40 - SPEED * n : 40 - SPEED * n + W, None], 3, 2), quality=95) for n in frames
    ]


@pytest.fixture
def frames_index(tmp_path):
    counts = {"good": range(0, 20, 2), "gone": [], "bad": [0, 2, 4], "short": [0, 2], "tiny": [0, 2, 4]}
    clips = {clip: [b"\xff\xd8junk"] * 3 if clip == "bad" else pictures(raw) for clip, raw in counts.items()}
    return write_frames(tmp_path / "frames" / "0000.parquet", clips, gone=("missing", "no file"))


def run(tmp_path, frames_index, workers=1, name="flow", mds=None, **flow):
    out = tmp_path / name / "set" / "0000.parquet"
    job = FlowJob(flow=FLOW.model_copy(update=flow), mds=MDSConfig(**{"stride": 1, "fields": 3} | (mds or {})), device="cpu")
    flow_shard(job, frames_index, frames_index.with_suffix(".tar"), out.with_suffix(".tar"), out, workers)
    return Shards([out])


def test_a_shard_of_flow(tmp_path, frames_index):
    flow = run(tmp_path, frames_index)
    clips = flow.clips.set_index("clip_id")
    assert clips["status"].to_dict() == {"good": "ok", "gone": "missing", "bad": "broken", "short": "short", "tiny": "ok"}
    assert clips.loc["gone", "reason"] == "no file"
    assert "4 apart" in clips.loc["short", "reason"] and "not a decodable JPEG" in clips.loc["bad", "reason"]
    row = flow.row("good")
    assert flow.frames(row).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]  # 16 and 18 have no frame four later
    assert (clips.loc["good", "height"], clips.loc["good", "width"]) == (48, 64)
    fields = np.stack([decode_field(flow.read(row, k), flow.column("scale", row)[k]) for k in range(8)])
    assert np.median(fields[..., 0]) == pytest.approx(4 * SPEED * 48 / 60, abs=0.25) and np.median(
        fields[..., 1]
    ) == pytest.approx(0, abs=0.1)
    radius = np.linalg.norm(fields, axis=-1).max((1, 2))
    assert flow.column("radius", row) == pytest.approx(radius, abs=0.3)
    scores, allowed, _ = score_clip([computed_fields(frames_index, row)], MDSConfig(stride=1, fields=3))
    assert flow.column("score", row) == pytest.approx(scores)
    assert flow.column("allowed", row).tolist() == allowed.tolist() and allowed.sum() == 4
    assert clips.loc["good", "note"] == "" and "only one flow field" in clips.loc["tiny", "note"]


def computed_fields(frames_index, row) -> np.ndarray:
    """The fields of a clip as DIS computes them, from its stored frames."""
    frames = Shards([frames_index])
    grey = np.stack([decode_gray(frames.read(row, k)) for k in range(len(frames.frames(row)))])
    return np.stack(make_estimator(FLOW, "cpu")(grey, field_pairs(frames.frames(row), FLOW.gap)))


def test_storage_settings_change_no_start(tmp_path, frames_index):
    """Scores are of the fields as computed: a coarse, badly compressed store allows exactly the same starts."""
    fine, row = run(tmp_path, frames_index), 0
    coarse = run(tmp_path, frames_index, name="coarse", short_side=12, quality=20)
    assert (coarse.clips.height[row], fine.clips.height[row]) == (12, 48)
    assert np.array_equal(coarse.column("score", row), fine.column("score", row))
    assert np.array_equal(coarse.column("allowed", row), fine.column("allowed", row))


def test_threads_do_not_change_the_bytes(tmp_path, frames_index):
    one, three = run(tmp_path, frames_index, 1, "one"), run(tmp_path, frames_index, 3, "three")
    assert one.tar_paths[0].read_bytes() == three.tar_paths[0].read_bytes()
    assert one.index_paths[0].read_bytes() == three.index_paths[0].read_bytes()


def test_a_tar_elsewhere_is_refused(tmp_path, frames_index):
    with pytest.raises(ValueError, match="must lie beside its index"):
        flow_shard(
            FlowJob(flow=FLOW, mds=MDSConfig(), device="cpu"),
            frames_index,
            tmp_path / "x.tar",
            tmp_path / "o.tar",
            tmp_path / "o.parquet",
        )


def test_pairs_need_both_frames():
    assert field_pairs(np.array([0, 2, 4, 6, 10]), 4) == [(0, 2), (1, 3), (3, 4)]
    assert field_pairs(np.array([0, 5]), 4) == []


def test_a_field_at_every_second_kept_frame(tmp_path, frames_index):
    """The fields at step 2 are every second one of those at step 1, to the byte; so are the frames, and starts are chosen among them."""
    assert field_pairs(np.array([0, 2, 4, 6, 8, 10]), 4, step=2) == [(0, 2), (2, 4)]
    assert field_pairs(np.array([0, 2, 4, 6, 8, 10, 12]), 6, step=2) == [(0, 3), (2, 5)]  # the second frame is between two starts
    every, second = run(tmp_path, frames_index), run(tmp_path, frames_index, name="second", mds={"stride": 2}, step=2)
    row = every.row("good")
    assert second.frames(row).tolist() == [0, 4, 8, 12] and every.frames(row)[::2].tolist() == [0, 4, 8, 12]
    assert [second.read(row, k) for k in range(4)] == [every.read(row, 2 * k) for k in range(4)]
    assert np.array_equal(second.column("scale", row), every.column("scale", row)[::2])
    fields = computed_fields(frames_index, row)[::2]
    scores, allowed, _ = score_clip([fields], MDSConfig(stride=1, fields=3))  # 2 kept frames are 1 field
    assert np.array_equal(second.column("score", row), scores)
    assert second.column("allowed", row).tolist() == allowed.tolist() and 0 < allowed.sum() < 4


def flow_source(flow):
    return type("S", (), {"flow": flow.index_paths[0].parent, "flow_indexes": staticmethod(lambda: flow.index_paths)})


def test_flow_error_against_the_truth(tmp_path, frames_index, monkeypatch):
    flow = run(tmp_path, frames_index)
    true = 4 * SPEED * 48 / 60

    def exact(embedded, format, clip_id, i, j, size_hw):
        assert (format, j - i, size_hw) == ("ssv2", 4, (48, 64))
        field = np.zeros((*size_hw, 2), np.float32)
        field[..., 0] = true
        valid = np.zeros(size_hw, bool)
        valid[8:-8, 8:-8] = True
        return field, valid

    monkeypatch.setattr(mscl.flow.error, "exact_flow", exact)
    job = FlowErrorJob.model_construct(
        source=flow_source(flow), dataset=type("D", (), {"format": "ssv2"}), embedded=None, flow=FLOW
    )
    flow_error(job, tmp_path / "deep" / "error.json")
    report = json.loads((tmp_path / "deep" / "error.json").read_text())
    assert (report["clips"], report["fields"], report["grid"], report["method"]) == (2, 9, [48, 64], "dis")
    assert report["epe_zero"] == report["epe_zero_object"] == pytest.approx(true, abs=1e-5)
    assert 0 < report["epe_median"] < 0.4 and report["epe_object"] == report["epe_mean"]
    assert report["epe_quantisation"] < 0.05 and report["epe_relative"] == pytest.approx(report["epe_mean"] / true, rel=1e-4)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["error.json"]
