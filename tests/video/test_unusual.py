"""Videos that are legal but unusual, or that try to be another file; most of the cases come from public bug reports."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mscl.config.datasets import FramesConfig
from mscl.store.jpeg import decode_rgb
from mscl.video.ffmpeg import decode
from mscl.video.log import read_log
from mscl.video.program import ffmpeg_exe
from tests.video.shard import extract

CASES = Path(__file__).parent / "cases"


def make(path, *arguments):
    subprocess.run([ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments), str(path)], check=True)
    return path


@pytest.mark.parametrize("step", [1, 2, 5])
def test_frames_with_equal_time_stamps_are_all_stored(tmp_path, step):
    """50 frames; every tenth has the stamp of the one before. The result is the same in every run."""
    shards = extract(tmp_path, [(f"{n}", CASES / "equal_stamps.mkv") for n in range(4)], FramesConfig(step=step))
    assert set(shards.clips["raw_frames"]) == {50} and set(shards.clips["count"]) == {50 // step}
    assert set(shards.clips["reason"]) == {""}
    assert (np.diff(shards.column("pts", 0)) >= 0).all()


@pytest.mark.parametrize("time", ["N/20/TB", "floor(N/3)/25/TB", "(50-N)/25/TB", "0", "N*40/TB"])
def test_no_time_stamps_lose_a_frame(tmp_path, time):
    """Stamps that are equal, go backwards, or lie 40 s apart."""
    path = make(tmp_path / "a.nut", "-f", "lavfi", "-i", "testsrc=s=32x32:d=2", "-vf", f"setpts={time}", "-fps_mode", "passthrough",
                "-enc_time_base", "1:1000", "-c:v", "ffv1", "-f", "nut")  # fmt: skip
    for step in (1, 2):
        got = decode(path, FramesConfig(step=step))
        assert len(got.pts) == 50 and not got.error and len(got.jpegs) == -(-50 // step)


def test_an_absurd_duration_is_no_reason_to_die(tmp_path):
    clip = extract(tmp_path, [("a", CASES / "absurd_duration.webm")]).clips.iloc[0]
    assert (clip["status"], clip["raw_frames"], clip["fps"], clip["reason"]) == ("ok", 25, 25, "")


def test_the_rate_is_that_of_the_video_stream_and_exact(tmp_path):
    path = make(tmp_path / "a.mp4", "-f", "lavfi", "-i", "testsrc=s=32x32:d=1:r=30000/1001", "-metadata", "title=x, 99 fps")
    assert decode(path, FramesConfig()).fps == pytest.approx(30000 / 1001, abs=1e-9)
    log = [b"[info]   Stream #0:0: Video: png, rgb24, 90k fps (attached pic)", b"[info]   Stream #0:1[0x2](und): Video: h264, 12 fps, 1k tbn",
           b"[info]       title : Stream #0:1: Video: 7 fps", b"[info]   Stream #0:2: Video: h264, 50 fps"]  # fmt: skip
    assert read_log(log).fps == 12


def test_stored_frames_have_square_pixels(tmp_path):
    """180 x 144 pixels of 64:45 are shown as 16:9."""
    shards = extract(tmp_path, [("a", CASES / "non_square_pixels.mp4")])
    clip = shards.clips.iloc[0]
    assert (clip["width"], clip["height"]) == (256, 144) and decode_rgb(shards.read(0, 0)).shape == (144, 256, 3)
    small = decode(CASES / "non_square_pixels.mp4", FramesConfig(short_side=90))
    assert decode_rgb(small.jpegs[0]).shape == (90, 160, 3)


@pytest.mark.parametrize(
    ("aspect", "shape"), [("1/2", (48, 32)), ("0/1", (48, 64)), ("30000/1", (48, 64)), ("1/30000", (48, 64))]
)
def test_only_a_plausible_pixel_aspect_is_believed(tmp_path, aspect, shape):
    path = make(
        tmp_path / "a.mkv", "-f", "lavfi", "-i", "testsrc=s=64x48:d=0.2", "-vf", f"setsar={aspect}:max=60000", "-c:v", "ffv1"
    )
    assert decode_rgb(decode(path, FramesConfig()).jpegs[0]).shape[:2] == shape


@pytest.mark.parametrize("name", ["dash_manifest.mp4", "absolute.mp4", "url.mp4", "list.mp4", "playlist.m3u8", "other.sdp"])
def test_a_file_that_names_another_file_is_not_a_video(tmp_path, name):
    for case in ("dash_manifest.mp4", "plain.mp4"):
        shutil.copy(CASES / case, tmp_path / case)
    plain, manifest = tmp_path / "plain.mp4", (CASES / "dash_manifest.mp4").read_text()
    texts = {
        "absolute.mp4": manifest.replace("plain.mp4", str(plain)),
        "url.mp4": manifest.replace("plain.mp4", f"file://{plain}"),
        "list.mp4": f"ffconcat version 1.0\nfile '{plain}'\n",
        "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nplain.mp4\n#EXT-X-ENDLIST\n",
        "other.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }
    if name in texts:
        (tmp_path / name).write_text(texts[name])
    clip = extract(tmp_path, [("a", tmp_path / name)]).clips.iloc[0]
    assert (clip["status"], clip["count"]) == ("broken", 0)
    assert clip["reason"] == "not a video file of a known format (the list is in docs/datasets.md)"


def test_a_name_with_a_number_pattern_is_a_file_and_not_a_series_of_pictures(tmp_path):
    shutil.copy(CASES / "plain.mp4", tmp_path / "a%03d.mp4")
    assert extract(tmp_path, [("a", tmp_path / "a%03d.mp4")]).clips["raw_frames"].iloc[0] == 25


@pytest.mark.parametrize(("name", "value"), [
    ("AV_LOG_FORCE_COLOR", "1"), ("AV_LOG_FORCE_256COLOR", "1"), ("FFREPORT", "file=/nowhere/x.log:level=48"), ("LANG", "de_DE.UTF-8"),
])  # fmt: skip
def test_settings_of_the_user_for_ffmpeg_make_no_difference(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm-256color")
    clip = extract(tmp_path, [("a", CASES / "plain.mp4")]).clips.iloc[0]
    assert (clip["status"], clip["raw_frames"], clip["fps"], clip["reason"]) == ("ok", 25, 25, "")


@pytest.mark.parametrize(("name", "options", "note"), [
    ("a.mp4", ["-vf", "setfield=tff", "-flags", "+ilme+ildct", "-x264-params", "tff=1"], "interlaced: both fields are in each frame"),
    ("a.mkv", ["-vf", "setparams=color_trc=arib-std-b67", "-c:v", "ffv1"], "HDR (HLG): not tone-mapped"),
    ("a.mkv", ["-vf", "setparams=color_trc=smpte2084", "-c:v", "ffv1"], "HDR (PQ): not tone-mapped"),
    ("a.mov", ["-pix_fmt", "argb", "-c:v", "qtrle"], "transparent: alpha is ignored"),
    ("a.mp4", [], ""),
])  # fmt: skip
def test_what_is_special_about_the_frames_is_noted(tmp_path, name, options, note):
    path = make(tmp_path / name, "-f", "lavfi", "-i", "testsrc=s=64x48:d=0.2", *options)
    clip = extract(tmp_path, [("a", path)]).clips.iloc[0]
    assert (clip["status"], clip["note"], clip["reason"]) == ("ok", note, "")


def test_first_frames_that_refer_to_missing_ones_give_a_reason(tmp_path):
    """The first key frame is lost: what is decoded before the next one is noise."""
    whole = make(tmp_path / "whole.avi", "-f", "lavfi", "-i", "testsrc2=s=64x48:d=2", "-c:v", "mpeg4", "-g", "25")
    path = make(tmp_path / "cut.avi", "-i", whole, "-c", "copy", "-bsf:v", "noise=drop='eq(n,0)'")
    clip = extract(tmp_path, [("a", path)]).clips.iloc[0]
    assert clip["status"] == "ok" and "first frame is no keyframe" in clip["reason"]


def test_warnings_about_corrupt_frames_are_reasons():
    assert (
        read_log([b"[vist#0:0/h264 @ 0x1] [dec:h264 @ 0x2] [warning] corrupt decoded frame\n"]).error == "corrupt decoded frame"
    )
    assert read_log([b"[in#0/mpegts @ 0x1] [warning] corrupt input packet in stream 0\n"]).error.startswith(
        "corrupt input packet"
    )
    assert read_log([b"[h264 @ 0x1] [warning] Increasing reorder buffer to 1\n"]).error == ""


def test_a_full_disk_stops_the_job_and_does_not_shorten_a_video(small_disk):
    """Also where the disk has no room for ffmpeg's own message: 4 KB hold the log or a frame, and not both."""
    for kilobytes in (4, 8, 64):
        with pytest.raises(OSError, match="No space left"):
            decode(CASES / "plain.mp4", FramesConfig(step=1, quality=1), folder=small_disk(kilobytes))
