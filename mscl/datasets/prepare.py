"""The first stage: check that the annotation files of a data set exist, or say how to get them."""

from __future__ import annotations

from pathlib import Path

from mscl.config.datasets import Dataset
from mscl.datasets.formats import how_to_get, reader_of
from mscl.machine.files import sha256, write_json
from mscl.stages.jobs import DatasetJob


def prepare(job: DatasetJob, out: Path) -> None:
    """Write the annotation files and their sha256 to `out` (JSON).

    Embedded data sets are generated first, and the parts of SSv2 are unpacked first. Raises ValueError that names the missing
    files and says where to get them and where to put them.
    """
    dataset, reader = job.dataset, reader_of(job.dataset)
    if dataset.embedded:
        from mscl.datasets.generated.embedded import write_dataset

        write_dataset(dataset)
    elif hasattr(reader, "prepare"):
        reader.prepare(job.name, dataset)
    where = {key: dataset.root / name for key, name in dataset.annotations.items()}
    found = {key: _found(dataset, key) for key in where}
    missing = dict.fromkeys(str(where[key]) for key, value in found.items() if value is None)
    how = how_to_get(dataset).format(root=dataset.root, name=job.name)
    if missing:
        raise ValueError(
            f"data set '{job.name}': {', '.join(missing)} not found; {how}; put the annotations there and the videos into "
            f"{dataset.root / dataset.videos}; or correct datasets.{job.name}.root or annotations"
        )
    if not (dataset.root / dataset.videos).is_dir():
        raise ValueError(
            f"data set '{job.name}': no folder {dataset.root / dataset.videos}; {how}; or correct datasets.{job.name}.videos"
        )
    write_json(out, {"name": job.name, "annotations": found})


def _found(dataset: Dataset, key: str) -> dict | None:
    """A file's path and sha256, or a folder's path and its content (number of files, or sha256 per file); None if missing."""
    path = dataset.root / dataset.annotations[key]
    if dataset.row.folders and key != "labels":
        count = sum(1 for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")) if path.is_dir() else 0
        return {"path": str(path), "files": count} if count else None
    files = list(dataset.row.files(path, dataset.fold))
    if not files:
        return None
    if path.is_dir():  # as in HMDB51
        return {"path": str(path), "files": {p.name: sha256(p) for p in files}}
    return {"path": str(files[0]), "sha256": sha256(files[0])}
