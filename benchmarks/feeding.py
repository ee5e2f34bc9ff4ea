"""Training from the store, compared with the same training on tensors that are already in memory.

    python -m benchmarks.feeding [--config config.yaml] [--model r18] [--method mscl] [--workers 0] [--epochs 2]

The stores of `--config` must exist (`make demo` makes those of config.yaml). Both runs use the loop of the engine with the same
loader. One reads and decodes clips, the other returns copies of one sample. They take turns, one epoch each. The benchmark also
prints how many samples per second one core reads, and how many cores are needed for one device at the measured rate, or at
`--rate` samples per second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset

from benchmarks.common import machine, versions
from mscl.config.schema import load_config
from mscl.models.build import build_method
from mscl.stages import build, jobs
from mscl.training.clips import PretrainClips, pretrain_rows
from mscl.training.engine import Machine, Run
from mscl.training.hardware import place, prepare_device
from mscl.training.pretrain import PretrainStep


class Ready(Dataset):
    """As many samples as `clips`, all equal to the first one, so that reading costs nothing."""

    def __init__(self, clips: PretrainClips):
        self.length, self.sample = len(clips), clips[0]

    def set_epoch(self, epoch: int) -> None:
        pass

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict:
        return self.sample


def epoch_seconds(job: jobs.PretrainJob, data: Dataset, device: torch.device, workers: int) -> float:
    """The time of one epoch in seconds."""
    torch.manual_seed(0)
    model = place(build_method(job.net, job.contrast, job.switches), device, job.kernels)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(model, data, job.optim, 0, {}, Path(folder) / "checkpoint.pt", Machine(workers, checkpoint_minutes=1e6))
        began = time.perf_counter()
        run.fit(PretrainStep(model, job))
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--model", default="r18")
    parser.add_argument("--method", default="mscl")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, help="samples per second that a device needs; default: the measured rate")
    a = parser.parse_args()
    config = load_config(a.config)
    job = build.pretrain_job(config, a.model, a.method, 0)
    job = job.model_copy(update={"optim": job.optim.model_copy(update={"epochs": 1}), "monitor": None})
    device = prepare_device("auto", job.threads, job.kernels)
    clips = PretrainClips(pretrain_rows(job.sources, job.split), job.clip, job.augment, job.switches, job.net.size, job.seed)
    print(f"{machine()}; {versions('torch')}; {device}, {job.threads} thread(s), {a.workers} loader process(es)")
    ways, times = {"ready": Ready(clips), "store": clips}, {"ready": [], "store": []}
    for _ in range(a.epochs):
        for name, data in ways.items():
            times[name].append(epoch_seconds(job, data, device, a.workers))
    steps = len(clips) // job.optim.batch * job.optim.batch
    rates = {name: steps / statistics.median(found) for name, found in times.items()}
    began = time.process_time()
    for i in range(min(200, len(clips))):
        clips[i]
    read = min(200, len(clips)) / (time.process_time() - began)
    asked = a.rate or rates["ready"]
    print(
        f"{a.config} {a.model} {a.method}: {rates['store']:.1f} videos/s from the store, {rates['ready']:.1f} from memory: "
        f"ratio {rates['store'] / rates['ready']:.3f} (target: 0.9)\n"
        f"one core reads {read:.0f} samples/s; {asked:.0f} samples/s need {asked / read:.2f} cores"
    )


if __name__ == "__main__":
    main()
