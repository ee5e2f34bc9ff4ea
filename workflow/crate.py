"""The description of a bundle as an RO-Crate (1.1): what it is, its licence, and for each file its size, kind, sha256 and run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mscl.config.schema import Config
from mscl.stages.layout import CARD

KINDS = {
    ".csv": "text/csv", ".json": "application/json", ".html": "text/html", ".md": "text/markdown", ".png": "image/png", ".tex": "text/x-tex",
    ".tsv": "text/tab-separated-values", ".yaml": "application/yaml", ".lock": "application/yaml", ".cff": "application/yaml",
    ".parquet": "application/vnd.apache.parquet", ".tar": "application/x-tar",
}  # fmt: skip
PAPER = "https://arxiv.org/abs/2208.06105"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://schema.org/sha256"}]
Entity = dict[str, Any]


def crate(files: dict[str, Path], hashes: dict[str, str], config: Config, version: str, commit: str, date: str) -> str:
    """The text of ro-crate-metadata.json. `files`: path in the bundle -> the file; `hashes`: path -> sha256; `date`: of the commit."""
    entities = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"mscl: {config.name}",
            "description": f"Results of the experiment '{config.name}' ({config.kind}): methods {', '.join(config.methods)}; "
            f"{len(config.seeds)} seed(s). Tables, metrics, predictions, histories and run cards of mscl at commit {commit}.",
            "datePublished": date,
            "license": {"@id": "LICENSE"},
            "citation": {"@id": PAPER},
            "mainEntity": {"@id": next((path for path in files if path.endswith("report/index.html")), "README.md")},
            "hasPart": _named(files),
            "mentions": _named(f"#{path}" for path in _cards(files)),
        },
        {"@id": PAPER, "@type": "ScholarlyArticle", "name": "Motion Sensitive Contrastive Learning (ECCV 2022)"},
        {"@id": "#mscl", "@type": "SoftwareApplication", "name": "mscl", "softwareVersion": f"{version}, commit {commit}"},
        *(_file(path, file, hashes[path]) for path, file in files.items()),
        *(_run(path, files) for path in _cards(files)),
    ]
    return json.dumps({"@context": CONTEXT, "@graph": entities}, indent=1) + "\n"


def _cards(files: dict[str, Path]) -> Iterator[str]:
    return (path for path in files if path.endswith(f"/{CARD}") and "/cards/" in path)


def _file(path: str, file: Path, sha256: str) -> Entity:
    kind = KINDS.get(Path(path).suffix, "application/octet-stream")
    return {"@id": path, "@type": "File", "contentSize": file.stat().st_size, "encodingFormat": kind, "sha256": sha256}


def _run(path: str, files: dict[str, Path]) -> Entity:
    """The run that a card describes, with those of its inputs and outputs that are in the bundle."""
    card = json.loads(files[path].read_text())
    return {
        "@id": f"#{path}",
        "@type": "CreateAction",
        "name": f"{card['stage']}: {path.partition('/cards/')[2].removesuffix(f'/{CARD}')}",
        "instrument": {"@id": "#mscl"},
        "startTime": card["started"],
        "object": _named(file for file in card["inputs"] if file in files),
        "result": _named(file for file in card["outputs"] if file in files),
        "subjectOf": {"@id": path},
    }


def _named(paths: Iterable[str]) -> Entity | list[Entity]:
    """References; a single one is no list, as JSON-LD recommends."""
    found = [{"@id": path} for path in paths]
    return found[0] if len(found) == 1 else found
