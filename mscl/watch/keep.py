"""Behind a stage under Snakemake: its output goes to its log, and to the console with the name of the run before each line.

    python -m mscl pretrain … 2>&1 | python -m mscl.watch.keep results/…/seed0.log 'r18/mscl/s0 pretrain'

Snakemake deletes the log before a job starts; a second, hidden name of the file keeps what earlier attempts have written. On a terminal the
progress of the stage is a bar, which is not part of the log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import BinaryIO

BARS = "MSCL_BARS"  # environment variable of the stage: the console is a terminal, so it should write bars
BAR = "\x1e"  # begins a line that is only a bar
WIPE = b"\r\x1b[K"  # back to the start of the line, which is emptied


def keep(lines: BinaryIO, log: Path, label: str, console: BinaryIO, width: int | None) -> None:
    """Append the lines to the log, after those of earlier attempts, and show them. `width` is that of a terminal, else None.

    A bar is the terminal's last line, until the next line or the next bar, perhaps of another job, takes its place. A console that is closed stops nothing.
    """
    hidden = log.with_name(f".{log.name}")
    if not log.exists() and hidden.exists():
        os.link(hidden, log)
    with log.open("ab", buffering=0) as file:
        file.write(time.strftime("started %F %T\n").encode())
        hidden.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file system without hard links
            os.link(log, hidden)
        wipe, bar = b"" if width is None else WIPE, False
        for line in lines:
            bar = line.startswith(BAR.encode())
            if not bar:
                file.write(line)
            shown = wipe + f"{label}: ".encode() + line.removeprefix(BAR.encode())
            if bar:
                shown = shown.decode(errors="replace").rstrip("\n")[: len(wipe) + (width or 1) - 1].encode() + b"\r"
            with contextlib.suppress(OSError):
                console.write(shown)
                console.flush()
        if bar:
            with contextlib.suppress(OSError):
                console.write(wipe)
                console.flush()


if __name__ == "__main__":
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    keep(sys.stdin.buffer, Path(sys.argv[1]), sys.argv[2], sys.stdout.buffer, columns)
