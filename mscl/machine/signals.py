"""Signals that ask a stage to stop: SIGTERM and SIGUSR1 of a cluster, SIGINT of Ctrl-C. The exit code is 128 and the number."""

from __future__ import annotations

import contextlib
import os
import signal
import time

NAMES = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
TWICE = 1.0  # seconds within which Ctrl-C counts once: torchrun hands on what the terminal has told its processes already


class StopSignal:
    """Remembers a signal, so that a loop can save before it leaves; once released, signals end the process at once.

    A second Ctrl-C ends the process at once, too.
    """

    def __init__(self):
        self.number, self._since = 0, 0.0
        for name in NAMES:
            signal.signal(name, self._remember)

    def _remember(self, number: int, _frame) -> None:
        now = time.monotonic()
        if number == self.number == signal.SIGINT and now - self._since > TWICE:
            _leave(number, None)
        if not self.number:
            self.number, self._since = number, now
            if number == signal.SIGINT:
                _say("stopping: what is done is saved first; press Ctrl-C again to stop without saving")

    def release(self) -> None:
        for name in NAMES:
            signal.signal(name, _leave)
        if self.number:
            _leave(self.number, None)


def leave_at_once(said: str) -> None:
    """From now on a signal ends the process at once, saying `said` on stderr: for work that keeps what is done without being asked."""

    def leave(number: int, _frame) -> None:
        for name in NAMES:
            signal.signal(name, signal.SIG_IGN)  # the process is on its way out
        _say(said)
        _leave(number, None)

    for name in NAMES:
        signal.signal(name, leave)


def _say(text: str) -> None:
    """A line on stderr from within a signal's handler, where `print` may be under way already; nothing where nobody reads."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _leave(number: int, _frame) -> None:
    raise SystemExit(128 + number)
