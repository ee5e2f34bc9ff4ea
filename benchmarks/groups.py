"""Batch norm in groups: the whole batch through the network with norms that know the groups, or group by group.

    python -m benchmarks.groups [--config config.yaml] [--model r18] [--method moco] [--batch 32] [--groups 4] [--repeats 30]

`together` and `one by one` are those of `compute.kernels.groups`; a network that has other norms computes one by one; `one group` is
what the batch costs without groups. Times of a whole step, medians of interleaved steps, one thread on a CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common import interleaved, machine, versions
from benchmarks.kernels import step_of
from mscl.config.schema import load_config
from mscl.stages import build
from mscl.stages.jobs import PretrainJob
from mscl.training.hardware import prepare_device


def with_groups(job: PretrainJob, groups: int) -> PretrainJob:
    """The job with this number of batch-norm groups."""
    return job.model_copy(update={"contrast": job.contrast.model_copy(update={"bn_groups": groups})})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--model", default="r18")
    parser.add_argument("--method", default="moco")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=30)
    a = parser.parse_args()
    config, device = load_config(a.config), prepare_device("auto", 1)
    job = build.pretrain_job(config, a.model, a.method, 0)
    queue = job.contrast.model_copy(update={"queue": job.contrast.queue // a.batch * a.batch})
    job = job.model_copy(update={"contrast": queue})
    print(f"{machine()}; {versions('torch')}; {device}; {a.config} {a.model} {a.method}, batch {a.batch} in {a.groups} groups")
    grouped = with_groups(job, a.groups)
    ways = {
        "one group": step_of(with_groups(job, 1), a.batch, device),
        "together": step_of(grouped, a.batch, device, groups="together"),
        "one by one": step_of(grouped, a.batch, device, groups="one_by_one"),
    }
    interleaved(1, **ways)  # warms up
    took = interleaved(a.repeats, **ways)
    for name, seconds in took.items():
        print(f"{name:18s} {1000 * seconds:9.1f} ms, {seconds / took['one by one']:.3f} x one by one")


if __name__ == "__main__":
    main()
