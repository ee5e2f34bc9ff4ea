"""`python -m mscl <stage>`: one short command per stage; every workflow rule calls one of them.

A stage reads its settings only from `--job` (JSON text or a JSON file, see `mscl.stages.jobs`).
Modules are imported inside the commands, so that a stage loads only what it needs.
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

from mscl.cli.dvc import dvc
from mscl.cli.features import features
from mscl.cli.publish import publish
from mscl.cli.store import store
from mscl.machine.errors import sentence
from mscl.machine.gpus import claim_for_processes
from mscl.machine.signals import leave_at_once
from mscl.machine.slurm import requeue_when_time_is_up
from mscl.stages import jobs
from mscl.stages.layout import CARD, MADE

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.split("\n")[0])

app.add_typer(store, name="store")
app.command()(features)
app.command()(publish)
app.command()(dvc)

Job = Annotated[str, typer.Option("--job", help="The stage's settings: JSON text or a JSON file.")]
Workers = Annotated[int, typer.Option(help="Number of worker processes or threads.")]
Processes = Annotated[int, typer.Option(help="Number of processes, one per GPU, that share each batch; torchrun starts them.")]
Curves = Annotated[Path | None, typer.Option("--curves", help="Folder for TensorBoard curves; without it none are written.")]
Anyway = Annotated[bool, typer.Option("--resume-anyway", help="Resume even if the checkpoint has other settings, code or data.")]
Out = Annotated[Path, typer.Option("--out", help="Folder or file for the results.")]
Records = Annotated[Path | None, typer.Option(help="Folder for the run card, which differs between runs; by default OUT.")]


STOPPED = (
    128 + signal.SIGTERM,
    128 + signal.SIGUSR1,
)  # exit codes of a stage that a cluster stopped; the same command resumes it
KEPT = "stopped: finished clips are kept, and the same command resumes"


# How check, plan, verify and job take a configuration. Typer makes a new list for each call.
CONFIG_HELP = (
    "A configuration file (default: config.yaml), and key=value pairs over it, the value as YAML, as for snakemake --config."
)
Words = Annotated[list[str], typer.Argument(help=CONFIG_HELP, metavar="[FILE] [KEY=VALUE]…")]
Given = Annotated[list[str], typer.Option("--config", "--configfile", help=CONFIG_HELP, metavar="FILE or KEY=VALUE")]


def show_version(asked: bool) -> None:
    """Print the version of the package, and the commit of its checkout."""
    if not asked:
        return
    from mscl import __version__
    from mscl.stages.codehash import ROOT
    from mscl.stages.runcard import commit_of

    commit, why = commit_of(ROOT)
    print(f"mscl {__version__} ({f'commit {commit}' if commit else f'no commit: {why}'})")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def check(config: Words = [], given: Given = []) -> None:  # noqa: B006
    """Validate a configuration, and print what it will do: data sets, jobs, missing files, keys without effect."""
    from mscl.config.overlay import read_words
    from mscl.config.schema import load_config
    from mscl.planning.check import describe

    path, values = read_words([*config, *given])
    cfg = load_config(values, str(path))
    print(
        f"{path}: {cfg.name} ({cfg.kind}): {len(cfg.models)} model(s) x {len(cfg.methods)} method(s) x {len(cfg.seeds)} seed(s)"
        + (", not every method with every model" if any(model.methods for model in cfg.models.values()) else "")
    )
    print("\n".join(describe(cfg)))


@app.command()
def plan(
    config: Words = [],  # noqa: B006
    given: Given = [],  # noqa: B006
    cpus: Annotated[
        int | None, typer.Option(help="Number of CPUs for the wall-clock estimate; default: those of this machine.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="Number of GPUs for the wall-clock estimate; default: 1.")] = None,
    probe: Annotated[bool, typer.Option(help="Measure this machine (about 1 minute); else use assumed rates.")] = True,
    rates: Annotated[Path | None, typer.Option(help="Use the rates in this YAML file instead of measuring.")] = None,
    save_rates: Annotated[Path | None, typer.Option(help="Write the rates to this file for later use.")] = None,
    gpu_tflops: Annotated[float | None, typer.Option(help="Sustained TFLOP/s of one GPU in training.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the plan to this JSON file.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print all tables, not only the summary.")] = False,
) -> None:
    """Estimate the cost of a configuration before it runs: jobs, disk space, CPU and GPU hours, each with its origin."""
    from mscl.config.overlay import read_words
    from mscl.config.schema import load_config
    from mscl.planning.command import run_plan

    path, values = read_words([*config, *given])
    run_plan(
        load_config(values, str(path)),
        cpus=cpus,
        gpus=gpus,
        probe=probe,
        rates=rates,
        save=save_rates,
        gpu_tflops=gpu_tflops,
        json_out=json_out,
        everything=everything,
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration (kept in workflow/schemas/)."""
    from mscl.config.schema import Config

    print(json.dumps(Config.model_json_schema(), indent=1, sort_keys=True))


