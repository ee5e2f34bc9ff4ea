"""The log and the console of a stage under Snakemake: lines in both, bars on a terminal only, the log of earlier attempts stays."""

import io
import os
import pty
import subprocess
import sys

from mscl.watch import progress
from mscl.watch.keep import BAR, BARS, keep

LINES = f"start\n{BAR}[##--] 1 of 2 steps\nepoch 1: loss 2\n{BAR}[####] 2 of 2 steps, Größe\n"


def kept(log, width):
    console = io.BytesIO()
    keep(io.BytesIO(LINES.encode()), log, "r18/mscl/s0 pretrain", console, width)
    return console.getvalue().decode()


def test_lines_are_in_the_log_and_carry_the_run_on_the_console(tmp_path):
    assert kept(tmp_path / "seed0.log", None).startswith("r18/mscl/s0 pretrain: start\n")
    started, *rest = (tmp_path / "seed0.log").read_text().splitlines()
    assert started.startswith("started 20") and rest == ["start", "epoch 1: loss 2"]


def test_the_log_of_an_earlier_attempt_stays_although_snakemake_deletes_it(tmp_path):
    log = tmp_path / "seed0.log"
    for _ in range(3):
        kept(log, None)
        log.unlink()
    kept(log, None)
    assert log.read_text().count("epoch 1: loss 2\n") == 4 and log.read_text().count("started ") == 4


def test_a_bar_takes_one_line_of_the_terminal_and_leaves_it(tmp_path):
    shown = kept(tmp_path / "seed0.log", 40)
    assert "\r\x1b[Kr18/mscl/s0 pretrain: [##--] 1 of 2 ste\r\r\x1b[Kr18/mscl/s0 pretrain: epoch 1: loss 2\n" in shown
    assert shown.endswith("\r\x1b[K") and BAR not in shown


def test_a_closed_console_loses_no_line_of_the_log(tmp_path):
    class Closed(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError

    keep(io.BytesIO(LINES.encode()), tmp_path / "a.log", "x", Closed(), 80)
    assert (tmp_path / "a.log").read_text().endswith("start\nepoch 1: loss 2\n")


def test_a_stage_behind_a_pipe_draws_bars_only_where_there_is_a_terminal(monkeypatch, capfd):
    for bars in ("1", ""):
        monkeypatch.setenv(BARS, bars)
        bar = progress.tqdm(total=2, desc="fit", unit="step", miniters=1, mininterval=0)
        bar.update(2)
        bar.close()
        said = capfd.readouterr().err.split("\n")[:-1]  # splitlines() would cut at BAR
        assert [line for line in said if not line.startswith(BAR)] == ["fit: 2 of 2 steps (100%)" + said[-1].partition("%)")[2]]
        assert any(line.startswith(f"{BAR}[####################] fit: 2 of 2 steps") for line in said) == bool(bars)


def test_the_bar_is_seen_on_a_real_terminal(tmp_path):
    own, terminal = pty.openpty()
    command = [sys.executable, "-m", "mscl.watch.keep", tmp_path / "a.log", "ss/0000 flow"]
    subprocess.run(command, input=LINES.encode(), stdout=terminal, check=True, timeout=60)
    shown = os.read(own, 10_000)
    assert b"\r\x1b[Kss/0000 flow: [##--] 1 of 2 steps\r" in shown
