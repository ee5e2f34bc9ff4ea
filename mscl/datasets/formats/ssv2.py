"""Something-Something v2 annotations: labels.json {template: "index"} and one JSON list per split.

A row is {id, label, template, placeholders}; its label is labels[template without brackets]. If a configured file does not exist,
the older name with the prefix `something-something-v2-` is used. The data set is available only after registration
(https://www.qualcomm.com/developer/software/something-something-v-2-dataset).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.config.datasets import Dataset
from mscl.config.formats import SSV2_OLDER
from mscl.datasets.acquire.ssv2_parts import HOW, unpack_parts
from mscl.datasets.find import Found, by_name
from mscl.datasets.formats.annotations import annotation_file, checked, read_json

__all__ = ["HOW", "class_key", "find_videos", "prepare", "read_annotations"]

prepare = unpack_parts


def read_annotations(dataset: Dataset) -> pd.DataFrame:
    """All annotated clips, one row per clip (columns: `annotations.COLUMNS`).

    class_name is the template without brackets. A test split without templates has label -1 and class_name "".
    Raises ValueError that names the file and the row and says how to fix it.
    """
    labels_path = annotation_file(dataset.root, dataset.annotations["labels"], "labels", SSV2_OLDER)
    labels = read_labels(labels_path)
    files = {split: annotation_file(dataset.root, dataset.annotations[split], split, SSV2_OLDER) for split in dataset.annotated}
    table = pd.concat([_read_split(path, split, labels, labels_path) for split, path in files.items()], ignore_index=True)
    table["file"] = table["clip_id"] + ".webm"
    return checked(table, files)


def read_labels(path: Path) -> dict[str, int]:
    """{template without brackets: class index} of a labels.json file. Raises ValueError for an invalid or repeated index."""
    labels: dict[str, int] = {}
    owner: dict[int, str] = {}
    for template, index in read_json(path, dict, 'an object {"template": "index"}').items():
        if not str(index).isascii() or not str(index).isdigit():
            raise ValueError(
                f"{path}: template '{template}' has index {index!r}, which is not a whole number; download the file again"
            )
        if int(index) in owner:
            raise ValueError(
                f"{path}: templates '{owner[int(index)]}' and '{template}' have the same index {index}; give each its own"
            )
        owner[int(index)] = template
        labels[class_key(template)] = int(index)
    return labels


def class_key(template: str) -> str:
    """A template without brackets, as in labels.json."""
    return template.replace("[", "").replace("]", "")


def _read_split(path: Path, split: str, labels: dict[str, int], labels_path: Path) -> pd.DataFrame:
    rows = read_json(path, list, "a list of {id, label, template, placeholders}")
    ids, names, indices = [], [], np.empty(len(rows), np.int32)
    for k, row in enumerate(rows):
        if not isinstance(row, dict) or row.get("id") in (None, ""):
            raise ValueError(f"{path}: row {k + 1} has no 'id'; add it or remove the row")
        template = row.get("template")
        if template is None and split == "test":
            name, index = "", -1
        elif not isinstance(template, str):
            raise ValueError(f"{path}: row {k + 1} (id {row['id']}) has no 'template'; add it (only a test split may have none)")
        else:
            name = class_key(template)
            index = labels.get(name)
        if index is None:
            raise ValueError(
                f"{path}: row {k + 1} (id {row['id']}): template '{name}' is not in {labels_path.name}; "
                "take both files from the same release"
            )
        ids.append(str(row["id"]))
        names.append(name)
        indices[k] = index
    return pd.DataFrame(
        {"clip_id": pd.Series(ids, dtype="str"), "split": split, "label": indices, "class_name": pd.Series(names, dtype="str")}
    )


def find_videos(folder: Path, files: Sequence[str]) -> list[Found]:
    """Find the videos by name, anywhere below the folder."""
    return by_name(folder, files, classes=False)
