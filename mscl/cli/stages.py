"""One command per stage; every workflow rule calls one of them.

A stage reads its settings only from `--job` (JSON text or a JSON file, see `mscl.stages.jobs`).
Modules are imported inside the commands, so that a stage loads only what it needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from mscl.machine.gpus import claim_for_processes
from mscl.machine.signals import leave_at_once
from mscl.stages import jobs
from mscl.stages.layout import CARD, MADE

Job = Annotated[str, typer.Option("--job", help="The stage's settings: JSON text or a JSON file.")]
Workers = Annotated[int, typer.Option(help="Number of worker processes or threads.")]
Processes = Annotated[int, typer.Option(help="Number of processes, one per GPU, that share each batch; torchrun starts them.")]
Curves = Annotated[Path | None, typer.Option("--curves", help="Folder for TensorBoard curves; without it none are written.")]
Anyway = Annotated[bool, typer.Option("--resume-anyway", help="Resume even if the checkpoint has other settings, code or data.")]
Out = Annotated[Path, typer.Option("--out", help="Folder or file for the results.")]
Records = Annotated[Path | None, typer.Option(help="Folder for the run card, which differs between runs; by default OUT.")]

KEPT = "stopped: finished clips are kept, and the same command resumes"


def download(job: Job, out: Out, workers: Workers = 4) -> None:
    """Download a data set, WORKERS archives at a time, and unpack it; OUT lists its files. Run it again to resume."""
    from mscl.datasets.acquire.download import download as fetch_all

    fetch_all(jobs.loads(jobs.DownloadJob, job), out, workers)


def dataset(job: Job, out: Out) -> None:
    """Generate an embedded data set, or check that another one exists; OUT lists its annotation files."""
    from mscl.datasets.prepare import prepare

    prepare(jobs.loads(jobs.DatasetJob, job), out)


def manifest(job: Job, out: Out) -> None:
    """List all videos of a data set in one table, including missing ones."""
    from mscl.datasets.manifest import write_manifest

    write_manifest(jobs.loads(jobs.ManifestJob, job), out)


def frames(job: Job, manifest: Path, shard: int, out: Out, workers: Workers = 1) -> None:
    """Extract the frames of one shard into OUT (.parquet) and the .tar file beside it."""
    from mscl.stages.keep import identity, kept
    from mscl.video.extract import extract_shard, read_rows, stamps
    from mscl.video.program import program

    leave_at_once(KEPT)
    settings, tar = jobs.loads(jobs.FramesJob, job), out.with_suffix(".tar")
    rows = read_rows(manifest, shard)  # the rows of this shard alone: it does not change when another does
    # An index without images is checked against what ffmpeg decodes at each use, so it is that of one version.
    made_from = [rows, *([[program().version]] if settings.frames.keep == "none" else [])]
    with kept([out, tar], identity("frames", settings, made_from), stamps(rows)) as unchanged:
        if not unchanged:
            extract_shard(settings, manifest, shard, tar, out, workers)


def flow(job: Job, frames: Path, out: Out, workers: Workers = 1) -> None:
    """Compute optical flow and motion scores of one shard of frames into OUT (.parquet) and the .tar file beside it."""
    from mscl.flow.shard import flow_shard
    from mscl.stages.keep import identity, kept

    leave_at_once(KEPT)
    settings, tar = jobs.loads(jobs.FlowJob, job), out.with_suffix(".tar")
    with kept([out, tar], identity("flow", settings, [frames])) as unchanged:
        if not unchanged:
            flow_shard(settings, frames, frames.with_suffix(".tar"), tar, out, workers)


def flow_error(job: Job, out: Out) -> None:
    """Compare the stored flow with the exact flow of generated videos."""
    from mscl.flow.error import flow_error as measure

    settings = jobs.loads(jobs.FlowErrorJob, job)
    measure(settings, out)


def data(job: Job, out: Out) -> None:
    """Count the usable and unusable videos of every data set, with the reasons."""
    from mscl.datasets.health import write_health

    write_health(jobs.loads(jobs.DataJob, job), out)


def adopt(job: Job, out: Out, records: Records = None) -> None:
    """Take others' weights: check that they fit the backbone, and write them to OUT under the names of mscl."""
    from mscl.models.adopt import adopt as take

    settings = jobs.loads(jobs.AdoptJob, job)
    with carded("adopt", settings, out, records) as unchanged:
        if not unchanged:
            take(settings, out)


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


def embed(job: Job, out: Out, workers: Workers = 0, records: Records = None) -> None:
    """Extract the features of a frozen backbone, for the frozen tests of several targets or draws."""
    from mscl.evaluation.embed import embed as extract

    settings = jobs.loads(jobs.EmbedJob, job)
    with carded("embed", settings, out, records) as unchanged:
        if not unchanged:
            extract(settings, out, workers)


def frozen(job: Job, out: Out, workers: Workers = 0, records: Records = None) -> None:
    """Evaluate the frozen features of a backbone with the measures of its target (linear probe, retrieval, …)."""
    from mscl.evaluation.frozen import evaluate_frozen

    settings = jobs.loads(jobs.FrozenJob, job)
    with carded("frozen", settings, out, records) as unchanged:
        if not unchanged:
            evaluate_frozen(settings, out, workers)


def analysis(job: Job, out: Out, records: Records = None) -> None:
    """Find the confused class pairs and make GradCAM images of the two compared methods."""
    from mscl.evaluation.analysis import run_analysis
    from mscl.stages.runcard import run_card

    settings = jobs.loads(jobs.AnalysisJob, job)
    with run_card(records or out, "analysis", settings, results("analysis", out)):
        run_analysis(settings, out)


def report(job: Job, out: Out) -> None:
    """Write all tables, figures and the HTML page."""
    from mscl.reporting.report import build_report

    settings = jobs.loads(jobs.ReportJob, job)
    build_report(settings, Path(settings.config.paths.results), out)


STAGES: tuple[Callable, ...] = (
    download,
    dataset,
    manifest,
    frames,
    flow,
    flow_error,
    data,
    adopt,
    pretrain,
    finetune,
    linear,
    embed,
    frozen,
    analysis,
    report,
)


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
