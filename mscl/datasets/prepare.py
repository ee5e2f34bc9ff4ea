"""The first stage: a data set's annotation files are there, or one sentence says what to do."""

from __future__ import annotations

from pathlib import Path

from mscl.io import sha256, write_json
from mscl.jobs import DatasetJob

SOURCES = {
    "kinetics": "download the videos and annotation CSVs of Kinetics-400 (CVDF: https://s3.amazonaws.com/kinetics/400/, "
    "lists k400_{train,val,test}_path.txt)",
    "ssv2": "register for Something-Something v2 with its publisher (Qualcomm), join the parts "
    "20bn-something-something-v2-?? and unpack them",
}


def prepare(job: DatasetJob, out: Path) -> None:
    """Write `out`: the annotation files with their sha256. Embedded data sets are generated first.

    Raises ValueError naming the files that are missing, where they come from and where to put them.
    """
    dataset = job.dataset
    if dataset.embedded:
        from mscl.datasets.embedded import write_dataset

        write_dataset(dataset)
    files = {key: dataset.root / name for key, name in dataset.annotations.items()}
    found = {key: path if path.exists() else _older(path, dataset.format) for key, path in files.items()}
    missing = [str(files[key]) for key, path in found.items() if path is None]
    if missing:
        raise ValueError(
            f"data set '{job.name}': {', '.join(missing)} not found; {SOURCES[dataset.format]}, "
            f"then put the annotations there and the videos into {dataset.root / dataset.videos}, "
            f"or change datasets.{job.name}.root"
        )
    if not (dataset.root / dataset.videos).is_dir():
        raise ValueError(
            f"data set '{job.name}': no folder {dataset.root / dataset.videos}; put the videos there, "
            f"or change datasets.{job.name}.videos"
        )
    write_json(out, {"name": job.name, "annotations": {key: {"path": str(p), "sha256": sha256(p)} for key, p in found.items()}})


def _older(path: Path, form: str) -> Path | None:
    """SSv2's older file names carry a prefix."""
    old = path.with_name(f"something-something-v2-{path.name}")
    return old if form == "ssv2" and old.exists() else None
