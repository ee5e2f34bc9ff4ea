"""`python -m mscl <stage>`: one thin command per stage; every workflow rule calls one.

A stage reads its settings from `--job` (JSON text or a JSON file, see `mscl.stages.jobs`) and nowhere else.
Imports happen inside the commands, so that a stage loads only what it needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from mscl.cli.store import store
from mscl.machine.errors import sentence
from mscl.machine.gpus import claim_for_processes
from mscl.machine.signals import leave_at_once
from mscl.machine.slurm import requeue_when_time_is_up
from mscl.stages import jobs
from mscl.stages.layout import MADE

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.split("\n")[0])

app.add_typer(store, name="store")

Job = Annotated[str, typer.Option("--job", help="The stage's settings: JSON text or a JSON file.")]
Workers = Annotated[int, typer.Option(help="Processes or threads beside the main one.")]
Processes = Annotated[int, typer.Option(help="Processes, one per GPU, that share each batch; torchrun starts them.")]
Curves = Annotated[Path | None, typer.Option("--curves", help="Folder for curves that TensorBoard shows; none without it.")]
Anyway = Annotated[bool, typer.Option("--resume-anyway", help="Resume from a checkpoint of other settings, code or data.")]
Out = Annotated[Path, typer.Option("--out", help="Where results go.")]
Records = Annotated[Path | None, typer.Option(help="Where the run card goes, which differs from run to run; else to OUT.")]


STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGUSR1)  # how a stage ends that was told to stop and has kept what is done
KEPT = "stopped: what is whole is kept, and the same command goes on from there"


@app.command()
def check(config: Annotated[Path, typer.Argument(help="A whole configuration.")] = Path("config.yaml")) -> None:
    """Validate a configuration and say what it asks for."""
    from mscl.config.schema import load_config

    cfg = load_config(config)
    print(
        f"{config}: {cfg.name} ({cfg.kind}): {len(cfg.models)} model(s) x {len(cfg.methods)} method(s) x {len(cfg.seeds)} seed(s)"
    )


@app.command()
def plan(
    config: Annotated[Path, typer.Option(help="A whole configuration.")] = Path("config.yaml"),
    cpus: Annotated[
        int | None, typer.Option(help="CPUs at once, for the wall clock; those of this machine where not given.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs at once, for the wall clock; 1 where not given.")] = None,
    probe: Annotated[bool, typer.Option(help="Measure this machine, about a minute; else assume what no file gives.")] = True,
    rates: Annotated[Path | None, typer.Option(help="Use the rates of this YAML file instead of measuring.")] = None,
    save_rates: Annotated[Path | None, typer.Option(help="Write the rates to this file, to use them again.")] = None,
    gpu_tflops: Annotated[float | None, typer.Option(help="TFLOP/s that a GPU sustains in training.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the plan to this file, too.")] = None,
) -> None:
    """Say what a configuration will cost before it runs: jobs, disk, CPU and GPU hours, and how each figure is known."""
    from mscl.planning.command import run_plan

    run_plan(config, cpus=cpus, gpus=gpus, probe=probe, rates=rates, save=save_rates, gpu_tflops=gpu_tflops, json_out=json_out)


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration (kept in workflow/schemas/)."""
    from mscl.config.schema import Config

    print(json.dumps(Config.model_json_schema(), indent=1, sort_keys=True))


@app.command("job")
def show_job(
    stage: Annotated[str, typer.Argument(help="pretrain or finetune.")],
    model: Annotated[str, typer.Option(help="A name under `models`.")],
    method: Annotated[str, typer.Option(help="One of `methods`.")],
    seed: Annotated[int, typer.Option(help="One of `seeds`.")],
    config: Annotated[Path, typer.Option(help="A whole configuration.")] = Path("config.yaml"),
) -> None:
    """Print what starts a training run by hand: the values of --out, --records and --job, a line each."""
    from mscl.config.schema import load_config
    from mscl.stages.table import by_hand

    print("\n".join(by_hand(load_config(config), stage, model, method, seed)))


@app.command()
def download(job: Job, out: Out, workers: Workers = 4) -> None:
    """Download a data set, WORKERS archives at a time, and unpack it; OUT lists its files. Run it again to go on."""
    from mscl.datasets.acquire.download import download as fetch_all

    fetch_all(jobs.loads(jobs.DownloadJob, job), out, workers)


@app.command()
def dataset(job: Job, out: Out) -> None:
    """Generate an embedded data set, or check that a given one is there; OUT lists its annotation files."""
    from mscl.datasets.prepare import prepare

    prepare(jobs.loads(jobs.DatasetJob, job), out)


@app.command()
def manifest(job: Job, out: Out) -> None:
    """List a data set's videos in one table; missing ones are rows."""
    from mscl.datasets.manifest import write_manifest

    write_manifest(jobs.loads(jobs.ManifestJob, job), out)


@app.command()
def frames(job: Job, manifest: Path, shard: int, out: Out, workers: Workers = 1) -> None:
    """Extract one shard's frames: OUT.parquet and the tar beside it."""
    from mscl.video.extract import extract_shard

    leave_at_once(KEPT)
    extract_shard(jobs.loads(jobs.FramesJob, job), manifest, shard, out.with_suffix(".tar"), out, workers)


@app.command()
def flow(job: Job, frames: Path, out: Out, workers: Workers = 1) -> None:
    """Compute flow and motion scores of one shard of frames: OUT.parquet and the tar beside it."""
    from mscl.flow.shard import flow_shard

    leave_at_once(KEPT)
    flow_shard(jobs.loads(jobs.FlowJob, job), frames, frames.with_suffix(".tar"), out.with_suffix(".tar"), out, workers)