@app.command("job")
def show_job(
    stage: Annotated[str, typer.Argument(help="pretrain, finetune or linear.")],
    model: Annotated[str, typer.Option(help="A name under `models`.")],
    method: Annotated[str, typer.Option(help="One of `methods`.")],
    seed: Annotated[int, typer.Option(help="One of `seeds`.")],
    target: Annotated[
        str, typer.Option(help="Of finetuning or linear evaluation: the name of a target; default: the model's first.")
    ] = "",
    given: Given = [],  # noqa: B006
) -> None:
    """Print the arguments to start a training run by hand: the values of --out, --records and --job, one per line."""
    from mscl.config.overlay import read_words
    from mscl.config.schema import load_config
    from mscl.stages.table import by_hand

    path, values = read_words(given)
    print("\n".join(by_hand(load_config(values, str(path)), stage, model, method, seed, target)))


@app.command()
def download(job: Job, out: Out, workers: Workers = 4) -> None:
    """Download a data set, WORKERS archives at a time, and unpack it; OUT lists its files. Run it again to resume."""
    from mscl.datasets.acquire.download import download as fetch_all

    fetch_all(jobs.loads(jobs.DownloadJob, job), out, workers)


@app.command()
def dataset(job: Job, out: Out) -> None:
    """Generate an embedded data set, or check that another one exists; OUT lists its annotation files."""
    from mscl.datasets.prepare import prepare

    prepare(jobs.loads(jobs.DatasetJob, job), out)


@app.command()
def manifest(job: Job, out: Out) -> None:
    """List all videos of a data set in one table, including missing ones."""
    from mscl.datasets.manifest import write_manifest

    write_manifest(jobs.loads(jobs.ManifestJob, job), out)


@app.command()
def frames(job: Job, manifest: Path, shard: int, out: Out, workers: Workers = 1) -> None:
    """Extract the frames of one shard into OUT (.parquet) and the .tar file beside it."""
    from mscl.stages.keep import identity, kept
    from mscl.video.extract import extract_shard, read_rows, stamps

    leave_at_once(KEPT)
    settings, tar = jobs.loads(jobs.FramesJob, job), out.with_suffix(".tar")
    rows = read_rows(manifest, shard)  # the rows of this shard alone: it does not change when another does
    with kept([out, tar], identity("frames", settings, [rows]), stamps(rows)) as unchanged:
        if not unchanged:
            extract_shard(settings, manifest, shard, tar, out, workers)


@app.command()
def flow(job: Job, frames: Path, out: Out, workers: Workers = 1) -> None:
    """Compute optical flow and motion scores of one shard of frames into OUT (.parquet) and the .tar file beside it."""
    from mscl.flow.shard import flow_shard
    from mscl.stages.keep import identity, kept

    leave_at_once(KEPT)
    settings, tar = jobs.loads(jobs.FlowJob, job), out.with_suffix(".tar")
    with kept([out, tar], identity("flow", settings, [frames])) as unchanged:
        if not unchanged:
            flow_shard(settings, frames, frames.with_suffix(".tar"), tar, out, workers)


@app.command()
def flow_error(job: Job, out: Out) -> None:
    """Compare the stored flow with the exact flow of generated videos."""
    from mscl.flow.error import flow_error as measure

    settings = jobs.loads(jobs.FlowErrorJob, job)
    measure(settings, out)


@app.command()
def data(job: Job, out: Out) -> None:
    """Count the usable and unusable videos of every data set, with the reasons."""
    from mscl.datasets.health import write_health

    write_health(jobs.loads(jobs.DataJob, job), out)


@app.command()
def adopt(job: Job, out: Out, records: Records = None) -> None:
    """Take others' weights: check that they fit the backbone, and write them to OUT under the names of mscl."""
    from mscl.models.adopt import adopt as take

    settings = jobs.loads(jobs.AdoptJob, job)
    with carded("adopt", settings, out, records) as unchanged:
        if not unchanged:
            take(settings, out)


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

    with carded("pretrain", settings, out, records) as unchanged:
        if not unchanged:
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
    """Finetune and test one pretrained backbone, or train from scratch if the job names no weights."""
    settings = jobs.loads(jobs.FinetuneJob, job)
    launch(processes, settings.device)
    from mscl.training.engine import Machine
    from mscl.training.finetune import finetune as train

    with carded("finetune", settings, out, records) as unchanged:
        if not unchanged:
            train(settings, out, Machine(workers, checkpoint_minutes, resume_anyway, curves))


@app.command()
def linear(
    job: Job,
    out: Out,
    workers: Workers = 0,
    checkpoint_minutes: float = 10,
    processes: Processes = 1,
    resume_anyway: Anyway = False,
    curves: Curves = None,
    records: Records = None,
) -> None:
    """Train a linear classifier on clips, on a frozen backbone, and test it."""
    settings = jobs.loads(jobs.LinearJob, job)
    launch(processes, settings.device)
    from mscl.training.engine import Machine
    from mscl.training.linear import linear as train

    with carded("linear", settings, out, records) as unchanged:
        if not unchanged:
            train(settings, out, Machine(workers, checkpoint_minutes, resume_anyway, curves))


