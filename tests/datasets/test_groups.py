"""Clips of one recording stand on one side of every split drawn here; where the user's own splits divide one, it is counted."""

import pandas as pd
import pytest
from pydantic import ValidationError

from mscl.config.datasets import Dataset
from mscl.datasets.groups import by_name
from mscl.datasets.manifest import build_manifest, write_manifest
from mscl.datasets.shared import shared_videos
from mscl.datasets.subset import position
from mscl.stages import build, jobs
from mscl.stages.jobs import Source
from mscl.training.clips import group_numbers
from tests.store.shards import write_frames

CAMERAS = [f"day{day}/cam{camera}_{clip}.mp4" for day in (1, 2, 3, 4) for camera in (1, 2) for clip in "abc"]


def listed(root, header="path", rows=CAMERAS, **settings) -> Dataset:
    (root / "t.csv").write_text("\n".join([header, *rows]))
    return Dataset(format="csv", root=root, annotations={"train": "t.csv"}, shards=1, **settings)


@pytest.mark.parametrize(("name", "class_name", "recording"), [
    ("Archery/v_Archery_g08_c03", "Archery", "Archery/v_Archery_g08"),
    ("videos/-0zl3_abcde_000042_000052", "bowing", "-0zl3_abcde"),
    ("wave/Film_wave_u_nm_np1_ba_goo_3", "wave", "Film"),
    ("mine/take_3", "wave", ""),
])  # fmt: skip
def test_names_of_published_data_sets_tell_the_recording(name, class_name, recording):
    assert by_name(name, class_name) == recording


def test_an_expression_on_the_path_keeps_days_together(tmp_path):
    """The groups are day1 … day4; a day goes to the new split if sha1("holdout test\\0day<n>") is below the share."""
    table = build_manifest("mine", listed(tmp_path, group=r"(day\d+)/", holdout={"test": 0.5}))
    place = dict(zip(("day1", "day2", "day3", "day4"), position(pd.Series(["day1", "day2", "day3", "day4"]), "holdout test")))
    assert table.group.tolist() == table.clip_id.str[:4].tolist()
    assert (table.split == table.group.map(lambda day: "test" if place[day] < 0.5 else "train")).all()
    assert set(table.split) == {"train", "test"}
    assert len(set(group_numbers(table))) == 4


def test_an_expression_on_the_clip_id_is_used_where_the_path_tells_nothing(tmp_path):
    rows = [f"{n}.mp4,subject{n % 3}-{n}" for n in range(12)]
    table = build_manifest("mine", listed(tmp_path, "path,clip_id", rows, group=r"^(subject\d)"))
    assert table.group.tolist() == table.clip_id.str[:8].tolist()


def test_a_column_of_the_list_comes_first_then_the_expression_then_the_name(tmp_path):
    rows = ["x_g01_c01.mp4,lab", "x_g01_c02.mp4,", "x_g02_c01.mp4,", "b7.mp4,", "b8.mp4,lab"]
    table = build_manifest("mine", listed(tmp_path, "path,group", rows, group=r"^(b)\d"))
    assert dict(zip(table.clip_id, table.group)) == {"x_g01_c01": "lab", "x_g01_c02": "x_g01", "x_g02_c01": "x_g02", "b7": "b", "b8": "lab"}  # fmt: skip


def test_pieces_of_one_file_share_the_group_that_one_of_them_names(tmp_path):
    rows = ["v.mp4,0,1,a,", "v.mp4,1,2,b,lab", "w.mp4,0,1,c,"]
    table = build_manifest("mine", listed(tmp_path, "path,start,end,clip_id,group", rows))
    assert table.group.tolist() == ["lab", "lab", "w"]


def test_without_recordings_of_several_clips_the_manifest_is_as_it_was(prepared, tmp_path):
    plain = build_manifest("mine", listed(tmp_path))
    assert "group" not in plain and len(set(group_numbers(plain))) == len(plain)
    for name in prepared.datasets:  # the generated videos: one clip per Kinetics id
        write_manifest(build.manifest_job(prepared, name), tmp_path / "m.parquet")
        assert "group" not in pd.read_parquet(tmp_path / "m.parquet")
    assert build.dataset_job(prepared, "kin").dataset.group is None


def test_the_expression_does_not_rerun_the_preparation(tmp_path, prepared):
    data = prepared.datasets["kin"].model_copy(update={"group": "(.)"})
    config = prepared.model_copy(update={"datasets": {**prepared.datasets, "kin": data}})
    assert build.dataset_job(config, "kin") == build.dataset_job(prepared, "kin")
    assert build.manifest_job(config, "kin") != build.manifest_job(prepared, "kin")


@pytest.mark.parametrize(("pattern", "sentence"), [
    ("day(", "group: 'day(' is not a regular expression (missing ), unterminated subpattern at position 3); correct it"),
    (r"day\d", r"'day\d' has 0 groups; put the part that names the recording, and nothing else, into (…)"),
    (r"(day)(\d)", r"'(day)(\d)' has 2 groups"),
])  # fmt: skip
def test_an_expression_without_one_group_is_refused(tmp_path, pattern, sentence):
    with pytest.raises(ValidationError) as error:
        listed(tmp_path, group=pattern)
    assert sentence.removeprefix("group: ") in str(error.value)


