"""Signals that ask a training run to stop."""

from __future__ import annotations

import signal


class StopSignal:
    """Store SIGTERM or SIGUSR1 in `number`, so that the training loop can save a checkpoint before it ends.

    `number` is 0 without a signal. After `release`, the signals end the process immediately.
    """

    def __init__(self) -> None:
        self.number = 0
        for name in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, self._remember)

    def _remember(self, number: int, _frame: object) -> None:
        self.number = number

    def release(self) -> None:
        """Stop deferring signals. Raises SystemExit(128 + number) if one has arrived."""
        for name in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, self._leave)
        if self.number:
            self._leave(self.number, None)

    @staticmethod
    def _leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)
