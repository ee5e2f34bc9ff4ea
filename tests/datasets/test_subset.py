"""Clips are selected by their id, independent of the order of rows; a larger selection contains the smaller one."""

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mscl.config.datasets import Dataset
from mscl.datasets.manifest import build_manifest, shard_of, write_manifest
from mscl.datasets.subset import position
from mscl.stages import jobs

CLIPS = [f"clip{k}" for k in range(4000)]


def listed(root: Path, clips=CLIPS, **settings) -> Dataset:
    """Paths of `clips` in train.csv, every fifth of class 'bow', the others of class 'wave', and 100 more for testing."""
    rows = [f"{clip}.mp4,{'bow' if int(clip[4:]) % 5 == 0 else 'wave'}" for clip in clips]
    (root / "train.csv").write_text("path,label\n" + "\n".join(rows))
    (root / "test.csv").write_text("path,label\n" + "\n".join(f"test{k}.mp4,wave" for k in range(100)))
    return Dataset(format="csv", root=root, annotations={"train": "train.csv", "test": "test.csv"}, shards=4, **settings)


def split(dataset: Dataset, name: str = "train") -> set[str]:
    table = build_manifest("mine", dataset)
    return set(table.clip_id[table.split == name])


def test_a_larger_fraction_contains_the_smaller_one(tmp_path):
    kept = [split(listed(tmp_path, subset={"fraction": f, "splits": ["train"]})) for f in (0.01, 0.1, 0.5, 1.0)]
    assert kept[0] < kept[1] < kept[2] < kept[3] == set(CLIPS)
    assert [len(k) for k in kept[:3]] == [pytest.approx(4000 * f, abs=4 * (4000 * f) ** 0.5) for f in (0.01, 0.1, 0.5)]


def test_the_selection_does_not_depend_on_the_order_of_rows_or_other_clips(tmp_path):
    settings = {"subset": {"fraction": 0.3}, "holdout": {"validation": 0.2}}
    whole = build_manifest("mine", listed(tmp_path, **settings))
    mixed = random.Random(0).sample(CLIPS, len(CLIPS))
    pd.testing.assert_frame_equal(build_manifest("mine", listed(tmp_path, mixed, **settings)), whole)
    fewer = build_manifest("mine", listed(tmp_path, mixed[:2000], **settings))
    expected = whole[whole.clip_id.isin({*mixed[:2000], *(f"test{k}" for k in range(100))})]
    pd.testing.assert_frame_equal(fewer, expected.reset_index(drop=True))


def test_the_selection_is_the_same_on_every_machine():
    # printf 'fraction\0clip0' | sha1sum
    assert position(pd.Series(["clip0"]), "fraction")[0] == 0xDAD0230444ED / 2**48
    assert position(pd.Series(["clip0"]), "holdout validation")[0] == 0x65C762A7487C / 2**48


def test_held_out_videos_come_from_the_first_split_and_larger_shares_keep_them(tmp_path):
    small, large = (listed(tmp_path, holdout={"validation": share}) for share in (0.1, 0.3))
    assert split(small, "validation") < split(large, "validation") < set(CLIPS)
    assert split(small) == set(CLIPS) - split(small, "validation")
    assert len(split(small, "test")) == 100
    assert len(split(large, "validation")) == pytest.approx(1200, abs=4 * 1200**0.5)
    other = listed(tmp_path, holdout={"validation": 0.1}, holdout_from="test")
    assert split(other) == set(CLIPS) and 0 < len(split(other, "validation")) < 30


def test_several_held_out_splits_are_disjoint_and_get_their_shares(tmp_path):
    two = listed(tmp_path, holdout={"probe": 0.25, "dev": 0.25})
    parts = [split(two, name) for name in ("train", "dev", "probe")]
    assert [len(p) for p in parts] == [pytest.approx(n, abs=4 * n**0.5) for n in (2000, 1000, 1000)]
    assert set.union(*parts) == set(CLIPS) and sum(map(len, parts)) == len(CLIPS)
    more = listed(tmp_path, holdout={"probe": 0.5, "dev": 0.25})
    assert split(more, "dev") == parts[1] and split(more, "probe") > parts[2]


def test_the_order_of_splits_is_kept_in_a_job(tmp_path):
    lists = {"labels": "classes.txt", "train": "train.csv", "test": "test.csv"}
    job = jobs.ManifestJob(
        name="mine", dataset=Dataset(format="csv", root=tmp_path, annotations=lists, shards=1, holdout={"v": 0.1})
    )
    there = jobs.loads(jobs.ManifestJob, jobs.dumps(job))  # a job's keys are sorted: its first split is "test"
    assert there.dataset.holdout_from == "train"


def test_shares_do_not_depend_on_each_other_nor_on_the_shard():
    draws = {salt: position(pd.Series(CLIPS), salt) for salt in ("fraction", "holdout a", "holdout b")}
    draws["shard"] = np.array([shard_of(clip, 1000) for clip in CLIPS]) / 1000
    assert np.abs(np.corrcoef(list(draws.values())) - np.eye(4)).max() < 4 / len(CLIPS) ** 0.5
    assert all(0 <= d.min() and d.max() < 1 for d in draws.values())


def test_selection_by_classes_and_ids_does_not_change_labels(tmp_path):
    (tmp_path / "ids.txt").write_text("clip5\n\nclip6 \r\nclip10\n")
    table = build_manifest("mine", listed(tmp_path, subset={"classes": ["wave"], "ids": "ids.txt", "splits": ["train"]}))
    assert set(table.clip_id[table.split == "train"]) == {"clip6"}  # 5 and 10 are of class bow
    assert set(table.label) == {1} and (table.split == "test").sum() == 100


