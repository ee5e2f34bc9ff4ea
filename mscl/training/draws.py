"""Random numbers of one training step: drawn for the whole batch, of which a process (or a part of a step) takes its rows.

So a clip gets the same numbers however many processes share its batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")


class Draws:
    """Numbers of step `step` of a run with `seed`, for rows `rows` of a batch of `total` clips; drawn on the CPU, given on `device`.

    Also seeds torch's global generator, from which dropout and the key encoders' shuffling draw, anew for each `part`.
    """

    def __init__(self, seed: int, step: int, total: int, rows: slice | None = None, part: int = 0, device: torch.device = CPU):
        mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
        torch.manual_seed(mixed + part)
        self._generator = torch.Generator().manual_seed(mixed)
        self.total, self.rows, self.device = total, rows or slice(0, total), device

    def _given(self, drawn: Tensor) -> Tensor:
        """The rows of this process. A copy as small as this is taken over at once: neither side waits for the other."""
        return drawn[self.rows].to(self.device, non_blocking=True)

    def uniform(self, low: float = 0.0, high: float = 1.0, frames: int | None = None) -> Tensor:
        """One number per clip in [low, high), float32, (B,); with `frames`, so many per clip, (B, frames)."""
        shape = (self.total,) if frames is None else (self.total, frames)
        return self._given(torch.rand(shape, generator=self._generator, dtype=torch.float32) * (high - low) + low)

    def chance(self, p: float) -> Tensor:
        """True with probability p, per clip."""
        return self.uniform() < p

    def integers(self, high: int) -> Tensor:
        """One whole number in 0..high-1 per clip."""
        return self._given(torch.randint(0, high, (self.total,), generator=self._generator))
