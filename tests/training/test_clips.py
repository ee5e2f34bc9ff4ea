"""Which frames a clip is made of: starts, keys, crops, uniform frames."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from mscl.config.settings import ClipConfig
from mscl.flow.shard import flow_shard
from mscl.stages import build
from mscl.store.shards import Shards
from mscl.training import partial
from mscl.training.augment import normalise
from mscl.training.clips import PretrainClips, UniformClips, batch_shapes, pretrain_rows, random_batch
from mscl.training.cuts import centre_box, crop_box, crop_boxes, key_start, possible_starts, strided_positions, uniform_positions
from mscl.training.recipe import epoch_batches

CLIP = ClipConfig(frames=8, stride=2, max_shift=4)


def test_a_clip_starts_where_it_fits():
    assert possible_starts(np.arange(0, 20), None, CLIP).tolist() == [0, 1, 2, 3, 4, 5]


def test_mds_narrows_the_starts_and_never_to_nothing():
    grid, allowed = np.arange(0, 20), np.zeros(20, dtype=bool)
    allowed[[2, 5, 9]] = True
    assert possible_starts(grid, allowed, CLIP).tolist() == [2, 5]
    assert possible_starts(grid, np.arange(20) >= 15, CLIP).tolist() == [0, 1, 2, 3, 4, 5]  # none of them fits a clip
    assert possible_starts(grid, np.zeros(20, dtype=bool), CLIP).tolist() == [0]


def test_a_video_shorter_than_a_clip_starts_at_its_first_frame():
    assert possible_starts(np.arange(0, 10), None, CLIP).tolist() == [0]


def test_the_key_starts_within_the_shift_at_an_allowed_start():
    starts = np.array([0, 10, 20, 30])
    found = {int(key_start(np.random.default_rng(i), 10, starts, 12)) for i in range(200)}
    assert found == {0, 10, 20}
    assert key_start(np.random.default_rng(0), 20, starts, 0) == 20


def test_crops_stay_inside_and_keep_their_area_and_ratio():
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = crop_box(rng, 4 / 3, (0.2, 1.0), (3 / 4, 4 / 3))
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        assert 0.19 <= (right - left) * (bottom - top) <= 1.001
        assert 0.74 <= (right - left) / (bottom - top) * 4 / 3 <= 1.34


@pytest.mark.parametrize(("aspect", "box"), [(2.0, (0.25, 0, 0.75, 1)), (0.5, (0, 0.25, 1, 0.75)), (1.0, (0, 0, 1, 1))])
def test_the_centre_crop_is_square(aspect, box):
    assert centre_box(aspect) == pytest.approx(box)


def test_uniform_frames_are_the_middles_of_equal_segments():
    assert uniform_positions(24, 8).tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    assert uniform_positions(3, 8).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    jittered = uniform_positions(24, 8, np.random.default_rng(0))
    assert all(3 * i <= p < 3 * i + 3 for i, p in enumerate(jittered))


def test_a_sample_has_frames_and_flow_of_the_same_times_and_depends_on_the_epoch(prepared):
    job = build.pretrain_job(prepared, "r18", "mscl", 0)
    clips = PretrainClips(pretrain_rows(job.sources, "train"), job.clip, job.augment, job.switches, 32, job.seed)
    assert len(clips) == 24
    sample = clips[3]
    assert sample["query_rgb"].shape == (8, 32, 32, 3) and sample["query_rgb"].dtype == np.uint8
    assert sample["key_flow"].shape == (4, 32, 32, 2) and sample["key_factor"].shape == (4,)  # of times 0, 2, 4, 6
    shapes = batch_shapes(job.switches, job.clip, 32)
    assert {k: (np.shape(v), np.asarray(v).dtype) for k, v in sample.items()} == shapes
    assert {k: tuple(v.shape) for k, v in random_batch(job.switches, job.clip, 32, 5).items()} == {
        k: (5, *s) for k, (s, _) in shapes.items()
    }
    assert np.array_equal(sample["query_rgb"], clips[3]["query_rgb"])
    clips.set_epoch(1)
    assert not np.array_equal(sample["query_rgb"], clips[3]["query_rgb"])


def test_where_every_second_frame_has_a_field_clips_start_at_these_and_each_wanted_field_is_there(prepared, tmp_path):
    config = prepared.model_copy(update={"flow": prepared.flow.model_copy(update={"step": 2})})
    job = build.pretrain_job(config, "r18", "mscl", 0)
    source = job.sources[0].model_copy(update={"flow": tmp_path / "flow"})
    for index, flow in zip(source.frame_indexes(), source.flow_indexes()):
        flow_shard(build.flow_job(config), index, index.with_suffix(".tar"), flow.with_suffix(".tar"), flow)
    rows = pretrain_rows([source], "train")
    switches = job.switches.model_copy(update={"family": "my.own:Method", "clips": 2})  # of which samples have their starts
    clips = PretrainClips(rows, job.clip, job.augment, switches, 32, job.seed)
    for i, (_, store, clip_id) in enumerate(rows):
        row = store.row(clip_id)
        grid, allowed = store.frames(row), store.column("allowed", row).astype(bool)
        assert grid.tolist() == list(range(0, 22, 2))  # 24 frames, fields from i to i + 2
        starts = possible_starts(grid, allowed, job.clip)
        sample = clips[i]
        assert {sample["query_start"], sample["key_start"]} <= set(starts.tolist()) <= set(grid.tolist())
        assert set(range(sample["query_start"], sample["query_start"] + 14, 4)) <= set(grid.tolist())
    plain = PretrainClips([(f, None, c) for f, _, c in rows], job.clip, job.augment, switches, 32, job.seed)
    assert any(plain[i]["query_start"] % 2 for i in range(24))  # a method without flow starts at any kept frame


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing_and_any_step_can_be_the_first(prepared, workers):
    """The batches of an epoch, read by this process from its start, and by `workers` processes from its second batch on."""
    job = build.pretrain_job(prepared, "r18", "mscl", 0)
    clips = PretrainClips(pretrain_rows(job.sources, "train"), job.clip, job.augment, job.switches, 32, job.seed)
    clips.set_epoch(3)
    batches = epoch_batches(len(clips), 8, seed=0, epoch=3)
    alone = list(DataLoader(clips, batch_sampler=batches))
    resumed = list(DataLoader(clips, batch_sampler=batches[1:], num_workers=workers))
    assert len(alone) == 3 and len(resumed) == 2
    for a, b in zip(alone[1:], resumed):
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_missing_and_broken_test_videos_are_rows_with_a_reason(prepared):
    source = build.source(prepared, "ss")
    rows = pd.read_parquet(source.manifest)
    rows.loc[0, ["status", "reason"]] = ["missing", "no such file"]
    stranger = rows.iloc[[1]].assign(clip_id="never-extracted")
    clips = UniformClips(Shards(source.frame_indexes()), pd.concat([rows, stranger]), frames=8, size=32)
    assert clips.skipped[["status", "reason"]].values.tolist() == [
        ["missing", "no such file"],
        ["missing", "not in the frame store"],
    ]
    assert len(clips) == len(rows) - 1
    assert clips[0]["clip_KTHWC"].shape == (1, 8, 32, 32, 3)


def test_a_test_looks_at_clips_times_crops_of_a_video(prepared):
    """3 clips of 4 frames 2 apart from a video of 24, at its start, middle and end; 3 squares of frames that are wider than high."""
    source = build.source(prepared, "ss")
    rows = pd.read_parquet(source.manifest).query("split == 'validation'").head(2)
    clips = UniformClips(Shards(source.frame_indexes()), rows, frames=4, size=32, clips=3, crops=3, stride=2)
    views = clips[0]["clip_KTHWC"]
    assert clips.views == 9 and views.shape == (9, 4, 32, 32, 3)
    grid = np.arange(24)
    assert [strided_positions(grid, 4, 2, share).tolist() for share in (0, 0.5, 1)] == [
        [0, 2, 4, 6],
        [8, 10, 12, 14],
        [17, 19, 21, 23],
    ]
    one = UniformClips(Shards(source.frame_indexes()), rows, frames=4, size=32, stride=2)
    assert (one[0]["clip_KTHWC"][0] == views[4]).all()  # the middle clip, the central square
    assert strided_positions(grid[::3], 3, 4, 0.0).tolist() == [0, 2, 3]  # every third frame is stored: 0, 3, 6, 9 …
    assert strided_positions(np.arange(3), 4, 2, 0.5).tolist() == [0, 2, 2, 2]  # a short video holds its last frame


def test_three_crops_reach_both_ends_of_the_longer_side():
    for aspect, boxes in (
        (2.0, [(0, 0, 0.5, 1), (0.25, 0, 0.75, 1), (0.5, 0, 1, 1)]),
        (0.5, [(0, 0, 1, 0.5), (0, 0.25, 1, 0.75), (0, 0.5, 1, 1)]),
    ):
        assert crop_boxes(aspect, 3) == boxes and crop_boxes(aspect, 1) == boxes[1:2]


def test_the_views_of_a_video_are_averaged_however_many_go_through_the_network_together(prepared, monkeypatch):
    source = build.source(prepared, "ss")
    rows = pd.read_parquet(source.manifest).query("split == 'validation'").head(3)
    clips = UniformClips(Shards(source.frame_indexes()), rows, frames=4, size=32, clips=2, crops=3, stride=2)
    seen = []

    def softmax(x_BCTHW):
        seen.append(len(x_BCTHW))
        return x_BCTHW.mean((2, 3, 4)).softmax(1)

    found = partial.over_videos(softmax, clips, 2, torch.device("cpu"))
    assert seen == [12, 6]
    by_hand = [
        torch.stack([normalise(torch.from_numpy(v)[None]).mean((2, 3, 4)).softmax(1)[0] for v in clips[i]["clip_KTHWC"]]).mean(0)
        for i in range(3)
    ]
    assert torch.allclose(found, torch.stack(by_hand), atol=1e-6)
    monkeypatch.setattr(partial, "AT_ONCE", 4)
    seen.clear()
    assert torch.allclose(partial.over_videos(softmax, clips, 2, torch.device("cpu")), found, atol=1e-6)
    assert max(seen) == 4
