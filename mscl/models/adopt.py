"""Others' weights become a run's weights: checked, and written under our names for finetuning and the frozen tests."""

from __future__ import annotations

from pathlib import Path

from mscl.models.colours import Colours
from mscl.models.export import Weights, read_weights
from mscl.stages.jobs import AdoptJob
from mscl.stages.layout import WEIGHTS
from mscl.training.checkpoint import save_weights


def checked(job: AdoptJob) -> Weights:
    """The weights of a job. Raises ValueError, one sentence that begins with the key, when the file is not the one meant or does not fit."""
    job.check_file()
    try:
        return read_weights(job.file, job.backbone, job.width)
    except ValueError as error:
        raise ValueError(f"{job.key}.file: {error}") from None


def adopt(job: AdoptJob, out: Path) -> None:
    """Write `out`/weights.safetensors: the same bytes for the same weights and colours, whatever the file was called."""
    weights = checked(job)
    colours = Colours(job.mean, job.std) if job.mean and job.std else weights.colours
    note = {"backbone": job.backbone, "width": str(job.width)} | colours.note()
    save_weights(out / WEIGHTS, weights.state, note)
    left = len(weights.left_out) + len(weights.classifier)
    print(
        f"{job.file}: {job.backbone} of width {job.width}, trained on {job.trained_on}; "
        f"left out: {left} tensors of heads, key encoders and queues"
    )
