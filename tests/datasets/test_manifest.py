"""Annotations of real formats become one table; errors in them are reported in one sentence."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mscl.config.datasets import Dataset
from mscl.datasets.manifest import COLUMNS, build_manifest, read_manifest, shard_of, write_manifest
from mscl.stages.jobs import ManifestJob

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
LABELS = {"Moving something up": "0", "Showing something to the camera": "7"}
ROWS = [
    {"id": "12", "label": "moving a cup up", "template": "Moving [something] up", "placeholders": ["a cup"]},
    {
        "id": "3",
        "label": "showing a pen to the camera",
        "template": "Showing [something] to the camera",
        "placeholders": ["a pen"],
    },
]


def kinetics(root: Path, shards: int = 4, **files: str) -> Dataset:
    """A Kinetics data set whose CSVs hold `files` (split -> text below the header)."""
    (root / "videos").mkdir(exist_ok=True)
    for split, text in files.items():
        (root / f"{split}.csv").write_text(text if text.startswith(("youtube_id", "label")) else HEADER + text)
    return Dataset(format="kinetics", root=root, annotations={split: f"{split}.csv" for split in files}, shards=shards)


def ssv2(root: Path, prefix: str = "", labels=LABELS, **files) -> Dataset:
    """A Something-Something data set whose files hold `labels` and `files` (split -> rows)."""
    (root / "videos").mkdir(exist_ok=True)
    for name, value in {"labels": labels, **files}.items():
        (root / f"{prefix}{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return Dataset(format="ssv2", root=root, annotations={name: f"{name}.json" for name in ("labels", *files)}, shards=4)


def test_a_row_of_kinetics(tmp_path):
    made = kinetics(tmp_path, train='"high kick",abcdefghijk,7,17,train,0\n', val="abseiling,-bcdefghij_,100,110,val,0\n")
    (tmp_path / "videos/abcdefghijk_000007_000017.mp4").write_bytes(b"x")
    table = build_manifest("k", made)
    assert list(table.columns) == COLUMNS
    assert list(table.clip_id) == ["-bcdefghij__000100_000110", "abcdefghijk_000007_000017"]  # sorted
    assert list(table.split) == ["val", "train"] and list(table.class_name) == ["abseiling", "high kick"]
    assert list(table.label) == [0, 1] and table.label.dtype == np.int32 and table.shard.dtype == np.int32
    assert table.start.isna().all() and table.end.isna().all()  # the file is the clip
    assert table.path[1] == str(tmp_path / "videos/abcdefghijk_000007_000017.mp4")


def test_missing_and_empty_videos_are_rows(tmp_path):
    made = kinetics(tmp_path, train="a,v1,0,10,train,0\na,v2,0,10,train,0\na,v3,0,10,train,0\n")
    (tmp_path / "videos/v1_000000_000010.mp4").write_bytes(b"x")
    (tmp_path / "videos/v2_000000_000010.mp4").touch()
    table = build_manifest("k", made)
    assert list(table.status) == ["ok", "empty", "missing"]
    assert table.reason[0] == "" and table.reason[1] == "the file has 0 bytes"
    assert table.reason[2].startswith("no .mp4 file with this name under")
    assert table.path[2].endswith("v3_000000_000010.mp4")


def test_videos_are_found_in_class_folders_with_other_suffixes_and_behind_links(tmp_path):
    made = kinetics(tmp_path, train="a,v1,0,10,train,0\nb,v2,0,10,train,0\nb,v3,0,10,train,0\nb,v4,0,10,train,0\n")
    (tmp_path / "videos/high kick").mkdir()
    for name in ("v1_000000_000010.mkv", "v1_000000_000010.mp4", "high kick/v2_000000_000010.WEBM", "v1_000000_000010.mp4.part"):
        (tmp_path / "videos" / name).write_bytes(b"x")
    (tmp_path / "videos/v3_000000_000010.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "videos/v4_000000_000010.mp4").symlink_to(tmp_path / "videos/v1_000000_000010.mkv")
    table = build_manifest("k", made)
    assert list(table.status) == ["ok", "ok", "missing", "ok"]
    assert table.path[0].endswith("v1_000000_000010.mp4") and table.path[1].endswith("high kick/v2_000000_000010.WEBM")


def test_folders_of_any_depth_are_searched_and_a_replacement_is_preferred(tmp_path):
    made = kinetics(tmp_path, train="a,v1,0,10,train,0\na,v2,0,10,train,0\na,v3,0,10,train,0\n")
    videos = tmp_path / "videos"
    for name in (
        "part_0/k400/v1_000000_000010.mp4",
        "00_replacement/deep/er/v1_000000_000010.mkv",
        "00_replacement/v2_000000_000010.mp4",
        "v2_000000_000010.webm",
        "part_9/v3_000000_000010.mp4",
        ".part_1.tmp/v3_000000_000010.mp4",
    ):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_bytes(b"x")
    (videos / "00_replacement/v3_000000_000010.mp4").touch()
    (videos / "part_9/up").symlink_to(videos)  # a circular link
    assert [os.path.relpath(p, videos) for p in build_manifest("k", made).path] == [
        "00_replacement/deep/er/v1_000000_000010.mkv",
        "v2_000000_000010.webm",  # files come before subfolders
        "part_9/v3_000000_000010.mp4",  # an empty file is not preferred, and partly unpacked folders are hidden
    ]


def test_special_files_and_unreadable_folders_are_reasons(tmp_path, monkeypatch):
    made = kinetics(tmp_path, train="a,v1,0,10,train,0\na,v2,0,10,train,0\na,v3,0,10,train,0\n")
    (tmp_path / "videos/v1_000000_000010.mp4").mkdir()
    os.mkfifo(tmp_path / "videos/v2_000000_000010.mp4")
    (tmp_path / "videos/locked").mkdir()
    scandir = os.scandir

    def listing(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    table = build_manifest("k", made)
    assert list(table.status) == ["missing"] * 3
    assert list(table.reason[:2]) == ["it is a folder, not a video", "it is a special file, not a video"]
    assert table.reason[2].endswith(
        f"1 folder(s) there cannot be listed, for example {tmp_path}/videos/locked (Permission denied)"
    )


def test_a_test_split_may_have_no_labels(tmp_path):
    test = "youtube_id,time_start,time_end,split\nv2,0,10,test\n"
    table = build_manifest("k", kinetics(tmp_path, train="a,v1,0,10,train,0\n", test=test))
    assert list(table.label) == [0, -1] and list(table.class_name) == ["a", ""]
    (tmp_path / "s").mkdir()
    table = build_manifest("s", ssv2(tmp_path / "s", train=ROWS, test=[{"id": "99"}]))
    assert dict(zip(table.clip_id, table.label)) == {"12": 0, "3": 7, "99": -1}


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_a_row_of_something_something(tmp_path, prefix):
    made = ssv2(tmp_path, prefix, train=ROWS)
    (tmp_path / "videos/3.webm").write_bytes(b"x")
    table = build_manifest("s", made)
    assert list(table.clip_id) == ["12", "3"] and list(table.label) == [0, 7] and list(table.status) == ["missing", "ok"]
    assert table.class_name[1] == "Showing something to the camera"


def test_the_shard_of_a_clip_never_changes():
    assert [shard_of(c, 10) for c in ("1", "2", "abcdefghijk_000007_000017")] == [
        shard_of(c, 10) for c in ("1", "2", "abcdefghijk_000007_000017")
    ]
    assert shard_of("1", 1000) == int("356a192b7913b04c54574d18c28d46e6395428ab", 16) % 1000  # sha1("1")


def test_a_manifest_is_written_and_read_back(tmp_path):
    out = tmp_path / "manifests/s.parquet"
    write_manifest(ManifestJob(name="s", dataset=ssv2(tmp_path, train=ROWS)), out)
    table = read_manifest(out)
    pd.testing.assert_frame_equal(table, build_manifest("s", ssv2(tmp_path, train=ROWS)))
    assert [p.name for p in out.parent.iterdir()] == ["s.parquet"]


def test_a_file_that_is_not_a_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such manifest; run the manifest stage first"):
        read_manifest(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="torn.parquet: not a readable parquet file"):
        read_manifest(tmp_path / "torn.parquet")
    pd.DataFrame({"clip_id": ["1"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="other.parquet: not a manifest .no column 'path'."):
        read_manifest(tmp_path / "other.parquet")


BAD_KINETICS = {
    "no column": (
        "label,youtube_id,time_start,split\na,v1,0,train\n",
        "train.csv: no column 'time_end' in its header .* it must be",
    ),
    "no number": (
        "a,v1,0,10,train,0\na,v2,zero,10,train,0\n",
        "train.csv: row 2 after the header, time_start 'zero' is not a whole number",
    ),
    "fraction": ("a,v1,0,10.5,train,0\n", "row 1 after the header, time_end '10.5' is not a whole number"),
    "no label": (",v1,0,10,train,0\n", "row 1 after the header, label '' is empty; fill it in or remove the row"),
    "no id": ("a, ,0,10,train,0\n", "row 1 after the header, youtube_id '' is empty"),
    "twice": (
        "a,v1,0,10,train,0\nb,v1,0,10,train,0\n",
        r"clip 'v1_000000_000010' is listed more than once \(train.csv, train.csv\)",
    ),
    "torn": ("a,v1,0,10,train,0\na,v1,0,10,train,0,what,is,this\n", "train.csv: not a readable CSV .*line 3"),
    "short": ("a,v1,0,10,train,0\na,v2\n", "train.csv: row 2 after the header, time_start '' is not a whole number"),
    "no name": ("a,../../etc/x,0,10,train,0\n", "train.csv: '../../etc/x_000000_000010' cannot name a clip"),
    "nothing": ("", "train.csv has no video for split 'train'"),
}


@pytest.mark.parametrize("case", BAD_KINETICS)
def test_bad_kinetics_annotations_are_named(tmp_path, case):
    text, message = BAD_KINETICS[case]
    with pytest.raises(ValueError, match=message) as caught:
        build_manifest("k", kinetics(tmp_path, train=text))
    assert "\n" not in str(caught.value)


BAD_SSV2 = {
    "unknown template": (
        LABELS,
        [*ROWS, {"id": "9", "template": "Eating [something]"}],
        r"train.json: row 3 \(id 9\): template 'Eating something' is not in labels.json; take both files from the same release",
    ),
    "no template": (LABELS, [{"id": "9"}], r"train.json: row 1 \(id 9\) has no 'template'; add it"),
    "no name": (LABELS, [{"id": "a\tb", "template": "Moving [something] up"}], r"train.json: 'a\\tb' cannot name a clip"),
    "no id": (LABELS, [{"template": "Moving [something] up"}], "train.json: row 1 has no 'id'; add it or remove the row"),
    "twice": (LABELS, [ROWS[0], ROWS[0]], "train.json: clip '12' is listed more than once"),
    "torn": (LABELS, '[\n{"id": "1",\n', "train.json: not JSON at line 3, column 1"),
    "no list": (LABELS, {"id": "1"}, "train.json: holds a dict, expected a list of"),
    "no object": (["a"], ROWS, "labels.json: holds a list, expected an object"),
    "no index": ({"Moving something up": "first"}, ROWS, "labels.json: template 'Moving something up' has index 'first'"),
    "shared index": ({"a": "1", "b": "1"}, ROWS, "labels.json: templates 'a' and 'b' have the same index 1; give each its own"),
}


@pytest.mark.parametrize("case", BAD_SSV2)
def test_bad_something_something_annotations_are_named(tmp_path, case):
    labels, rows, message = BAD_SSV2[case]
    with pytest.raises(ValueError, match=message) as caught:
        build_manifest("s", ssv2(tmp_path, labels=labels, train=rows))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    made = kinetics(tmp_path, train="a,v1,0,10,train,0\n")
    with pytest.raises(ValueError, match="none.csv: no such file; .* correct annotations.train"):
        build_manifest("k", made.model_copy(update={"annotations": {"train": "none.csv"}}))
    with pytest.raises(ValueError, match="elsewhere: no such folder; put the videos there"):
        build_manifest("k", made.model_copy(update={"videos": "elsewhere"}))
    with pytest.raises(ValueError, match=r"labels.json: no such file \(nor something-something-v2-labels.json\)"):
        build_manifest("s", made.model_copy(update={"format": "ssv2", "annotations": {"labels": "labels.json"}}))


def test_video_folders_are_listed_once_instead_of_one_query_per_name(tmp_path, monkeypatch):
    made = kinetics(tmp_path, train="".join(f"a,v{k},0,10,train,0\n" for k in range(500)))
    (tmp_path / "videos/v7_000000_000010.mp4").write_bytes(b"x")
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(Path, "exists", lambda self: pytest.fail("asked for a name"))
    assert build_manifest("k", made).status.value_counts().to_dict() == {"missing": 499, "ok": 1}
    assert len(listed) == 1


def test_real_something_something_footage(real_videos):
    annotations = {"labels": "labels.json", "train": "train.json", "validation": "validation.json"}
    table = build_manifest("camera", Dataset(format="ssv2", root=real_videos / "camera_ssv2", annotations=annotations, shards=4))
    assert table.split.value_counts().to_dict() == {"train": 240, "validation": 90}
    assert (table.status == "ok").all() and table.label.nunique() == 6
    assert set(table.label[table.class_name == "Turning the camera left while filming something"]) == {166}


def test_real_kinetics_footage_with_a_missing_video(real_videos):
    table = build_manifest(
        "k400",
        Dataset(format="kinetics", root=real_videos / "kinetics400", annotations={"train": "annotations/train.csv"}, shards=4),
    )
    absent = table[table.status != "ok"]
    assert len(absent) == 1 and absent.clip_id.iloc[0].startswith("0wR5jVB-WPk") and absent.status.iloc[0] == "missing"
    assert all(os.path.getsize(path) for path in table.path[table.status == "ok"])
