"""Files that can be downloaded and where they are stored: the rows of sources.csv, which holds every URL.

Columns of sources.csv:
source: name of the data set
kind: annotations, list (of archives) or archive
split: train, validation, test or all
path: path of the file below the root
url: address of the file
into: folder below the root that an archive is unpacked into; in a list's row, "{part}" stands for the archive's name
bytes, sha256: size and checksum; empty if unknown
note: where the URL and the values come from
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

from mscl.config.datasets import PUBLISHED_SPLIT, Download

TABLE = Path(__file__).with_name("sources.csv")
_ARCHIVE = re.compile(r"([A-Za-z0-9][\w+-]*(?:\.[\w+-]+)*?)(\.tar\.gz|\.tgz|\.tar|\.zip|\.rar)")


@dataclass(frozen=True)
class File:
    """One file to download; `path` and `into` are relative to the data set's root."""

    source: str
    kind: str
    split: str
    path: str
    url: str
    into: str
    bytes: int | None
    sha256: str | None
    note: str


def table() -> list[File]:
    """Every row of sources.csv."""
    with open(TABLE, newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    return [File(**row | {"bytes": int(row["bytes"]) if row["bytes"] else None, "sha256": row["sha256"] or None}) for row in rows]


def base(source: str) -> str:
    """The common prefix of all URLs of a source, up to a slash: the part that a mirror replaces."""
    urls = [row.url for row in table() if row.source == source]
    common = min(urls)
    while not (common.endswith("/") and all(url.startswith(common) for url in urls)):
        common = common[:-1]
    return common


def mirrored(url: str, download: Download) -> str:
    """`url` with the published base replaced by the mirror, if one is set; a URL with another base is unchanged."""
    published = base(download.source)
    if not download.mirror or not url.startswith(published):
        return url
    return download.mirror.rstrip("/") + "/" + url.removeprefix(published)


def wanted(download: Download, splits: tuple[str, ...]) -> list[File]:
    """The rows of a source that `splits` need (common names such as `val` are accepted), with the mirror's URLs.

    Raises ValueError if the source has no file for one of the splits.
    """
    rows = [row for row in table() if row.source == download.source]
    known = {row.split for row in rows}
    asked = {name: PUBLISHED_SPLIT.get(name, name) for name in splits}
    for name, split in asked.items():
        if split not in known and "all" not in known:
            raise ValueError(
                f"download: {download.source} has the splits {', '.join(sorted(known))}, not '{name}'; "
                "rename the key under annotations, or remove it"
            )
    return [replace(row, url=mirrored(row.url, download)) for row in rows if row.split == "all" or row.split in asked.values()]


def listed(row: File, text: str, download: Download) -> list[File]:
    """The archives that a downloaded list file names, one URL per line.

    Raises ValueError that names the list and the line if a line is not the URL of an archive (for example, an error page).
    """
    found, files = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        url = mirrored(urljoin(row.url, line.strip()), download)
        name = _ARCHIVE.fullmatch(PurePosixPath(urlsplit(url).path).name)
        if name is None:
            raise ValueError(
                f"{row.path}: line {number} ({line.strip()[:80]!r}) is not the URL of an archive; delete the file to download it again"
            )
        into = row.into.format(part=name[1])
        path = f".download/{PurePosixPath(into).name}{name[2]}"
        if found.get(path, url) != url:
            raise ValueError(
                f"{row.path}: line {number}: two archives have the name {name[0]}; delete the file to download it again"
            )
        found[path] = url
        files.append(replace(row, kind="archive", path=path, url=url, into=into, bytes=None, sha256=None))
    if not found:
        raise ValueError(f"{row.path}: the list names no archive; delete the file to download it again")
    return list(dict.fromkeys(files))