@app.command()
def embed(job: Job, out: Out, workers: Workers = 0, records: Records = None) -> None:
    """Extract the features of a frozen backbone, for the frozen tests of several targets or draws."""
    from mscl.evaluation.embed import embed as extract

    settings = jobs.loads(jobs.EmbedJob, job)
    with carded("embed", settings, out, records) as unchanged:
        if not unchanged:
            extract(settings, out, workers)


@app.command()
def frozen(job: Job, out: Out, workers: Workers = 0, records: Records = None) -> None:
    """Evaluate the frozen features of a backbone with the measures of its target (linear probe, retrieval, …)."""
    from mscl.evaluation.frozen import evaluate_frozen

    settings = jobs.loads(jobs.FrozenJob, job)
    with carded("frozen", settings, out, records) as unchanged:
        if not unchanged:
            evaluate_frozen(settings, out, workers)


@app.command()
def analysis(job: Job, out: Out, records: Records = None) -> None:
    """Find the confused class pairs and make GradCAM images of the two compared methods."""
    from mscl.evaluation.analysis import run_analysis
    from mscl.stages.runcard import run_card

    settings = jobs.loads(jobs.AnalysisJob, job)
    with run_card(records or out, "analysis", settings, results("analysis", out)):
        run_analysis(settings, out)


@app.command()
def report(job: Job, out: Out) -> None:
    """Write all tables, figures and the HTML page."""
    from mscl.reporting.report import build_report

    settings = jobs.loads(jobs.ReportJob, job)
    build_report(settings, Path(settings.config.paths.results), out)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="A weights file of mscl or of another library.")],
    to: Annotated[str, typer.Option("--to", help="Target library: torchvision, mmaction2 or pyslowfast.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .safetensors, .pth, .pt or .pyth.")],
) -> None:
    """Write a backbone, and its classifier if there is one, with the parameter names of another library."""
    from mscl.models.export import export_weights

    print(export_weights(weights, to, out))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="A folder of results, or any folder with run cards.")],
    config: Annotated[list[str], typer.Argument(help=f"What to compare with. {CONFIG_HELP}", metavar="[FILE] [KEY=VALUE]…")] = [],  # noqa: B006
    given: Given = [],  # noqa: B006
    strict: Annotated[bool, typer.Option("--strict", help="Count missing inputs as differences.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the tars of frames and flow.")] = False,
) -> None:
    """Check results against their run cards: inputs, outputs, code, configuration. Exit code 1 if anything differs."""
    from mscl.config.overlay import DEFAULT, read_words
    from mscl.config.schema import load_config
    from mscl.stages.verify import verify as recheck

    words = [*config, *given]
    if not words and not DEFAULT.exists():  # results may lie anywhere
        raise SystemExit(recheck(results, None, str(DEFAULT), strict, quick))
    path, values = read_words(words)
    raise SystemExit(recheck(results, load_config(values, str(path)), str(path), strict, quick))


@app.command()
def tables(out: Annotated[Path, typer.Argument(help="The folder of a report.")]) -> None:
    """Print the tables of a report and the path of its HTML page."""
    from mscl.reporting.report import print_tables

    print_tables(out)


@contextlib.contextmanager
def carded(stage: str, job: jobs.Job, out: Path, records: Path | None) -> Iterator[bool]:
    """Write the run card of a stage when the body has ended well, to `records` or else to `out`.

    True if results made from the same settings, code and inputs were kept with their run card: then there is nothing to do.
    """
    from mscl.stages.keep import identity, kept
    from mscl.stages.runcard import run_card

    inputs = [path for kind, paths in job.reads().items() if kind != "tars" for path in paths]
    made = [*results(stage, out), (records or out) / CARD]
    with kept(made, identity(stage, job, inputs)) as unchanged:
        if unchanged:
            yield True
            return
        with run_card(records or out, stage, job, results(stage, out)):
            yield False


def results(stage: str, out: Path) -> list[Path]:
    """The files that a stage writes to `out`."""
    return [out / file for name, file in MADE[stage].items() if name != "figures"]


def launch(processes: int, device: str) -> None:
    """Replace this process by torchrun, which starts the same command `processes` times on this machine.

    Does nothing for one process or if torchrun started this process. Raises ValueError if there are GPUs but too few.
    """
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        if device != "cpu":
            claim_for_processes(processes)
        run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "mscl"]
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun sets the same value, but with a warning
        os.execv(sys.executable, [sys.executable, *run, *sys.argv[1:]])


def main() -> None:
    """Run a command. An error that mscl detects is printed as one sentence on stderr, with exit code 1.

    Any other error keeps its traceback; with MSCL_TRACE set, every error does.
    """
    try:
        app()
    except SystemExit as stop:
        if stop.code in STOPPED and not int(os.environ.get("RANK", 0)):  # only the first of several processes
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
