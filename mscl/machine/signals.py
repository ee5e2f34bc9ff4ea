"""Signals that ask a training to stop."""

from __future__ import annotations

import signal


class StopSignal:
    """Remembers SIGTERM or SIGUSR1, so that the loop can save before it leaves; once released, they end the process at once."""

    def __init__(self):
        self.number = 0
        for name in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, self._remember)

    def _remember(self, number: int, _frame) -> None:
        self.number = number

    def release(self) -> None:
        for name in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, self._leave)
        if self.number:
            self._leave(self.number, None)

    @staticmethod
    def _leave(number: int, _frame) -> None:
        raise SystemExit(128 + number)
