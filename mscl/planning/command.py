"""The command `plan`: measure or read the rates, make the plan and print it."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path

from mscl.config.schema import Config
from mscl.machine.files import write_json
from mscl.planning.rates import Rate, Rates, load_rates, save_rates
from mscl.stages import build

SECONDS = 40.0  # approximate duration of the measurement: half for frames and flow of all data sets, the rest for training steps


def run_plan(
    config: Config,
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    probe: bool = True,
    rates: Path | None = None,
    save: Path | None = None,
    gpu_tflops: float | None = None,
    json_out: Path | None = None,
    everything: bool = False,
) -> None:
    """Print the summary of the plan of a configuration, or `everything` of it, and write it to `json_out` if given.

    This machine is measured first if `probe` is true and no file of `rates` is given. The rates are written to `save` if given.
    `gpus` or `gpu_tflops` (sustained TFLOP/s of one GPU) select a GPU if compute.device is auto. Raises ValueError with one
    sentence if the configuration or the rates cannot be used or the videos cannot be counted.
    """
    from mscl.planning.plan import make_plan
    from mscl.planning.show import show

    for name, value in (("--cpus", cpus), ("--gpus", gpus)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: {value} is not a valid number; give 1 or more")
    if gpu_tflops is not None and gpu_tflops <= 0:
        raise ValueError(f"--gpu-tflops: {gpu_tflops} is not a valid speed; give the sustained TFLOP/s of one GPU in training")
    found = load_rates(rates, config) if rates else Rates()
    found = found.model_copy(update={"device": _device(config, found, gpus, gpu_tflops)})
    if gpu_tflops is not None:
        found = found.model_copy(update={"tflops": Rate(value=gpu_tflops, note="--gpu-tflops"), "steps": {}})
    if probe and not rates:
        found = _probed(config, found)
    if save:
        save_rates(found, save)
    planned = make_plan(config, found, cpus or len(os.sched_getaffinity(0)), gpus or 1)
    show(planned, everything)
    if json_out:
        write_json(json_out, planned)


def _device(config: Config, rates: Rates, gpus: int | None, gpu_tflops: float | None) -> str:
    """The training device, `gpu` or `cpu`: from the configuration; for `auto`, from the options, the rates or this machine."""
    from mscl.planning.network import trains_on

    if config.compute.device == "cpu" and gpu_tflops is not None:
        raise ValueError("--gpu-tflops: the configuration trains on a CPU (compute.device); set it to cuda or auto there")
    if config.compute.device == "auto":
        return "gpu" if gpus or gpu_tflops else rates.device or trains_on(config)
    return trains_on(config)


def _probed(config: Config, rates: Rates) -> Rates:
    """`rates` with the rates measured on this machine."""
    from mscl.planning.count import facts_of
    from mscl.planning.loading import make_store, measured_loading
    from mscl.planning.network import is_here, measured_steps
    from mscl.planning.plan import classes_of
    from mscl.planning.probe import probe_dataset, processor, samples_of
    from mscl.watch.progress import tqdm

    used, flow, datasets, stores = build.used_datasets(config), build.flow_datasets(config), {}, {}
    part = SECONDS / 2 / (len(used) + len(flow))
    with tempfile.TemporaryDirectory() as folder:
        for name in tqdm(used, "probe", unit="data set"):
            samples, raw = samples_of(config, name, facts_of(name, config.datasets[name]), Path(folder))
            datasets[name] = probe_dataset(config, name, samples, raw, name in flow, part)
            with contextlib.redirect_stderr(io.StringIO()):  # hide the progress output of the stages
                stores[name] = make_store(config, name, samples, name in flow, Path(folder))
        loading = measured_loading(config, stores, SECONDS / 8)
    steps = {}
    if is_here(rates.device) and rates.tflops is None:
        steps = measured_steps(config, classes_of(config), rates.device, SECONDS / 2)
    where = {"steps": processor() if rates.device == "cpu" else "the GPU of this machine", "loading": processor()}
    found = {
        kind: {key: Rate(value=value, origin="measured here", note=where[kind]) for key, value in values.items()}
        for kind, values in (("steps", steps), ("loading", loading))
    }
    return rates.model_copy(update={"machine": processor(), "datasets": datasets, **found})