@app.command()
def flow_error(job: Job, out: Out) -> None:
    """Compare stored flow with the renderer's exact flow."""
    from mscl.flow.error import flow_error as measure

    settings = jobs.loads(jobs.FlowErrorJob, job)
    measure(settings, out)


@app.command()
def data(job: Job, out: Out) -> None:
    """Count usable and unusable videos of every data set, with reasons."""
    from mscl.datasets.health import write_health

    write_health(jobs.loads(jobs.DataJob, job), out)


@app.command()
def pretrain(
    job: Job,
    out: Out,
    workers: Workers = 0,
    checkpoint_minutes: float = 10,
    processes: Processes = 1,
    resume_anyway: Anyway = False,
    curves: Curves = None,
    records: Records = None,
) -> None:
    """Pretrain one method with one seed."""
    settings = jobs.loads(jobs.PretrainJob, job)
    launch(processes, settings.device)
    from mscl.training.engine import Machine
    from mscl.training.pretrain import pretrain as train

    with carded("pretrain", settings, out, records):
        train(settings, out, Machine(workers, checkpoint_minutes, resume_anyway, curves))


@app.command()
def finetune(
    job: Job,
    out: Out,
    workers: Workers = 0,
    checkpoint_minutes: float = 10,
    processes: Processes = 1,
    resume_anyway: Anyway = False,
    curves: Curves = None,
    records: Records = None,
) -> None:
    """Finetune and test one pretrained backbone, or train from scratch where the job names no weights."""
    settings = jobs.loads(jobs.FinetuneJob, job)
    launch(processes, settings.device)
    from mscl.training.engine import Machine
    from mscl.training.finetune import finetune as train

    with carded("finetune", settings, out, records):
        train(settings, out, Machine(workers, checkpoint_minutes, resume_anyway, curves))


@app.command()
def frozen(job: Job, out: Out, workers: Workers = 0, records: Records = None) -> None:
    """Measure the frozen features of a backbone: linear probe, retrieval, whatever `analysis.measures` names."""
    from mscl.evaluation.frozen import evaluate_frozen

    settings = jobs.loads(jobs.FrozenJob, job)
    with carded("frozen", settings, out, records):
        evaluate_frozen(settings, out, workers)


@app.command()
def analysis(job: Job, out: Out, records: Records = None) -> None:
    """Confused pairs and GradCAM of the two compared methods."""
    from mscl.evaluation.analysis import run_analysis

    settings = jobs.loads(jobs.AnalysisJob, job)
    with carded("analysis", settings, out, records):
        run_analysis(settings, out)


@app.command()
def report(job: Job, out: Out) -> None:
    """Write every table and figure and the HTML page."""
    from mscl.reporting.report import build_report

    settings = jobs.loads(jobs.ReportJob, job)
    build_report(settings, Path(settings.config.paths.results), out)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="A file of weights, mscl's or another's.")],
    to: Annotated[str, typer.Option("--to", help="Whose names: torchvision, mmaction2 or pyslowfast.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .safetensors, .pth, .pt or .pyth.")],
) -> None:
    """Write a backbone, and its classifier if it has one, under the names of another library."""
    from mscl.models.export import export_weights

    print(export_weights(weights, to, out))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="A folder of results, or any folder with run cards.")],
    config: Annotated[Path, typer.Option(help="The configuration that they should be of.")] = Path("config.yaml"),
    strict: Annotated[bool, typer.Option("--strict", help="Absent inputs count as differences.")] = False,
) -> None:
    """Recheck results against their run cards: inputs, outputs, code, configuration. Exit code 1 where something differs."""
    from mscl.stages.verify import verify as recheck

    raise SystemExit(recheck(results, config, strict))


@app.command()
def tables(out: Annotated[Path, typer.Argument(help="The folder of a report.")]) -> None:
    """Print a report's tables and the path of its page."""
    from mscl.reporting.report import print_tables

    print_tables(out)


@contextlib.contextmanager
def carded(stage: str, job: jobs.Job, out: Path, records: Path | None) -> Iterator[None]:
    """Write the run card of a stage when the body has ended well, to `records` or else to `out`."""
    from mscl.stages.runcard import run_card

    with run_card(records or out, stage, job, [out / file for name, file in MADE[stage].items() if name != "figures"]):
        yield


def launch(processes: int, device: str) -> None:
    """Become torchrun, which starts this same command `processes` times on this machine; do nothing for one, or under torchrun.

    Raises ValueError when there are GPUs, but too few.
    """
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        if device != "cpu":
            claim_for_processes(processes)
        run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "mscl"]
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # what torchrun sets anyway, with a warning
        os.execv(sys.executable, [sys.executable, *run, *sys.argv[1:]])


def main() -> None:
    """Run a command; a mistake that mscl itself found is one sentence on stderr and exit code 1.

    Anything else, and everything where MSCL_TRACE is set, keeps its traceback.
    """
    try:
        app()
    except SystemExit as stop:
        if stop.code in STOPPED and not int(os.environ.get("RANK", 0)):  # of several processes the first speaks
            requeue_when_time_is_up()
        if stop.code in (*STOPPED, 128 + signal.SIGINT):
            _leave_threads(stop.code)
        raise
    except Exception as error:
        said = sentence(error)
        if said is None or os.environ.get("MSCL_TRACE"):
            raise
        print(f"error: {said}", file=sys.stderr)
        raise SystemExit(1) from None


def _leave_threads(code: int) -> None:
    """End this process where threads still work, as they do on a video or its flow: Python would wait for them."""
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
