"""An ffmpeg on PATH that does not work is found before any video is read, and the carried one is used."""

import imageio_ffmpeg
import pytest

from mscl.config.datasets import FramesConfig
from mscl.video.ffmpeg import decode
from mscl.video.program import program
from tests.video.test_unusual import CASES

CARRIED = imageio_ffmpeg.get_ffmpeg_exe()
WITHOUT_H264 = f'case "$*" in *-decoders*) {CARRIED} "$@" | grep -v " h264 ";; *) exec {CARRIED} "$@";; esac'
OLD = f'case "$*" in *-format_whitelist*) echo "Unrecognized option format_whitelist" >&2; exit 1;; *) exec {CARRIED} "$@";; esac'
# As ffmpeg 4.2.2 does: the range of BT.709 stays limited. The range is stretched by the last `scale`, so here it is told not to be.
BRIGHT = f'for a; do shift; set -- "$@" "$(echo "$a" | sed s/out_color_matrix=bt601/out_color_matrix=bt601:in_range=pc/)"; done; exec {CARRIED} "$@"'
SILENT = f'case "$*" in *pipe:*) exit 0;; *) exec {CARRIED} "$@";; esac'


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    def put(script):
        (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "ffmpeg").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        program.cache_clear()
        return str(tmp_path / "ffmpeg")

    yield put
    program.cache_clear()


@pytest.mark.parametrize(("script", "why"), [
    ("exit 0", "it does not say its version"),
    ("echo 'error while loading shared libraries: libx.so' >&2; exit 127", "it does not say its version"),
    (WITHOUT_H264, "no decoder h264"),
    (OLD, "a test video failed: Unrecognized option format_whitelist"),
    (BRIGHT, "wrong colours: it stores black of a BT.709 video as 16 of 255"),
    (SILENT, "a test video failed: 0 of 2 frames came out"),
])  # fmt: skip
def test_a_system_ffmpeg_that_does_not_work_is_reported_and_not_used(on_path, capfd, script, why):
    exe = on_path(script)
    assert program().exe == CARRIED
    assert f"{exe}: this ffmpeg cannot be used ({why}" in capfd.readouterr().err
    assert len(decode(CASES / "plain.mp4", FramesConfig(step=1)).jpegs) == 25


def test_a_program_of_another_machine_does_not_start(on_path, capfd, tmp_path):
    exe = on_path("")
    (tmp_path / "ffmpeg").write_bytes(b"\x7fELF rubbish")
    assert program().exe == CARRIED
    assert f"{exe}: this ffmpeg cannot be used (it does not start: Exec format error)" in capfd.readouterr().err


def test_a_system_ffmpeg_that_works_is_used(on_path, capfd):
    exe = on_path(f'exec {CARRIED} "$@"')
    assert program().exe == exe and capfd.readouterr().err == ""


def test_where_no_ffmpeg_works_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr("mscl.video.program.shutil.which", lambda _: None)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: "/bin/true")
    program.cache_clear()
    with pytest.raises(
        ValueError, match=r"/bin/true: this ffmpeg cannot be used \(it does not say its version\); install ffmpeg"
    ):
        program()
    program.cache_clear()
