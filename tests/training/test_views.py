"""What the networks see of a batch: one angle for each video, one flip for a clip's frames and its flow, crossed flow as released."""

from types import SimpleNamespace

import pytest
import torch

from mscl.config.methods import METHODS
from mscl.config.settings import Augment, ClipConfig, Kernels
from mscl.training.augment import flip_flow, flow_from_planes
from mscl.training.clips import PretrainClips, batch_shapes, pretrain_rows, random_batch
from mscl.training.draws import Draws
from mscl.training.pretrain import make_views


def views_of(method, flip, videos=6):
    job = SimpleNamespace(
        augment=Augment(flip=flip, jitter_p=0, gray_p=0, blur_p=0), switches=METHODS[method].switches, kernels=Kernels()
    )
    batch = random_batch(job.switches, ClipConfig(), 16, videos)
    return batch, make_views(batch, job, Draws(0, 0, videos))


def test_query_and_key_share_their_angle():
    _, (query, key) = views_of("mscl", 0.5, 64)
    assert torch.equal(query.angle_B, key.angle_B)
    multiples = query.angle_B / torch.pi / 0.2
    assert multiples.tolist() == pytest.approx(multiples.round().tolist(), abs=1e-4)
    assert set(multiples.round().int().tolist()) == set(range(1, 9))  # 36 to 288 degrees


def test_a_flip_is_drawn_for_each_clip():
    batch, views = views_of("mscl", 0.5, 32)
    flipped = []
    for name, view in zip(("query", "key"), views):
        flow = flow_from_planes(batch[f"{name}_flow"], batch[f"{name}_factor"])
        mirrored = flip_flow(flow, torch.ones(32, dtype=torch.bool))
        flipped.append([torch.equal(f, m) for f, m in zip(view.flow_B2THW, mirrored)])
    assert 0 < sum(flipped[0]) < 32 and flipped[0] != flipped[1]


def test_crossed_flow_has_the_flip_of_the_other_view():
    batch, (query, key) = views_of("mscl-released", 0.5, 32)
    for name, view, other in (("query", query, key), ("key", key, query)):
        own = flow_from_planes(batch[f"{name}_crossed_flow"], batch[f"{name}_factor"])
        mirrored = flip_flow(own, torch.ones(32, dtype=torch.bool))
        theirs = "key" if name == "query" else "query"
        plain = flow_from_planes(batch[f"{theirs}_flow"], batch[f"{theirs}_factor"])
        flips = [not torch.equal(f, p) for f, p in zip(other.flow_B2THW, plain)]
        expected = torch.stack([m if flip else o for m, o, flip in zip(mirrored, own, flips)])
        assert torch.equal(view.crossed_B2THW, expected)


def test_crossed_flow_has_the_crop_of_the_other_view(prepared, monkeypatch):
    """The loader reads the key's fields in the query's box and the query's in the key's, beside each in its own."""
    import mscl.training.clips as module
    from mscl.stages import build

    read, real = [], module.read_flow

    def noted(shards, row, positions, box, size):
        read.append((tuple(positions), box))
        return real(shards, row, positions, box, size)

    monkeypatch.setattr(module, "read_flow", noted)
    job = build.pretrain_job(prepared, "r18", "mscl", 0)
    switches = METHODS["mscl-released"].switches
    sample = PretrainClips(pretrain_rows(job.sources, "train"), job.clip, job.augment, switches, 32, 0)[5]
    (query, query_box), (key, key_box), crossed_query, crossed_key = read
    assert crossed_query == (query, key_box) and crossed_key == (key, query_box) and query_box != key_box
    assert {name: value.shape for name, value in sample.items()} == {
        n: s for n, (s, _) in batch_shapes(switches, job.clip, 32).items()
    }
