"""Progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm as _bar

from mscl.watch.keep import BAR, BARS

LINE_SECONDS = 30.0  # at least, between two lines
BLOCKS = 20  # length of such a bar


class _Lines(_bar):
    """A plain line now and then, so that log files and parallel jobs stay readable: how far, how long still, how fast."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if msg is None and self.n > self.initial:  # not when a bar would be wiped out; nothing is known before the first step
            print(line(self.format_dict), file=sys.stderr, flush=True)
        return False

    def write(self, text: str) -> None:
        """A line of somebody else, after which the next of these has time."""
        print(text, flush=True)
        self.last_print_n, self.last_print_t = self.n, self._time()

    def close(self) -> None:
        self._last = True
        if not self.disable and self.n > self.last_print_n:  # the last line, unless it is already there
            self._ema_dt = lambda: None  # with the mean speed
            self.display()
        self.leave = False
        super().close()


class _Bars(_Lines):
    """The same lines, and every second a bar for the terminal behind `mscl.watch.keep`."""

    _said = 0.0  # when the last line was written, in seconds of the bar's life
    _last = False

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        state = self.format_dict
        if msg is None and state["total"]:
            full = round(BLOCKS * min(1.0, state["n"] / state["total"]))
            print(f"{BAR}[{'#' * full}{'-' * (BLOCKS - full)}] {line(state)}", file=sys.stderr, flush=True)
        if self._last or state["elapsed"] - self._said >= LINE_SECONDS:
            self._said = state["elapsed"]
            super().display(msg, pos)
        return False


def line(state: dict[str, Any]) -> str:
    """One line from the state of a bar: `12 of 40 videos (30%), 1:10 left, 2.5 videos/s, loss 0.31`."""

    def amount(number: float) -> str:  # 12, 2.53, or in bytes 1.20G
        return _bar.format_sizeof(number) if state["unit_scale"] else f"{number:.{max(3, len(f'{number:.0f}'))}g}"

    done, total, spent = state["n"], state["total"], state["elapsed"]
    rate = state["rate"] or ((done - state["initial"]) / spent if spent else 0.0)
    unit = state["unit"] if state["unit_scale"] else f" {state['unit']}s"
    words = [f"{amount(done)} of {amount(total)}{unit} ({done / total:.0%})" if total else f"{amount(done)}{unit}"]
    if total and rate and 0 < done < total:
        words.append(f"{_bar.format_interval((total - done) / rate)} left")
    if rate:
        words.append(f"{amount(rate)}{unit}/s")
    prefix = f"{state['prefix'].removesuffix(': ')}: " if state["prefix"] else ""
    return prefix + ", ".join([*words, *([state["postfix"]] if state["postfix"] else [])])


def time_left(bar: _bar) -> str:
    """How long a bar still takes at its mean speed until now, such as 1:10:00; "" where that is not known."""
    done, spent = bar.n - bar.initial, bar.format_dict["elapsed"]
    return _bar.format_interval(spent * (bar.total - bar.n) / done) if done and bar.total else ""


def tqdm(*args: Any, **kwargs: Any) -> _bar:
    """`tqdm.tqdm`; if stderr is not a terminal, a line at most every 30 seconds, and a bar where Snakemake has a terminal."""
    if sys.stderr.isatty():
        return _bar(*args, dynamic_ncols=True, **kwargs)
    shape, seconds = (_Bars, 1.0) if os.environ.get(BARS) else (_Lines, LINE_SECONDS)
    return shape(*args, **(kwargs | {"mininterval": seconds, "maxinterval": 2 * seconds}))
