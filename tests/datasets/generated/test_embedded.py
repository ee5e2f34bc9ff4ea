"""Generated data sets have the layout of real ones, so that the manifest can read them."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import decord
import numpy as np
import pandas as pd
import pytest

from mscl.config.datasets import Dataset, Embedded
from mscl.datasets.generated.embedded import TEMPLATES, clip_scene, clips, exact_flow, write_dataset
from mscl.datasets.generated.render import render
from mscl.datasets.manifest import build_manifest

ANNOTATIONS = {
    "ssv2": {"labels": "labels.json", "train": "train.json", "validation": "validation.json"},
    "kinetics": {"train": "annotations/train.csv", "validation": "annotations/validation.csv"},
}
SUFFIX = {"ssv2": ".webm", "kinetics": ".mp4"}


def generated(root: Path, format: str, seed: int = 0, size: tuple[int, int] = (64, 48)) -> Dataset:
    embedded = Embedded(clips={"train": 12, "validation": 2}, seed=seed, frames=12, size=size)
    return Dataset(format=format, root=root, annotations=ANNOTATIONS[format], shards=3, embedded=embedded)


def contents(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module", params=["ssv2", "kinetics"])
def dataset(request, tmp_path_factory) -> Dataset:
    made = generated(tmp_path_factory.mktemp(request.param), request.param)
    write_dataset(made)
    return made


def test_the_manifest_contains_all_generated_videos(dataset):
    table = build_manifest("toy", dataset)
    assert list(table.status) == ["ok"] * 14 and table.clip_id.is_monotonic_increasing
    assert Counter(table.split) == {"train": 12, "validation": 2}
    assert sorted(table.label[table.split == "train"]) == list(range(12))  # balanced: one of each class
    assert set(table.clip_id) == {clip.clip_id for clip in clips(dataset.embedded, dataset.format)}
    assert set(table.shard) <= {0, 1, 2}


def test_every_video_decodes_to_the_rendered_frames(dataset):
    table = build_manifest("toy", dataset)
    for clip_id, path in zip(table.clip_id[:3], table.path):
        video = decord.VideoReader(path)
        drawn = render(clip_scene(dataset.embedded, dataset.format, clip_id))
        assert len(video) == 12 and video.get_avg_fps() == pytest.approx(12)
        grey = [np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]) for frames in (video[:].asnumpy(), drawn)]
        assert np.abs(grey[0].astype(float) - grey[1]).mean() < 6


def test_the_exact_flow_depends_only_on_the_settings(dataset):
    clip = clips(dataset.embedded, dataset.format)[0]
    flow, valid = exact_flow(dataset.embedded, dataset.format, clip.clip_id, 2, 6, (48, 64))
    again, _ = exact_flow(dataset.embedded.model_copy(), dataset.format, clip.clip_id, 2, 6, (48, 64))
    assert flow.shape == (48, 64, 2) and flow.dtype == np.float32 and valid.dtype == bool
    assert (flow == again).all() and np.abs(flow[valid]).max() > 0.1
    with pytest.raises(ValueError, match="clip 'nobody': not in this generated"):
        exact_flow(dataset.embedded, dataset.format, "nobody", 0, 1, (48, 64))


def test_the_same_seed_writes_the_same_bytes(dataset, tmp_path):
    write_dataset(generated(tmp_path, dataset.format), workers=1)
    assert contents(tmp_path) == contents(dataset.root)


def test_an_interrupted_run_resumes(tmp_path):
    made = generated(tmp_path, "ssv2")
    write_dataset(made)
    before, videos = contents(tmp_path), sorted((tmp_path / "videos").glob("*.webm"))
    videos[0].unlink()
    (tmp_path / "train.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in videos[1:]}
    write_dataset(made)
    assert contents(tmp_path) == before
    assert stamps == {path: path.stat().st_mtime_ns for path in videos[1:]}  # not rendered again


def test_another_seed_replaces_every_video(tmp_path):
    write_dataset(generated(tmp_path, "ssv2"))
    before = contents(tmp_path / "videos")
    write_dataset(generated(tmp_path, "ssv2", seed=1))
    after = contents(tmp_path / "videos")
    assert set(before) == set(after) and not set(before.values()) & set(after.values())


def test_videos_that_were_not_generated_are_kept(tmp_path):
    theirs = tmp_path / "videos" / "1.webm"
    theirs.parent.mkdir()
    theirs.write_bytes(b"irreplaceable")
    with pytest.raises(ValueError, match=r"holds 1 videos that were not generated here \(such as 1.webm\); choose another root"):
        write_dataset(generated(tmp_path, "ssv2"))
    assert theirs.read_bytes() == b"irreplaceable"


def test_invalid_settings_are_reported_before_anything_is_rendered(tmp_path):
    with pytest.raises(ValueError, match="embedded.size: .* make both even"):
        write_dataset(generated(tmp_path, "ssv2", size=(65, 48)))
    plain = generated(tmp_path, "ssv2").model_copy(update={"embedded": None})
    with pytest.raises(ValueError, match="no setting 'embedded'"):
        write_dataset(plain)
    assert not list(tmp_path.iterdir())


def test_something_something_rows_look_like_the_real_ones(tmp_path):
    write_dataset(generated(tmp_path, "ssv2"))
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert labels == {template: str(k) for k, template in enumerate(sorted(TEMPLATES))}
    for row in json.loads((tmp_path / "train.json").read_text()):
        assert set(row) == {"id", "label", "template", "placeholders"} and row["id"].isdigit()
        assert row["template"].count("[something]") == len(row["placeholders"])
        assert row["template"].replace("[", "").replace("]", "") in labels
        assert "something" not in row["label"] and all(word in row["label"] for word in row["placeholders"])


def test_kinetics_rows_look_like_the_real_ones(tmp_path):
    write_dataset(generated(tmp_path, "kinetics"))
    rows = pd.read_csv(tmp_path / "annotations/train.csv")
    assert list(rows.columns) == ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
    assert (rows.youtube_id.str.len() == 11).all() and (rows.time_end > rows.time_start).all() and (rows.split == "train").all()
    first = rows.iloc[0]
    assert os.path.exists(tmp_path / "videos" / f"{first.youtube_id}_{first.time_start:06d}_{first.time_end:06d}.mp4")


def test_ids_and_rows_do_not_reveal_the_class_and_no_clip_is_in_two_splits():
    embedded = Embedded(clips={"train": 600, "validation": 120})
    for format in ("ssv2", "kinetics"):
        made = clips(embedded, format)
        assert len({clip.clip_id for clip in made}) == 720
        assert all(n == 50 for n in Counter(c.program for c in made if c.split == "train").values())
        scenes = {clip_scene(embedded, format, clip.clip_id).looks for clip in made}
        assert len(scenes) == 720
    numbers = np.array([int(clip.clip_id) for clip in clips(embedded, "ssv2")])
    programs = np.array([clip.program for clip in clips(embedded, "ssv2")])
    for values in (numbers, np.arange(720)):
        assert abs(np.corrcoef(values, programs)[0, 1]) < 0.1
        assert abs(np.mean(values % 12 == programs) - 1 / 12) < 0.05
