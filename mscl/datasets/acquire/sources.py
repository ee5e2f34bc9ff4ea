"""What can be downloaded and where it goes: the rows of sources.csv, the one table of URLs.

source | kind annotations, list or archive | split train, validation, test or all | path of the file below the root |
url | into: folder below the root that an archive becomes ("{part}": the archive's name, in a list's row) |
bytes, sha256 (empty: unknown) | note: whence the URL and the figures
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
    """One file to fetch; `path` and `into` lie below the data set's root."""

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
    """What all URLs of a source begin with, up to a slash: the part that a mirror replaces."""
    urls = [row.url for row in table() if row.source == source]
    common = min(urls)
    while not (common.endswith("/") and all(url.startswith(common) for url in urls)):
        common = common[:-1]
    return common


def mirrored(url: str, download: Download) -> str:
    """`url` with the published base replaced by the mirror, if there is one; a URL of elsewhere stays."""
    published = base(download.source)
    if not download.mirror or not url.startswith(published):
        return url
    return download.mirror.rstrip("/") + "/" + url.removeprefix(published)


def wanted(download: Download, splits: tuple[str, ...]) -> list[File]:
    """The rows of a source that these splits (under any of their usual names) need, with the mirror's URLs.

    Raises ValueError when the source has nothing for one of the splits.
    """
    rows = [row for row in table() if row.source == download.source]
    known = {row.split for row in rows}
    asked = {name: PUBLISHED_SPLIT.get(name, name) for name in splits}
    for name, split in asked.items():
        if split not in known and "all" not in known:
            raise ValueError(
                f"download: {download.source} is published with the splits {', '.join(sorted(known))}, not '{name}'; "
                "rename the key under annotations, or remove it"
            )
    return [replace(row, url=mirrored(row.url, download)) for row in rows if row.split == "all" or row.split in asked.values()]


def listed(row: File, text: str, download: Download) -> list[File]:
    """The archives that a fetched list file names, one URL a line.

    Raises ValueError, naming list and line, when a line is no URL of an archive (such as an error page's).
    """
    found, files = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        url = mirrored(urljoin(row.url, line.strip()), download)
        name = _ARCHIVE.fullmatch(PurePosixPath(urlsplit(url).path).name)
        if name is None:
            raise ValueError(
                f"{row.path}: line {number} ({line.strip()[:80]!r}) is no URL of an archive; delete the file to fetch it again"
            )
        into = row.into.format(part=name[1])
        path = f".download/{PurePosixPath(into).name}{name[2]}"
        if found.get(path, url) != url:
            raise ValueError(f"{row.path}: line {number}: two archives are called {name[0]}; delete the file to fetch it again")
        found[path] = url
        files.append(replace(row, kind="archive", path=path, url=url, into=into, bytes=None, sha256=None))
    if not found:
        raise ValueError(f"{row.path}: the list names no archive; delete the file to fetch it again")
    return list(dict.fromkeys(files))
