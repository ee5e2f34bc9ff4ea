import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mscl.config.datasets import FramesConfig
from mscl.stages.jobs import FramesJob, dumps
from mscl.store.jpeg import decode_rgb
from mscl.store.parallel import in_order
from mscl.video import decord_io
from mscl.video.extract import extract_shard
from mscl.video.ffmpeg import decode, split_jpegs
from mscl.video.program import ffmpeg_exe, program
from tests.video.shard import brightness, extract, write_manifest

REAL = Path(os.environ.get("MSCL_REAL_VIDEOS", Path(__file__).parents[3] / "shared" / "videos"))
FRAMES = 37
WIDTH, HEIGHT = 96, 64


def grey(n):
    """Brightness that distinguishes frame n from its neighbours after two lossy encodings."""
    return 20 + 6 * n


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """37 frames, each of constant brightness given by its number; the time between frames varies (variable frame rate)."""
    path = tmp_path_factory.mktemp("video") / "-odd name: with 'quotes' & (more), 100%.mkv"
    raw = np.stack([np.full((HEIGHT, WIDTH, 3), grey(n), np.uint8) for n in range(FRAMES)])
    source = f"-v error -nostdin -f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r 25 -i pipe:0".split()
    timing = ["-vf", "setpts='floor(if(lt(N,10),N,10+(N-10)*3)/25/TB+0.5)'", f"-{program().timing}", "passthrough"]
    codec = "-c:v mpeg4 -q:v 2 -g 12 -y".split()
    subprocess.run([ffmpeg_exe(), *source, *timing, *codec, f"file:{path}"], input=raw.tobytes(), check=True)
    return path


@pytest.mark.parametrize("step", [1, 2, 5])
def test_exactly_every_step_th_raw_frame_is_stored(tmp_path, video, step):
    shards = extract(tmp_path, [("a", video)], FramesConfig(step=step))
    frames = shards.frames(0)
    assert list(frames) == list(range(0, FRAMES, step))
    assert np.abs(brightness(shards, 0) - grey(frames)).max() < 3  # half the distance between two frames
    expected = [(n if n < 10 else 10 + (n - 10) * 3) / 25 for n in frames]
    assert shards.column("pts", 0) == pytest.approx(expected, abs=0.002)  # Matroska time stamps are in milliseconds
    assert shards.clips["raw_frames"].iloc[0] == FRAMES


def test_frames_are_the_same_as_with_decord(tmp_path, video):
    shards = extract(tmp_path, [("a", video)])
    theirs = decord_io.read(video, shards.frames(0))
    ours = np.stack([decode_rgb(shards.read(0, k)) for k in range(len(theirs))])
    assert theirs.shape == ours.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 4


def test_a_span_of_a_longer_video(tmp_path, video):
    """Times are in seconds from the start of the video and exact to the frame, although key frames are 12 frames apart."""
    shards = extract(tmp_path, [{"clip_id": "a", "path": str(video), "start": 0.2, "end": 0.4}], FramesConfig(step=1))
    assert list(shards.frames(0)) == [0, 1, 2, 3, 4]
    assert np.abs(brightness(shards, 0) - grey(np.arange(5, 10))).max() < 3
    beyond = extract(tmp_path, [{"clip_id": "a", "path": str(video), "start": 90, "end": 95}]).clips.iloc[0]
    assert (beyond["status"], beyond["reason"]) == ("broken", "no frame from 90 s to 95 s")


