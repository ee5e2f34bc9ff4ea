"""Progress of a training run: a progress bar, one log line per epoch, and curves for TensorBoard and for a tracker.

None of it is part of the results: speed and memory differ between runs, but the training history does not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from mscl.machine.device import memory_gb
from mscl.watch import tracking
from mscl.watch.progress import time_left, tqdm

IN_THE_BAR = ("acc_rgb", "acc_lmcl", "acc_order", "train_")  # prefixes of the values shown in the progress bar
POINT_SECONDS = 10.0  # seconds between the points of a curve; each point is the mean since the previous one


class Watch:
    """Count the steps, clips and seconds of a run and display them. One object per process.

    `total`: number of steps; `step`: steps already done; `curves`: folder for TensorBoard (None: no curves). `gpu_share` converts
    clips per second to MFU, if known. With `quiet` nothing is displayed; set it for every process except the first.
    """

    def __init__(
        self,
        total: int,
        step: int,
        device: torch.device,
        curves: Path | None,
        gpu_share: Callable[[float], float] | None = None,
        quiet: bool = False,
    ) -> None:
        self.device, self.gpu_share = device, gpu_share
        self.bar = tqdm(total=total, initial=step, unit="step", disable=quiet)
        self.curves = [] if quiet or curves is None else [Curves(curves, step), *tracking.asked_for(curves)]
        self.quiet = quiet
        self._epoch, self._point = Window(), Window()

    def step(self, number: int, values: dict[str, float], clips: int, waited: float) -> None:
        """Record step `number`: its scalars, its number of clips, and the seconds that it waited for data."""
        for window in (self._epoch, self._point):
            window.add(values, clips, waited)
        self.bar.update()
        means = self._epoch.means()
        shown = [(k, v) for k, v in means.items() if k.startswith(IN_THE_BAR) and "_to_" not in k]
        words = [f"loss {means['loss']:.3f}", *(f"{k.removeprefix('acc_')} {v:.2f}" for k, v in shown)]
        self.bar.set_postfix_str(", ".join([*words, *self._speed(self._epoch)]), refresh=False)
        if self._point.seconds() > POINT_SECONDS:
            self._draw(number)

    def epoch(self, number: int, row: dict[str, float]) -> None:
        """Record an epoch whose last step was `number`; `row` is its row of the training history."""
        self._draw(number)
        for curves in self.curves:
            curves.add({f"epoch/{name}": value for name, value in row.items()}, number)
        if not self.quiet:
            found = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("epoch", "lr") and "_to_" not in k)
            left = [f"{left} left"] if self.bar.n < self.bar.total and (left := time_left(self.bar)) else []
            self.bar.write(f"epoch {row['epoch']}: {found} ({', '.join([*left, *self._speed(self._epoch)])})")
        self._epoch = Window()

    def close(self) -> None:
        """Close the progress bar and the curves."""
        self.bar.close()
        for curves in self.curves:
            curves.close()

    def _rates(self, window: Window) -> dict[str, float]:
        rates = {"clips_per_second": window.clips / window.seconds(), "data_wait": window.waited / window.seconds()}
        if self.gpu_share:
            rates["mfu"] = self.gpu_share(rates["clips_per_second"])
        return rates | {"memory_gb": memory_gb(self.device)}

    def _speed(self, window: Window) -> Iterable[str]:
        rates = self._rates(window)
        share = [f"{rates['mfu']:.0%} MFU"] if "mfu" in rates else []
        speed, waiting = f"{rates['clips_per_second']:.0f} clips/s", f"{rates['data_wait']:.0%} waiting for data"
        return [speed, waiting, *share, f"{rates['memory_gb']:.1f} GB"]

    def _draw(self, number: int) -> None:
        if self.curves and self._point.steps:
            points = {f"step/{name}": value for name, value in self._point.means().items()}
            points |= {f"speed/{name}": value for name, value in self._rates(self._point).items()}
            for curves in self.curves:
                curves.add(points, number)
        self._point = Window()


class Window:
    """Sums of steps, clips, waiting seconds and scalars since it was created."""

    def __init__(self) -> None:
        self.began, self.steps, self.clips, self.waited = time.monotonic(), 0, 0, 0.0
        self.sums: dict[str, float] = {}

    def add(self, values: dict[str, float], clips: int, waited: float) -> None:
        self.steps, self.clips, self.waited = self.steps + 1, self.clips + clips, self.waited + waited
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: value / self.steps for name, value in self.sums.items()}

    def seconds(self) -> float:
        return max(time.monotonic() - self.began, 1e-9)


class Curves:
    """Curves that TensorBoard shows, from step `step` on: what an interrupted run wrote after it is dropped.

    They are no result: where they cannot be written (no TensorBoard, a full disk, a folder that is read-only), this is said once
    and the run goes on without.
    """

    def __init__(self, folder: Path, step: int):
        self._writer, self.folder = None, folder
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            warnings.warn("no curves are written: install tensorboard to have them", stacklevel=3)
            return
        try:
            self._writer = SummaryWriter(str(folder), purge_step=step + 1)
        except Exception as error:  # noqa: BLE001 TensorBoard's file systems have errors of their own
            self._give_up(error)

    def add(self, values: dict[str, float], number: int) -> None:
        """Points of several curves after step `number`."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, number)
            self._writer.flush()
        except Exception as error:  # noqa: BLE001
            self._give_up(error)

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except Exception as error:  # noqa: BLE001
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._writer = None
        warnings.warn(f"{self.folder}: curves cannot be written ({error}); training goes on without them", stacklevel=3)