def test_something_something_classes_are_given_with_or_without_brackets(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "labels.json").write_text(json.dumps({"Moving something up": "0", "Opening something": "7"}))
    rows = [{"id": "1", "template": "Moving [something] up"}, {"id": "2", "template": "Opening [something]"}]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    for name in ("Opening [something]", "Opening something"):
        files = {"labels": "labels.json", "train": "train.json"}
        data = Dataset(format="ssv2", root=tmp_path, annotations=files, shards=1, subset={"classes": [name]})
        table = build_manifest("mine", data)
        assert list(table.clip_id) == ["2"] and list(table.label) == [7]


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"subset": {"classes": ["wive"]}}, "datasets.mine.subset.classes: no video is annotated with class 'wive'; did you mean 'wave'?"),
    ({"subset": {"ids": "ids.txt"}}, "ids.txt: line 2, no video is annotated with clip_id 'clip99999'; did you mean 'clip999'?"),
    ({"subset": {"ids": "no.txt"}}, "no.txt: no such file; put the file there or correct datasets.mine.subset.ids"),
    ({"subset": {"classes": ["bow"]}}, "datasets.mine.subset: leaves none of the 100 videos of split 'test'; select more, or list in"),
    ({"holdout": {"v": 0.000001}}, "datasets.mine.holdout: a share of 1e-06 takes 0 of the 4000 videos of split 'train'"),
])  # fmt: skip
def test_an_impossible_selection_is_reported(tmp_path, settings, sentence):
    (tmp_path / "ids.txt").write_text("clip1\nclip99999\n")
    with pytest.raises(ValueError) as error:
        build_manifest("mine", listed(tmp_path, **settings))
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_the_stage_prints_the_number_of_videos(tmp_path, capsys):
    data = listed(tmp_path, CLIPS[:10], holdout={"validation": 0.5})
    (tmp_path / "clip0.mp4").write_bytes(b"x")
    (tmp_path / "clip1.mp4").touch()
    held = split(data, "validation")
    write_manifest(jobs.ManifestJob(name="mine", dataset=data), tmp_path / "mine.parquet")
    said, note = capsys.readouterr().out.splitlines()
    assert note.startswith("mine: split 'validation': all 1 usable videos are of one class, 'bow'")
    assert said.startswith(f"mine: 110 videos: train {10 - len(held)} (")
    assert "; test 100 (100 missing); " in said and said.count("1 empty") == 1 and f"validation {len(held)} (" in said


def held(form: str, root: Path, **settings) -> pd.DataFrame:
    """The manifest of a data set with half of its training videos held out as `validation`."""
    data = Dataset(format=form, root=root, shards=1, holdout={"validation": 0.5}, holdout_from="train", **settings)
    return build_manifest("mine", data)


def assert_whole(table: pd.DataFrame, recording: pd.Series) -> None:
    """Every recording is in one split, and both splits have some."""
    table = table[table.split != "test"].assign(recording=recording)
    assert (table.groupby("recording").split.nunique() == 1).all() and set(table.split) == {"train", "validation"}


def test_pieces_of_one_video_stay_together(tmp_path):
    rows = [f"{video}.mp4,{n},{n + 1},{video}-{n}" for video in ("a", "./b") for n in range(40)]
    (tmp_path / "t.csv").write_text("path,start,end,clip_id\n" + "\n".join(rows).replace("-", "_").replace("./b_", "b_"))
    for share in (0.3, 0.7):  # two recordings: one each, whatever their hashes
        data = Dataset(format="csv", root=tmp_path, annotations={"train": "t.csv"}, shards=1, holdout={"validation": share})
        table = build_manifest("mine", data)
        assert_whole(table, table.clip_id.str[0])
    data = Dataset(format="csv", root=tmp_path, annotations={"train": "t.csv"}, shards=1, holdout={"validation": 0.0001})
    with pytest.raises(
        ValueError, match=r"takes 0 of the 80 videos of split 'train' \(2 recordings are left, and a recording is not"
    ):
        build_manifest("mine", data)


def test_clips_of_one_recording_stay_together_in_the_published_data_sets(tmp_path):
    kinetics, ucf101, hmdb51 = (tmp_path / name for name in ("kinetics", "ucf101", "hmdb51"))
    for folder in (kinetics / "videos", ucf101 / "UCF-101", ucf101 / "ucfTrainTestlist", hmdb51 / "videos", hmdb51 / "splits"):
        folder.mkdir(parents=True)
    spans = [f"wave,id_{k},{10 * n},{10 * n + 10}" for k in range(20) for n in range(4)]
    (kinetics / "t.csv").write_text("label,youtube_id,time_start,time_end\n" + "\n".join(spans))
    table = held("kinetics", kinetics, annotations={"train": "t.csv"})
    assert_whole(table, table.clip_id.str[:-14])

    lists = {"classInd": ["1 Wave"], "testlist01": ["Wave/v_Wave_g99_c01.avi"]}
    lists["trainlist01"] = [f"Wave/v_Wave_g{g:02d}_c{c:02d}.avi 1" for g in range(1, 21) for c in range(1, 5)]
    for name, lines in lists.items():
        (ucf101 / f"ucfTrainTestlist/{name}.txt").write_text("\n".join(lines))
    table = held("ucf101", ucf101)
    assert_whole(table, table.clip_id.str[:-4])

    lines = [f"Film{k}_wave_u_nm_np1_ba_goo_{n}.avi 1" for k in range(20) for n in range(4)]
    (hmdb51 / "splits/wave_test_split1.txt").write_text("\n".join([*lines, "x.avi 2"]))
    table = held("hmdb51", hmdb51)
    assert_whole(table, table.clip_id.str.extract(r"(Film\d+)")[0])