@pytest.mark.parametrize("suffix", ["mp4", "mts", "mpg", "mkv", "flv"])
def test_adjacent_spans_share_no_frame_and_skip_none(tmp_path, suffix):
    """20 s at 25 fps with a key frame every 2 s; the brightness gives the second. Includes containers with inexact seeking."""
    path = tmp_path / f"long.{suffix}"
    run = [ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "color=black:s=64x48:r=25:d=20"]
    codec = {"mpg": "mpeg2video", "flv": "flv"}.get(suffix, "libx264")
    brightness_of_second = "geq=lum='20+10*floor(N/25)':cb=128:cr=128"
    subprocess.run([*run, "-vf", brightness_of_second, "-c:v", codec, "-q:v", "3", "-g", "50", str(path)], check=True)
    rows = [{"clip_id": f"{s:02d}", "path": str(path), "start": s, "end": s + 1} for s in (0, 1, 7, 8, 13, 14, 18)]
    shards = extract(tmp_path, rows, FramesConfig(step=1))
    for row, clip in shards.clips.iterrows():
        second = int(clip["clip_id"])
        found = brightness(shards, row)
        expected = (20 + 10 * second - 16) * 255 / 219  # video range converted to JPEG range
        assert len(found) == 25 and np.abs(found - expected).max() < 4, (clip["clip_id"], found)
        assert shards.column("pts", row)[0] == pytest.approx(0, abs=0.05)


