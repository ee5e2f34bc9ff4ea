"""Data sets of every format, with the difficulties of each format, give the same kind of manifest."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mscl.config.datasets import Dataset
from mscl.datasets.manifest import build_manifest, write_manifest
from mscl.stages.jobs import ManifestJob

LISTS = "ucfTrainTestlist"
CLASSES = "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n"
TRAIN = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 2\r\n"
TEST = "HandstandPushups/v_HandStandPushups_g01_c01.avi\r\nApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\n"


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def videos(root: Path, *names: str) -> Path:
    return write(root, dict.fromkeys(names, b"x"))


def manifest(form: str, root: Path, **settings) -> pd.DataFrame:
    """The manifest of a data set below `root`, indexed by clip_id; video paths are relative to `root`."""
    table = build_manifest("mine", Dataset(format=form, root=root, shards=4, **settings)).set_index("clip_id")
    return table.assign(path=[os.path.relpath(p, root) for p in table.path])


def refused(form: str, root: Path, **settings) -> str:
    with pytest.raises(ValueError) as error:
        manifest(form, root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# UCF101


def ucf101(root: Path, classes=CLASSES, train=TRAIN, test=TEST) -> Path:
    files = {"classInd.txt": classes, "trainlist01.txt": train, "testlist01.txt": test}
    (root / "UCF-101").mkdir(parents=True, exist_ok=True)
    return write(root, {f"{LISTS}/{name}": text for name, text in files.items()})


def test_ucf101_class_is_the_folder_and_labels_start_at_0(tmp_path):
    videos(ucf101(tmp_path), "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi")
    table = manifest("ucf101", tmp_path)
    assert list(table.index) == [
        "v_ApplyEyeMakeup_g01_c01",
        "v_ApplyEyeMakeup_g08_c01",
        "v_HandStandPushups_g01_c01",
        "v_HandStandPushups_g08_c01",
    ]
    assert list(table.split) == ["test", "train", "test", "train"]
    assert list(table.label) == [0, 0, 1, 1] and table.label.dtype == np.int32
    assert list(table.class_name[2:]) == ["HandstandPushups"] * 2
    assert list(table.status) == ["missing", "missing", "ok", "missing"] and table.start.isna().all()
    assert table.path.iloc[0] == "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"  # the expected path


def test_other_suffixes_and_spellings_are_found_but_the_listed_name_is_preferred(tmp_path):
    apply, hand = "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup", "UCF-101/HandStandPushups/v_HandstandPushups"
    videos(ucf101(tmp_path), f"{apply}_g08_c01.mp4", f"{apply}_g08_c01.avi", f"{apply}_g01_c01.mp4", f"{hand}_g01_c01.AVI")
    videos(tmp_path, "UCF-101/ApplyEyeMakeup/V_APPLYEYEMAKEUP_g01_c01.avi")  # the listed name with another suffix is preferred
    table = manifest("ucf101", tmp_path)
    assert table.path["v_ApplyEyeMakeup_g08_c01"] == f"{apply}_g08_c01.avi"
    assert table.path["v_ApplyEyeMakeup_g01_c01"] == f"{apply}_g01_c01.mp4"
    assert table.path["v_HandStandPushups_g01_c01"] == f"{hand}_g01_c01.AVI"
    assert table.status["v_HandStandPushups_g08_c01"] == "missing"


def test_an_empty_video_never_hides_a_usable_one(tmp_path):
    write(ucf101(tmp_path), {"UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": b""})
    assert manifest("ucf101", tmp_path).status["v_ApplyEyeMakeup_g08_c01"] == "empty"
    videos(tmp_path, "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.mp4")
    row = manifest("ucf101", tmp_path).loc["v_ApplyEyeMakeup_g08_c01"]
    assert row.status == "ok" and row.path.endswith(".mp4")


def test_another_fold_reads_other_lists(tmp_path):
    ucf101(tmp_path)
    write(tmp_path, {f"{LISTS}/trainlist02.txt": TRAIN[:46] + "\n", f"{LISTS}/testlist02.txt": TEST})
    assert list(manifest("ucf101", tmp_path, fold=2).split) == ["test", "train", "test"]
    assert "trainlist03.txt: no such file" in refused("ucf101", tmp_path, fold=3)


@pytest.mark.parametrize(("files", "sentence"), [
    ({"train": "ApplyEyeMakeup/v_a.avi 2\n"}, "trainlist01.txt: line 1 gives class ApplyEyeMakeup the number 2, but classInd.txt gives it "
                                              "1; take both files from the same release"),
    ({"test": "\nHandStandPushups/v_a.avi\n"}, "testlist01.txt: line 2, class 'HandStandPushups' is not in classInd.txt; "
                                               "did you mean 'HandstandPushups'?"),
    ({"test": "v_a.avi\n"}, "testlist01.txt: line 1, 'v_a.avi' is not Class/video.avi"),
    ({"classes": "ApplyEyeMakeup 1\n"}, "classInd.txt: line 1, 'ApplyEyeMakeup 1' is not a number (1 or more) and a class"),
    ({"classes": "0 ApplyEyeMakeup\n"}, "classInd.txt: line 1, '0 ApplyEyeMakeup' is not a number (1 or more)"),
    ({"classes": CLASSES + "2 Archery\n"}, "classInd.txt: line 3, '2 Archery' repeats a class or a number"),
    ({"test": TRAIN}, "clip 'v_ApplyEyeMakeup_g08_c01' is listed more than once (trainlist01.txt, testlist01.txt); keep one row of it"),
    ({"test": "\n"}, "testlist01.txt has no video for split 'test'"),
])  # fmt: skip
def test_bad_ucf101_lists_are_named(tmp_path, files, sentence):
    assert sentence in refused("ucf101", ucf101(tmp_path, **files))


# HMDB51


def hmdb51(root: Path, **more: str) -> Path:
    (root / "videos").mkdir(exist_ok=True)
    files = {
        "wave_test_split1.txt": "21 _wave_u_&_0.avi 1 \r\nb_wave_1.avi 2 \n\n",
        "cartwheel_test_split1.txt": "(Rad)Schlag_die_Bank!_cartwheel_0.avi 1 \nunused_cartwheel_1.avi 0 \nc_cartwheel_2.avi 2 \n",
    }
    return write(root, {f"splits/{name}": text for name, text in (files | more).items()})


def test_hmdb51_reads_one_file_per_class_and_keeps_unusual_names(tmp_path):
    videos(hmdb51(tmp_path), "videos/cartwheel/(Rad)Schlag_die_Bank!_cartwheel_0.avi", "videos/wave/21 _wave_u_&_0.mp4")
    table = manifest("hmdb51", tmp_path)
    assert list(table.index) == [
        "cartwheel/(Rad)Schlag_die_Bank!_cartwheel_0",
        "cartwheel/c_cartwheel_2",
        "wave/21 _wave_u_&_0",
        "wave/b_wave_1",
    ]
    assert list(table.split) == ["train", "test", "train", "test"] and list(table.label) == [0, 0, 1, 1]
    assert list(table.class_name) == ["cartwheel", "cartwheel", "wave", "wave"]
    assert list(table.status) == ["ok", "missing", "ok", "missing"]


def test_bad_hmdb51_files_are_named(tmp_path):
    hmdb51(tmp_path, **{"wave_test_split2.txt": "b_wave_1.avi 1\n"})
    assert "splits: no cartwheel_test_split2.txt, but there is one for another fold" in refused("hmdb51", tmp_path, fold=2)
    assert "splits: no cartwheel_test_split3.txt" in refused("hmdb51", tmp_path, fold=3)
    write(tmp_path, {"splits/wave_test_split1.txt": "b_wave_1.avi 3\n"})
    assert "wave_test_split1.txt: line 1, 'b_wave_1.avi 3' is not a video name and 0, 1 or 2" in refused("hmdb51", tmp_path)
    assert "nowhere: no such folder" in refused("hmdb51", tmp_path, annotations={"train": "nowhere"})
    (tmp_path / "none").mkdir()
    assert "none: no <class>_test_split1.txt" in refused("hmdb51", tmp_path, annotations={"train": "none"})


# A plain folder


def test_a_plain_folder_needs_no_annotations(tmp_path):
    videos(
        tmp_path,
        "wave/a.mp4",
        "wave/day 1/a.MOV",
        "bow/b c.avi",
        "wave/.hidden.mp4",
        ".trash/x/a.mp4",
        "wave/notes.txt",
        "empty/readme",
    )
    table = manifest("folder", tmp_path)
    assert list(table.index) == ["bow/b c", "wave/a", "wave/day 1/a"] and set(table.split) == {"train"}
    assert list(table.label) == [0, 1, 1] and list(table.class_name) == ["bow", "wave", "wave"]
    assert list(table.path) == ["bow/b c.avi", "wave/a.mp4", "wave/day 1/a.MOV"] and set(table.status) == {"ok"}


def test_splits_are_folders_and_share_their_classes(tmp_path):
    videos(tmp_path, "train/wave/a.mp4", "val/bow/b.mp4", "val/wave/c.mp4")
    splits = {"train": "train", "validation": "val"}
    table = manifest("folder", tmp_path, annotations=splits)
    assert dict(table.label) == {"wave/a": 1, "bow/b": 0, "wave/c": 1}
    assert dict(table.split) == {"wave/a": "train", "bow/b": "validation", "wave/c": "validation"}
    write(tmp_path, {"classes.txt": "\ufeffwave\nnod\nbow\n"})
    assert dict(manifest("folder", tmp_path, annotations=splits | {"labels": "classes.txt"}).label) == {
        "wave/a": 0,
        "bow/b": 2,
        "wave/c": 0,
    }


def test_a_folder_without_classes_can_be_used_for_pretraining(tmp_path):
    table = manifest("folder", videos(tmp_path, "a.mp4", "b.mp4"))
    assert list(table.label) == [-1, -1] and list(table.class_name) == ["", ""]
    assert "'a' is not in a class folder, but other videos are; move it into one" in refused(
        "folder", videos(tmp_path, "wave/c.mp4")
    )


def test_circular_links_and_names_that_are_not_utf8_are_handled(tmp_path):
    videos(tmp_path, "wave/a.mp4")
    (tmp_path / "wave" / "again").symlink_to(tmp_path)
    (tmp_path / "wave" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    with open(os.fsencode(tmp_path / "wave") + b"/caf\xe9.mp4", "wb") as file:
        file.write(b"x")
    table = manifest("folder", tmp_path)
    assert dict(table.status) == {"wave/a": "ok", r"wave/caf\xe9": "missing", "wave/gone": "missing"}
    assert list(table.reason) == ["", "its name is not UTF-8; rename it", "it is a broken link"]
    table.to_parquet(tmp_path / "can be stored.parquet")


def test_bad_folders_are_named(tmp_path):
    videos(tmp_path, "train/wave/a.mp4", "val/wave/a.mp4", "clash/wave/a.mp4", "clash/wave/a.avi", "line/wave/a\nb.mp4")
    (tmp_path / "void").mkdir()
    both = {"train": "train", "validation": "val"}
    assert "clip 'wave/a' is listed more than once (train, val)" in refused("folder", tmp_path, annotations=both)
    assert "clash/wave: holds both a.avi and a.mp4; keep one of them" in refused(
        "folder", tmp_path, annotations={"train": "clash"}
    )
    assert "void: holds no video for split 'train'" in refused("folder", tmp_path, annotations={"train": "void"})
    assert "correct annotations.test" in refused("folder", tmp_path, annotations={"train": "train", "test": "nowhere"})
    assert r"'wave/a\nb' cannot name a clip" in refused("folder", tmp_path, annotations={"train": "line"})
    inside = refused("folder", tmp_path, annotations={"train": ".", "validation": "val"})
    assert "the folder of split 'validation' is inside that of split 'train'" in inside


# A CSV of paths


def test_a_csv_of_paths(tmp_path):
    elsewhere = videos(tmp_path / "other disk", "far.mkv") / "far.mkv"
    videos(tmp_path / "data", "clips/-a.mp4", "b.webm")
    write(
        tmp_path / "data",
        {"list.csv": f"\ufeffPath,label\nclips/-a.mp4,wave\n./b.webm,bow\n{elsewhere},wave\ngone.mp4,bow\nno/x.mp4,bow\n"},
    )
    table = manifest("csv", tmp_path / "data", annotations={"train": "list.csv"})
    far = str(elsewhere.with_suffix("")).lstrip("/")
    assert dict(table.label) == {"clips/-a": 1, "b": 0, far: 1, "gone": 0, "no/x": 0}
    assert dict(table.status) == {"clips/-a": "ok", "b": "ok", far: "ok", "gone": "missing", "no/x": "missing"}
    assert table.reason["gone"] == f"no file with this name in {tmp_path / 'data'}"
    assert table.reason["no/x"] == f"no folder {tmp_path / 'data' / 'no'}"
    assert table.start.isna().all() and table.end.isna().all()


def test_one_csv_holds_several_splits_and_parts_of_one_video(tmp_path):
    text = (
        "path,clip_id,start,end,split,label\n"
        "day.mp4,one,0,2.5,train,7\n"
        "day.mp4,two,2.5,,train,3\n"
        "day.mp4,three,,9,val,7\n"
        "x.mp4,four,,,test,\n"
    )
    videos(write(tmp_path, {"all.csv": text}), "day.mp4", "x.mp4")
    table = manifest("csv", tmp_path, annotations=dict.fromkeys(("train", "validation", "test"), "all.csv"))
    assert dict(table.split) == {"four": "test", "one": "train", "three": "validation", "two": "train"}
    assert dict(table.label) == {"four": -1, "one": 7, "three": 7, "two": 3}  # whole numbers are used unchanged
    assert dict(table.class_name) == {"four": "", "one": "7", "three": "7", "two": "3"}
    assert list(table.start.fillna(-1)) == [-1, 0, -1, 2.5] and list(table.end.fillna(-1)) == [-1, 2.5, 9, -1]
    assert set(manifest("csv", tmp_path, annotations={"train": "all.csv"}).index) == {"one", "two"}


def test_a_labels_file_determines_the_order_of_classes(tmp_path):
    files = {"t.csv": "path,label\na.mp4,wave\nb.mp4,bow\n", "n.csv": "path,label\na.mp4,1\n", "classes.txt": "wave\nnod\nbow\n"}
    write(tmp_path, files)
    named = manifest("csv", tmp_path, annotations={"train": "t.csv", "labels": "classes.txt"})
    assert dict(named.label) == {"a": 0, "b": 2}
    numbered = manifest("csv", tmp_path, annotations={"train": "n.csv", "labels": "classes.txt"})
    assert list(numbered.label) == [1] and list(numbered.class_name) == ["nod"]
    write(tmp_path, {"n.csv": "path,label\na.mp4,3\n", "t.csv": "path,label\na.mp4,waves\n"})
    said = refused("csv", tmp_path, annotations={"train": "n.csv", "labels": "classes.txt"})
    assert "n.csv: label 3 cannot be used: labels count from 0, and there are 3 classes in classes.txt" in said
    said = refused("csv", tmp_path, annotations={"train": "t.csv", "labels": "classes.txt"})
    assert "classes.txt: no line for class 'waves', which the annotations use; did you mean 'wave'?" in said
    write(tmp_path, {"k.csv": "label,youtube_id,time_start,time_end,split\nbow,x,0,1,train\n", "videos/x.txt": ""})
    assert list(manifest("kinetics", tmp_path, annotations={"train": "k.csv", "labels": "classes.txt"}).label) == [2]
    write(tmp_path, {"classes.txt": "wave\nwave\n"})
    assert "classes.txt: lines 1 and 2 are both 'wave'" in refused(
        "csv", tmp_path, annotations={"train": "t.csv", "labels": "classes.txt"}
    )


def test_a_csv_without_labels_can_be_used_for_pretraining(tmp_path):
    table = manifest("csv", write(tmp_path, {"t.csv": "path\na.mp4\n"}), annotations={"train": "t.csv"})
    assert list(table.label) == [-1] and list(table.class_name) == [""]


@pytest.mark.parametrize(("text", "sentence"), [
    ("a.mp4,wave\n", "t.csv: no column 'path' in its header (a.mp4,wave); the first line must name the columns"),
    ("path,lable\na.mp4,wave\n", "t.csv: unknown column 'lable'; did you mean 'label'?"),
    ("path,label\na.mp4,wave,1\n", "t.csv: its rows have more fields than its header"),
    ("path,label\na.mp4,wave\n,bow\n", "t.csv: row 2 after the header, path '' is empty"),
    ("path,label\na.mp4,wave\nb.mp4\n", "t.csv: row 2 after the header, label '' is empty"),
    ("path,start,end\na.mp4,2,2\n", "t.csv: row 1 after the header, end '2' is not after the start"),
    ("path,start,end\na.mp4,-1,2\n", "t.csv: row 1 after the header, start '-1' is not a time in seconds (0 or more)"),
    ("path,start\na.mp4,inf\n", "t.csv: row 1 after the header, start 'inf' is not a time in seconds"),
    ("path,start\na.mp4,1\nb.mp4,\na.mp4,2\n", "t.csv: rows 1 and 3 after the header are both clip 'a'"),
    ("path\n../a.mp4\n", "t.csv: '../a' cannot name a clip; a clip_id is a relative name without empty parts, '.', '..'"),
    ("path,clip_id\na.mp4,/etc/a\n", "t.csv: '/etc/a' cannot name a clip"),
    ("path,clip_id\na.mp4,b//a\n", "t.csv: 'b//a' cannot name a clip"),
    ("path,clip_id\na.mp4,\n", "t.csv: row 1 after the header, clip_id '' is empty"),
    ("path,split\na.mp4,dev\n", "t.csv: no row of split 'train'; its column split holds dev"),
    ("path,label\na.mp4,-1\n", "t.csv: label -1 cannot be used: labels count from 0"),
    ("path,label\n", "t.csv: has no video for split 'train'"),
    ("", "t.csv: the file is empty"),
])  # fmt: skip
def test_bad_csvs_are_named(tmp_path, text, sentence):
    assert sentence in refused("csv", write(tmp_path, {"t.csv": text}), annotations={"train": "t.csv"})


# Real footage


def test_real_ucf101(real_videos):
    table = manifest("ucf101", real_videos / "ucf101")
    assert table.split.value_counts().to_dict() == {"train": 9537, "test": 3783}
    assert table.label.nunique() == 101 and table.class_name[table.label == 36].unique() == ["HandstandPushups"]
    found = table[table.status == "ok"]
    assert dict(found.label) == {
        "v_ApplyEyeMakeup_g01_c01": 0,
        "v_BaseballPitch_g01_c01": 6,
        "v_Basketball_g01_c01": 7,
        "v_SoccerJuggling_g23_c01": 83,
        "v_SoccerJuggling_g24_c01": 83,
    }


def test_real_hmdb51(real_videos):
    table = manifest("hmdb51", real_videos / "hmdb51")
    assert table.split.value_counts().to_dict() == {"train": 140, "test": 60}
    assert table.groupby("class_name").label.unique().map(list).to_dict() == {"cartwheel": [0], "wave": [1]}
    found = table[table.status == "ok"]
    assert found.class_name.value_counts().to_dict() == {"wave": 2, "cartwheel": 1}  # the fold does not use the fourth video


def test_real_folders_and_paths(real_videos, tmp_path):
    table = manifest("folder", real_videos / "ucf101/UCF-101")
    assert list(table.label) == [0, 1, 2, 3, 3] and set(table.status) == {"ok"}
    names = sorted(p.name for p in (real_videos / "odd").iterdir())
    write(tmp_path, {"odd.csv": "path\n" + "\n".join(names)})
    table = manifest("csv", tmp_path, videos=str(real_videos / "odd"), annotations={"train": "odd.csv"})
    assert len(table) == len(names) == 13
    assert table.status["-video-with-dash-"] == "ok" and dict(table.status[table.status != "ok"]) == {"zero_bytes": "empty"}


# Names and labels that other programs have changed


def test_whole_numbers_written_with_a_point_are_these_labels(tmp_path):
    write(tmp_path, {"t.csv": "path,label\n" + "".join(f"{n}.mp4,{n}.0\n" for n in (0, 1, 2, 10))})
    table = manifest("csv", tmp_path, annotations={"train": "t.csv"})
    assert dict(table.label) == {"0": 0, "1": 1, "2": 2, "10": 10} and set(table.class_name) == {"0", "1", "2", "10"}
    write(tmp_path, {"t.csv": "path,label\na.mp4,1\nb.mp4,0.5\n"})
    said = refused("csv", tmp_path, annotations={"train": "t.csv"})
    assert "t.csv: label '0.5' is not a whole number; give class names or whole numbers from 0" in said


def test_padded_numbers_are_named_as_they_are_written(tmp_path):
    table = manifest("folder", videos(tmp_path / "f", "001/a.mp4", "002/b.mp4", "010/c.mp4"))
    assert list(table.class_name) == ["001", "002", "010"] and list(table.label) == [0, 1, 2]
    write(tmp_path, {"t.csv": "path,label\na.mp4,001\nb.mp4,010\nc.mp4,2\nd.mp4,02\n"})
    table = manifest("csv", tmp_path, annotations={"train": "t.csv"})
    assert list(table.label) == [1, 10, 2, 2] and list(table.class_name) == ["001", "010", "2", "2"]


@pytest.mark.parametrize("form", ["csv", "kinetics"])
def test_a_stray_quote_is_a_sentence_with_its_line(tmp_path, form):
    head, row = {"csv": ("path,label", "{}.mp4,{}"), "kinetics": ("label,youtube_id,time_start,time_end", "{1},{0},0,10")}[form]
    cells = ["pipe", '5 inch "pipe', "wave", 'a "b']
    (tmp_path / "videos").mkdir()
    write(tmp_path, {"t.csv": head + "\n" + "".join(row.format(f"v{n}", c) + "\n" for n, c in enumerate(cells))})
    assert "t.csv: line 3 has a stray double quote (" in refused(form, tmp_path, annotations={"train": "t.csv"})
    cells = ["pipe", '"5 inch ""pipe"', '"a, b"', "wave"]
    write(tmp_path, {"t.csv": head + "\n" + "".join(row.format(f"v{n}", c) + "\n" for n, c in enumerate(cells))})
    assert set(manifest(form, tmp_path, annotations={"train": "t.csv"}).class_name) == {"pipe", '5 inch "pipe', "a, b", "wave"}


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("listed", "stored"), [(NFC, NFD), (NFD, NFC)])
def test_the_unicode_forms_of_a_name_are_one_name(tmp_path, listed, stored):
    videos(tmp_path / "csv", f"{stored}/{stored}.mp4")
    write(tmp_path / "csv", {"t.csv": f"path,label\n{listed}/{listed}.mp4,{listed}\n"})
    table = manifest("csv", tmp_path / "csv", annotations={"train": "t.csv"})
    assert list(table.status) == ["ok"] and list(table.index) == [f"{NFC}/{NFC}"] and list(table.class_name) == [NFC]
    assert os.path.exists(tmp_path / "csv" / table.path.iloc[0])
    lists = {"classes": f"1 {listed}\n", "train": f"{listed}/v_{listed}.avi 1\n", "test": f"{listed}/w.avi\n"}
    videos(ucf101(tmp_path / "u", **lists), f"UCF-101/{stored}/v_{stored}.avi")
    assert manifest("ucf101", tmp_path / "u").status[f"v_{NFC}"] == "ok"
    table = manifest("folder", videos(tmp_path / "folders", f"{listed}/a.mp4", f"{stored}/b.mp4"))
    assert set(table.class_name) == {NFC} and list(table.label) == [0, 0] and set(table.status) == {"ok"}


def test_a_folder_that_cannot_be_listed_is_left_out_and_reported(tmp_path, monkeypatch):
    videos(tmp_path, "bow/a.mp4", "wave/b.mp4", "lost+found/c.mp4")
    scandir = os.scandir

    def listing(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    table, notes = with_notes("folder", tmp_path)
    assert list(table.class_name) == ["bow", "wave"]
    assert notes == [f"1 folder(s) cannot be listed and are left out, for example {tmp_path}/lost+found (Permission denied)"]


# Lists of other programs, and what is left out


def with_notes(form: str, root: Path, **settings) -> tuple[pd.DataFrame, list[str]]:
    dataset = Dataset(format=form, root=root, shards=1, **settings)
    out = root.parent / "manifest.parquet"
    write_manifest(ManifestJob(name="mine", dataset=dataset), out)
    table = pd.read_parquet(out)
    return table, table.attrs["notes"]


def test_a_list_of_mmaction2_is_recognised(tmp_path):
    write(tmp_path, {"t.csv": "wave/a b.mp4 0\nbow/c.mp4 1\n"})
    said = refused("csv", tmp_path, annotations={"train": "t.csv"})
    assert "t.csv: 'wave/a b.mp4 0' is a row of a list 'path label' (as for MMAction2), not a header; write a first line" in said


def test_paths_with_backslashes_are_read(tmp_path):
    videos(tmp_path, "wave/a.mp4", "bow/b.mp4", "odd\\c.mp4")
    write(tmp_path, {"t.csv": "path,label\nwave\\a.mp4,wave\nbow/b.mp4,bow\nodd\\c.mp4,bow\n"})
    table, notes = with_notes("csv", tmp_path, annotations={"train": "t.csv"})
    assert list(table.clip_id) == ["bow/b", "odd\\c", "wave/a"] and set(table.status) == {"ok"}
    assert "1 path(s) with backslashes are read with slashes" in notes
    write(tmp_path, {"t.csv": "path,label\nC:\\data\\a.mp4,wave\n"})
    assert "path 'C:/data/a.mp4' is a path of Windows" in refused("csv", tmp_path, annotations={"train": "t.csv"})


def test_what_is_left_out_is_counted(tmp_path):
    root = videos(tmp_path / "d", "v1.mp4", "V2.MP4", "more/v3.mp4", "more/notes.txt", "x.zip", "y.zip", "README")
    write(root, {"t.csv": "path,label\nv1.mp4,wave\nv2.mp4,bow\nmore/v3.mp4,bow\n"})
    assert with_notes("csv", root, annotations={"train": "t.csv"})[1] == [
        "4 file(s) are not videos and are ignored (2 .zip, 1 no suffix, 1 .txt)",
        f"1 video file(s) are in no row, for example {root}/V2.MP4: not annotated, or not selected",
        f"1 missing video(s) nearly match a file, for example {root}/v2.mp4 and {root}/V2.MP4: correct the list or rename the file",
    ]
    (root / "videos").mkdir()
    videos(root, "videos/v1_000000_000010.mp4", "videos/other.mp4", "videos/a.part")
    write(root, {"k.csv": "label,youtube_id,time_start,time_end\nwave,v1,0,10\nwave,v9,0,10\n"})
    notes = with_notes("kinetics", root, annotations={"train": "k.csv"})[1]
    assert notes[:2] == [
        "1 file(s) are not videos and are ignored (1 .part)",
        f"1 video file(s) are in no row, for example {root}/videos/other.mp4: not annotated, or not selected",
    ]
    assert notes[2].startswith("split 'train': all 1 usable videos are of one class, 'wave'; a classifier")


def test_further_folds_are_columns_and_their_videos_are_rows(tmp_path):
    """Fold 2 of HMDB51 uses a video that fold 1 does not, and swaps others: the frames of all are extracted once."""
    hmdb51(
        tmp_path,
        **{
            "wave_test_split2.txt": "21 _wave_u_&_0.avi 2 \nb_wave_1.avi 1 \n",
            "cartwheel_test_split2.txt": "(Rad)Schlag_die_Bank!_cartwheel_0.avi 0 \nunused_cartwheel_1.avi 1 \nc_cartwheel_2.avi 2 \n",
        },
    )
    dataset = Dataset(format="hmdb51", root=tmp_path, shards=2)
    table = build_manifest("h", dataset, [2]).set_index("clip_id")
    assert table[["split", "split_fold2"]].to_dict("index") == {
        "cartwheel/(Rad)Schlag_die_Bank!_cartwheel_0": {"split": "train", "split_fold2": ""},
        "cartwheel/c_cartwheel_2": {"split": "test", "split_fold2": "test"},
        "cartwheel/unused_cartwheel_1": {"split": "", "split_fold2": "train"},
        "wave/21 _wave_u_&_0": {"split": "train", "split_fold2": "test"},
        "wave/b_wave_1": {"split": "test", "split_fold2": "train"},
    }
    assert table.label.to_list() == [0, 0, 0, 1, 1] and "split_fold2" not in build_manifest("h", dataset)