def test_groups_that_cannot_be_are_reported(tmp_path):
    with pytest.raises(
        ValueError, match=r"datasets.mine.group: '\(night\)' is found in no video, neither in its path, such as 'day1/cam1_a.mp4'"
    ):
        build_manifest("mine", listed(tmp_path, group="(night)"))
    rows = ["v.mp4,0,1,a,lab", "v.mp4,1,2,b,field"]
    with pytest.raises(
        ValueError, match="clips of one file, 'v', are given the groups 'field' and 'lab'; a file is one recording"
    ):
        build_manifest("mine", listed(tmp_path, "path,start,end,clip_id,group", rows))


JPEGS = {name: bytes.fromhex("ffd8") + name.encode() + bytes.fromhex("ffd9") for name in "abcdefgh"}


def prepared_as(root, name: str, rows: list[tuple], **columns) -> Source:
    """A data set of (clip_id, path, split, picture), each video one stored frame of this picture; "" for none."""
    (root / name).mkdir()
    table = pd.DataFrame([row[:3] for row in rows], columns=["clip_id", "path", "split"]).assign(class_name="wave", **columns)
    table.to_parquet(root / f"{name}.parquet")
    write_frames(root / name / "0000.parquet", {row[0]: [JPEGS[p] for p in row[3]] for row in rows})
    return Source(name=name, manifest=root / f"{name}.parquet", frames=root / name, shards=1)


def test_what_two_splits_share_is_counted_once_with_examples(tmp_path):
    """By file before frames before recordings: of five test videos one is the same file, one a copy, two of a training recording."""
    rows = [
        ("t1", "v/1.avi", "train", "ab"),
        ("t2", "v/2.avi", "train", "cd"),
        ("x_g01_c01", "v/x1.avi", "train", "e"),
        ("s1", "v/./1.avi", "test", "ab"),
        ("s2", "copy/2.avi", "test", "cd"),
        ("x_g01_c02", "v/x2.avi", "test", "f"),
        ("x_g01_c03", "v/x3.avi", "test", "g"),
        ("s3", "v/3.avi", "test", ""),
    ]
    source = prepared_as(tmp_path, "a", rows, group=["t1", "t2", "x_g01", "s1", "s2", "x_g01", "x_g01", "s3"])
    test, train = shared_videos([source])["a"]
    assert test == {
        "split": "test", "dataset": "a", "other": "train", "videos": 1, "copies": 1, "clips": 2, "recordings": 1,
        "examples": {"videos": ["s1 and t1"], "copies": ["s2 and t2"], "clips": ["x_g01_c02 and x_g01_c01"]},
    }  # fmt: skip
    assert (train["split"], train["videos"], train["copies"], train["clips"]) == ("train", 1, 1, 1)


def test_other_data_sets_are_compared_by_names_that_mean_the_same_everywhere(tmp_path):
    """A YouTube id is one recording in every data set; a group of one's own, `lab`, is another thing in each."""
    rows = [("abcdefghijk_000001_000011", "k/1.mp4", "train", "a"), ("one", "k/2.mp4", "train", "b")]
    kinetics = prepared_as(tmp_path, "k", rows, group=["abcdefghijk", "lab"])
    rows = [
        ("abcdefghijk_000021_000031", "m/1.mp4", "test", "c"),
        ("two", "m/2.mp4", "test", "d"),
        ("three", "m/3.mp4", "test", "b"),
    ]
    mine = prepared_as(tmp_path, "m", rows, group=["abcdefghijk", "lab", "three"])
    (entry,) = shared_videos([kinetics, mine])["m"]
    assert entry == {
        "split": "test", "dataset": "k", "other": "train", "copies": 1, "clips": 1, "recordings": 1,
        "examples": {"copies": ["three and one"], "clips": ["abcdefghijk_000021_000031 and abcdefghijk_000001_000011"]},
    }  # fmt: skip


def test_official_folds_are_compared_each_within_itself(tmp_path):
    """In fold 2 a recording is divided that the data set's own fold keeps together."""
    rows = [("x_g01_c01", "1", "train", "a"), ("x_g01_c02", "2", "train", "b"), ("y_g01_c01", "3", "test", "c")]
    source = prepared_as(tmp_path, "u", rows, group=["x_g01", "x_g01", "y_g01"], **{f"{jobs.FOLD}2": ["test", "train", ""]})
    found = shared_videos([source])["u"]
    assert [(entry["split"], entry["other"], entry["fold"], entry["clips"]) for entry in found] == [
        ("test", "train", 2, 1),
        ("train", "test", 2, 1),
    ]


def test_generated_videos_have_nothing_in_common(prepared):
    sources = [build.source(prepared, name) for name in prepared.datasets]
    assert shared_videos(sources) == {"kin": [], "ss": []}
