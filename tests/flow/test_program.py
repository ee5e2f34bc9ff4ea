"""A program of one's own computes the flow: a small one stands in for a network in an environment of its own."""

import sys
from pathlib import Path

import numpy as np
import pytest

import mscl.flow.program
from mscl.config.schema import load_config
from mscl.config.settings import FlowConfig, MDSConfig
from mscl.flow.estimate import make_estimator
from mscl.flow.program import ProgramFailed, read_flo
from mscl.flow.quantise import decode_field
from mscl.flow.shard import flow_shard
from mscl.stages import build, rerun
from mscl.stages.jobs import FlowJob
from mscl.store.shards import Shards
from tests.conftest import tiny_config
from tests.flow.test_shard import frames_index  # noqa: F401 a fixture

# docs/flow-programs.md shows this program, with a network in the place of OpenCV's DIS; here it can also go wrong.
STAND_IN = """\
import csv, sys
import cv2, numpy as np

mode = sys.argv[1]
print("loading weights", "…")
dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
for line in sys.stdin:
    if mode == "die":
        sys.exit("out of memory")
    for first, second, field in csv.reader(open(line.strip())):
        flow = dis.calc(cv2.imread(first, 0), cv2.imread(second, 0), None)
        if mode == "size":
            flow = flow[::2]
        if mode == "nan":
            flow[3, 4] = np.nan
        if mode == "npz":
            np.savez(field, flow=flow)
        elif mode == "junk":
            open(field + ".flo", "w").write("PIEH not a field")
        elif mode != "nothing":
            with open(field + ".flo", "wb") as file:
                file.write(b"PIEH" + np.int32([flow.shape[1], flow.shape[0]]).tobytes() + flow.astype("<f4").tobytes())
    print("" if mode == "mute" else line.strip())
"""


@pytest.fixture
def flow(tmp_path):
    """A configuration of `flow` with the stand-in in a mode."""
    script = tmp_path / "a program's folder" / "my flow.py"
    script.parent.mkdir()
    script.write_text(STAND_IN, encoding="utf-8")

    def of(mode: str) -> FlowConfig:
        command = (sys.executable, str(script), mode)
        return FlowConfig(method="command", command=command, gap=4, size=(96, 128), short_side=48)

    return of


def run(flow: FlowConfig, frames_index: Path, out: Path, workers: int = 1) -> Shards:  # noqa: F811
    job = FlowJob(flow=flow, mds=MDSConfig(stride=1, fields=3), device="cpu", program=build.named_files(flow.command))
    flow_shard(job, frames_index, frames_index.with_suffix(".tar"), out.with_suffix(".tar"), out, workers)
    return Shards([out])


def test_a_program_computes_a_shard(tmp_path, flow, frames_index, capfd):  # noqa: F811
    found = run(flow("flo"), frames_index, tmp_path / "flow" / "set" / "0000.parquet")
    clips = found.clips.set_index("clip_id")
    assert clips["status"].to_dict() == {"good": "ok", "gone": "missing", "bad": "broken", "short": "short", "tiny": "ok"}
    row = found.row("good")
    fields = np.stack([decode_field(found.read(row, k), found.column("scale", row)[k]) for k in range(8)])
    assert np.median(fields[..., 0]) == pytest.approx(4 * 48 / 60, abs=0.25) and np.median(fields[..., 1]) == pytest.approx(
        0, abs=0.1
    )
    assert "loading weights …" in capfd.readouterr().err  # what else it prints is in the log
    other = run(flow("npz"), frames_index, tmp_path / "npz" / "set" / "0000.parquet", workers=3)
    assert other.tar_paths[0].read_bytes() == found.tar_paths[0].read_bytes()


@pytest.mark.parametrize(("mode", "sentence"), [
    ("die", "flow.command: python.* ended with exit status 1 before it answered; what it printed is above"),
    ("nothing", r"flow.command: python.* answered but wrote no field: neither .*field0000\.flo nor .*field0000\.npz is there"),
    ("size", r"flow.command: python.* wrote a field of shape \(48, 128, 2\), but the pictures need \(96, 128, 2\)"),
    ("junk", r"flow.command: python.* wrote a file that is no field, field0000\.flo \(.*\)"),
    ("mute", "flow.command: python.* has not answered for 2 s; it must print the line"),
])  # fmt: skip
def test_a_program_that_does_not_work_stops_the_job(tmp_path, flow, frames_index, mode, sentence, monkeypatch):  # noqa: F811
    monkeypatch.setattr(mscl.flow.program, "ANSWER", 2.0 if mode == "mute" else 600.0)
    with pytest.raises(ProgramFailed, match=f"^{sentence}") as error:
        run(flow(mode), frames_index, tmp_path / "flow" / "set" / "0000.parquet")
    assert "\n" not in str(error.value) and not (tmp_path / "flow" / "set" / "0000.parquet").exists()


def test_a_video_whose_fields_are_not_finite_is_a_row_with_a_reason(tmp_path, flow, frames_index):  # noqa: F811
    clips = run(flow("nan"), frames_index, tmp_path / "flow" / "set" / "0000.parquet").clips.set_index("clip_id")
    assert (clips.loc["good", "status"], clips.loc["good", "reason"]) == ("broken", "the flow field is not finite")


def test_a_program_that_is_not_there(flow):
    asked = flow("flo").model_copy(update={"command": ("no-such-program",)})
    with pytest.raises(ProgramFailed, match="^flow.command: no program no-such-program; install it or correct the path$"):
        make_estimator(asked, "cpu")


def test_the_text_of_the_command_and_the_files_that_it_names_rerun_the_flow(tmp_path, flow):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    command = [*flow("flo").command, f"--weights={weights}", "--fast"]
    values = tiny_config(tmp_path)
    values["flow"] |= {"method": "command", "command": command}

    def lines() -> dict[str, str]:
        return rerun.lines(build.flow_job(load_config(values)))

    before = lines()
    assert set(build.named_files(command)) == {*command[:2], str(weights)}
    weights.write_bytes(b"two")
    after = lines()
    assert [name for name in before if before[name] != after[name]] == ["program"]
    command[-1] = "--slow"
    assert [name for name in after if after[name] != lines()[name]] == ["flow.command"]


def test_a_flo_file_is_read_to_the_bit(tmp_path):
    field = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("<f4")
    whole = b"PIEH" + np.int32([5, 3]).tobytes() + field.tobytes()
    (tmp_path / "a.flo").write_bytes(whole)
    assert np.array_equal(read_flo(tmp_path / "a.flo"), field)
    for wrong in (whole[:-1], b"", b"PIEH" + np.int32([-5, 3]).tobytes()):
        (tmp_path / "b.flo").write_bytes(wrong)
        with pytest.raises(ValueError, match="not a"):
            read_flo(tmp_path / "b.flo")