def test_a_killed_ffmpeg_is_tried_again_and_never_leaves_a_shortened_clip(tmp_path, video, monkeypatch):
    """Killed in the middle, as when memory runs out: the received frames are not the whole video."""
    script = tmp_path / "killed"
    script.write_text(
        f'#!/bin/sh\necho x >> {tmp_path}/tries\n"{ffmpeg_exe()}" -v quiet -i "file:{video}" -f image2pipe -vcodec mjpeg pipe:\nkill -9 $$\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr("mscl.video.ffmpeg.arguments", lambda *_, **__: [str(script)])
    got = decode(video, FramesConfig())
    assert not got.jpegs and got.error.startswith("ffmpeg was killed by signal 9, twice")
    assert (tmp_path / "tries").read_text().count("x") == 2


def test_an_ffmpeg_that_was_told_to_stop_is_tried_again(tmp_path, video, monkeypatch):
    """A cluster tells all processes of a job: ffmpeg then ends with what it has, and says so."""
    script = tmp_path / "told"
    script.write_text(
        f'#!/bin/sh\necho x >> {tmp_path}/tries\n"{ffmpeg_exe()}" -v quiet -i "file:{video}" -f image2pipe -vcodec mjpeg pipe:\n'
        "echo '[info] Exiting normally, received signal 15.' >&2\nexit 255\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr("mscl.video.ffmpeg.arguments", lambda *_, **__: [str(script)])
    got = decode(video, FramesConfig())
    assert not got.jpegs and got.error.startswith("ffmpeg was killed by a signal, twice")
    assert (tmp_path / "tries").read_text().count("x") == 2


def test_metadata_that_looks_like_ffmpeg_log_lines_is_ignored(tmp_path, video):
    path = tmp_path / "boast.mkv"
    title = "title=n: 0 pts: 0 pts_time:0.5 s:1x1 [error] boo"
    run = [ffmpeg_exe(), "-v", "error", "-nostdin", "-i", f"file:{video}", "-c", "copy", "-metadata", title, str(path)]
    subprocess.run(run, check=True)
    got = decode(path, FramesConfig(step=1))
    assert len(got.jpegs) == len(got.pts) == FRAMES and got.error == ""


def test_the_first_real_video_stream_is_used_and_not_the_cover_picture(tmp_path):
    """A file with a cover picture, two video streams and sound: only the first video stream is extracted."""
    path = tmp_path / "many.mp4"
    cover = tmp_path / "cover.png"
    run = [ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
    subprocess.run([*run, "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", str(cover)], check=True)
    grey_of = lambda level: f"color=0x{level:02x}{level:02x}{level:02x}:s=64x48:r=10:d=1"
    generated = (part for source in (grey_of(80), grey_of(200), "sine=d=1") for part in ("-f", "lavfi", "-i", source))
    streams = "-map 0 -map 1 -map 2 -map 3 -c:v:0 png -c:v:1 mpeg4 -c:v:2 mpeg4 -disposition:v:0 attached_pic".split()
    subprocess.run([*run, "-i", str(cover), *generated, *streams, str(path)], check=True)
    shards = extract(tmp_path, [("a", path)], FramesConfig(step=1))
    assert shards.clips.loc[0, ["status", "count", "width", "height"]].tolist() == ["ok", 10, 64, 48]
    assert np.abs(brightness(shards, 0) - 80).max() < 3


def test_a_killed_extraction_resumes_and_ends_with_the_same_bytes(tmp_path, video):
    """SIGKILL in the middle of a shard: stored videos are not decoded again."""
    rows = [{"clip_id": f"v{n:03d}", "path": str(video)} for n in range(120)]
    whole = extract(tmp_path / "whole", rows)
    folder = tmp_path / "killed"
    manifest, out = write_manifest(folder, rows), folder / "frames" / "0003.parquet"
    command = [sys.executable, "-m", "mscl", "frames", "--job", dumps(FramesJob(frames=FramesConfig()))]
    command += [str(manifest), "3", "--out", str(out), "--workers", "2"]
    journal = out.parent / ".0003.tar.journal"
    process = subprocess.Popen(command, env=os.environ | {"MSCL_SYNC_SECONDS": "0"})
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
        assert process.poll() is None
    process.kill()
    process.wait()
    stored = journal.read_bytes().count(b"\n") - 1
    assert 20 <= stored < 120 and not out.exists() and not out.with_suffix(".tar").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"resuming after {stored} clips" in again.stderr
    assert out.read_bytes() == whole.index_paths[0].read_bytes()
    assert out.with_suffix(".tar").read_bytes() == whole.tar_paths[0].read_bytes()


def test_short_side_shrinks_and_never_enlarges(tmp_path, video):
    small = extract(tmp_path, [("a", video)], FramesConfig(short_side=16)).clips.iloc[0]
    assert (small["width"], small["height"]) == (24, 16)
    same = extract(tmp_path, [("a", video)], FramesConfig(short_side=256)).clips.iloc[0]
    assert (same["width"], same["height"]) == (WIDTH, HEIGHT)


def test_a_shard_is_deterministic_sorted_and_holds_only_its_rows(tmp_path, video):
    rows = [("z", video), ("m", video), ("a", video), {"clip_id": "other", "path": str(video), "shard": 4}]
    first = extract(tmp_path, rows, workers=3)
    assert list(first.clips["clip_id"]) == ["a", "m", "z"]
    kept = [(p, p.read_bytes()) for p in (first.index_paths[0], first.tar_paths[0])]
    extract(tmp_path, rows, workers=1)
    assert all(path.read_bytes() == old for path, old in kept)


def test_missing_empty_and_broken_become_rows(tmp_path, video):
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"no video at all")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    rows = [
        {"clip_id": "a", "path": "gone.mp4", "status": "missing", "reason": "no file gone.mp4"},
        ("b", junk),
        ("c", tmp_path / "vanished.mp4"),
        ("d", cut),
        ("e", video),
    ]
    clips = extract(tmp_path, rows).clips.set_index("clip_id")
    assert list(clips["status"]) == ["missing", "broken", "broken", "ok", "ok"]
    assert clips.loc["a", "reason"] == "no file gone.mp4"
    assert "Invalid data" in clips.loc["b", "reason"] or "moov" in clips.loc["b", "reason"]
    assert "cannot be opened now (No such file or directory)" in clips.loc["c", "reason"]
    assert clips.loc["d", "reason"] and 0 < clips.loc["d", "count"] < clips.loc["e", "count"]
    assert clips.loc["e", "reason"] == ""


def test_an_unmounted_disk_is_reported_and_not_a_shard_of_broken_videos(tmp_path, video):
    rows = [("a", tmp_path / "gone.mp4"), ("b", tmp_path / "gone too.mp4")]
    with pytest.raises(ValueError, match="none of the 2 videos of shard 3 exists any more .*gone.mp4.*snakemake -R manifest"):
        extract(tmp_path, rows)
    assert not (tmp_path / "frames").exists()


def test_a_reason_is_found_even_if_ffmpegs_threads_split_log_lines(tmp_path, video):
    """Without the check for split lines, about one in ten runs lost its reason: ffmpeg wrote it into another line."""
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert {decode(cut, FramesConfig()).error for _ in range(60)} == {"File ended prematurely"}


def test_time_limit(monkeypatch, video):
    monkeypatch.setattr("mscl.video.ffmpeg.arguments", lambda *_, **__: ["sleep", "20"])
    got = decode(video, FramesConfig(timeout=1))
    assert not got.jpegs and "longer than 1 s" in got.error


def test_foreign_manifest(tmp_path):
    pd.DataFrame({"clip_id": ["a"]}).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"m\.parquet: not a"):
        extract_shard(FramesJob(frames=FramesConfig()), tmp_path / "m.parquet", 0, tmp_path / "0.tar", tmp_path / "0.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["m.parquet"]


def test_results_come_in_order_with_few_in_flight():
    seen = []
    results = in_order(lambda n: seen.append(n) or n * n, iter(range(50)), 2)
    assert next(results) == 0
    assert len(seen) <= 5
    assert list(results) == [n * n for n in range(1, 50)]


def test_split_jpegs_skips_end_markers_inside_headers():
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xd8"
    one = b"\xff\xd8" + comment + b"\xff\xda\x00\x04ab" + b"data\xff\x00\xff\xd9"
    assert split_jpegs(one * 3) == [one] * 3
    assert split_jpegs(one + one[:-3]) == [one]
    assert split_jpegs(b"") == []


def test_decord_errors_are_clear(tmp_path, video):
    assert decord_io.probe(video)[0::2] == (FRAMES, WIDTH)
    with pytest.raises(decord_io.VideoError, match="no such video file"):
        decord_io.probe(tmp_path / "none.mp4")
    with pytest.raises(decord_io.VideoError, match=f"has {FRAMES} frames; there is no frame 99"):
        decord_io.read(video, [0, 99])
    (tmp_path / "x.mp4").write_bytes(b"junk")
    with pytest.raises(decord_io.VideoError, match="cannot open it"):
        decord_io.probe(tmp_path / "x.mp4")


@pytest.mark.skipif(not (REAL / "odd").is_dir(), reason="no real footage; set MSCL_REAL_VIDEOS")
def test_every_unusual_file_is_usable_or_has_a_reason(tmp_path):
    files = sorted((REAL / "odd").iterdir())
    shards = extract(tmp_path, [(f.name, f) for f in files])
    assert len(shards) == len(files)
    for row, clip in shards.clips.iterrows():
        if clip["status"] == "ok":
            shapes = {decode_rgb(shards.read(row, k)).shape for k in range(clip["count"])}
            assert shapes == {(clip["height"], clip["width"], 3)}
            assert min(clip["height"], clip["width"]) <= 256
            assert len(shards.column("pts", row)) == clip["count"] == -(-clip["raw_frames"] // 2)
        else:
            assert clip["status"] == "broken" and clip["reason"] and clip["count"] == 0
    clips = shards.clips.set_index("clip_id")
    assert set(clips.index[clips["status"] == "broken"]) == {"Mpeg4.mp4", "mp4-with-audio.mp4", "zero_bytes.webm"}
    assert set(clips.index[(clips["status"] == "ok") & (clips["reason"] != "")]) == {
        "corrupted.mp4",
        "resolution_changes.mp4",
        "truncated.mkv",
    }
    assert tuple(clips.loc["video_90.mov", ["width", "height"]]) == (256, 454)  # upright
    again = {clip: decode(REAL / "odd" / clip, FramesConfig()).jpegs for clip in ("resolution_changes.mp4", "corrupted.mp4")}
    for clip, jpegs in again.items():  # decoding is deterministic
        row = shards.row(clip)
        assert list(jpegs) == [shards.read(row, k) for k in range(len(jpegs))]
