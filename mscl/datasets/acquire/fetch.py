"""Download a file over HTTP: the final file is either complete or absent.

Received bytes are stored in `<file>.part`. The JSON file `<file>.part.json` beside it identifies the file on the server. A later
call resumes from there. The part is renamed to its final name once size and sha256 are verified, where they are known.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests
import urllib3

from mscl.machine.files import sha256 as sha256_of
from mscl.machine.files import write_json
from mscl.watch.progress import tqdm

CHUNK = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_GONE = "find its new address and set download.mirror, or put the file by hand at"


@dataclass(frozen=True)
class Patience:
    """When to retry and when to give up. Times are in seconds."""

    tries: int = 8  # consecutive failures without any new byte
    wait: float = 1.0  # before the second try; doubles with every further try
    longest: float = 120.0  # upper limit of that wait
    asked: float = 900.0  # upper limit of a wait that the server asks for (Retry-After)
    connect: float = 20.0  # timeout for connecting
    read: float = 60.0  # timeout without any new byte


PATIENCE = Patience()


@dataclass(frozen=True)
class Fetched:
    """A downloaded file: `bytes` and `sha256` as measured; `etag` if the server sent one."""

    url: str
    bytes: int
    sha256: str
    etag: str | None = None


class _Again(Exception):
    """Temporary failure: try again, after `wait` seconds if the server asked for a wait."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Wrong(Exception):
    """The size or sha256 of the server's file is not the one in sources.csv."""


class _Part:
    """The partial file `<target>.part` and its JSON description {url, etag, modified, bytes}."""

    def __init__(self, url: str, target: Path) -> None:
        self.url, self.target = url, target
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def card(self) -> dict:
        """The description of the partial file; {} if there is none or it belongs to another URL."""
        try:
            card = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return {}
        return card if isinstance(card, dict) and card.get("url") == self.url else {}

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self) -> None:
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def start(self, response: requests.Response, total: int | None) -> None:
        """Start again with the file of `response`.

        The description is deleted first and written last, so it never describes another part.
        """
        self.drop()
        self.path.touch()
        etag = response.headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else None
        write_json(
            self.note, {"url": self.url, "etag": strong, "modified": response.headers.get("Last-Modified"), "bytes": total}
        )


def fetch(
    url: str,
    target: Path,
    *,
    bytes: int | None = None,
    sha256: str | None = None,
    patience: Patience = PATIENCE,
    stop: threading.Event | None = None,
) -> Fetched:
    """Download `url` to `target`, resuming an earlier partial download; an existing correct file is kept.

    If `bytes` or `sha256` is given, the file must match: a wrong file is deleted and downloaded once more. Another thread can
    stop the call by setting `stop`. Raises ValueError that names the URL and how to fix it if the file cannot be downloaded.
    """
    if target.is_file():
        there = Fetched(url, target.stat().st_size, sha256_of(target))
        if _differs(there, bytes, sha256) is None:
            return there
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    part, stop, wrong = _Part(url, target), stop or threading.Event(), ""
    for _ in range(2):
        try:
            _persist(part, bytes, bool(sha256), patience, stop)
            got = Fetched(url, part.size(), sha256_of(part.path), part.card().get("etag"))
            if wrong := _differs(got, bytes, sha256) or "":
                raise _Wrong(wrong)
        except _Wrong as error:
            wrong = str(error)
            part.drop()
            continue
        os.replace(part.path, target)
        part.note.unlink(missing_ok=True)
        return got
    raise ValueError(
        f"{url}: {wrong}, twice; the server has a different file: set download.mirror, or put the correct file at {target}"
    )


def _differs(file: Fetched, bytes: int | None, sha256: str | None) -> str | None:
    """How a file differs from the expected size or sha256; None if it does not."""
    if bytes and file.bytes != bytes:
        return f"received {file.bytes} bytes, expected {bytes}"
    if sha256 and file.sha256 != sha256:
        return f"its sha256 is {file.sha256[:12]}…, expected {sha256[:12]}…"
    return None


def _persist(part: _Part, bytes: int | None, checked: bool, patience: Patience, stop: threading.Event) -> None:
    """Download until `part` is complete.

    Raises ValueError for a permanent error, or after more than `patience.tries` failures in a row without progress.
    """
    failures, best = 0, part.size()
    with requests.Session() as session:
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "mscl"})
        while True:
            try:
                return _attempt(session, part, bytes, checked, patience, stop)
            except _Again as error:
                reason, wait = str(error), error.wait
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
                raise ValueError(f"{part.url}: not an http or https URL; correct download.mirror") from None
            except requests.exceptions.TooManyRedirects:
                raise ValueError(f"{part.url}: the server redirects in a loop; set download.mirror") from None
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason, wait = _trouble(error, part), None
            except OSError as error:
                raise _unwritable(part.target, error) from None
            failures = 1 if part.size() > best else failures + 1
            best = max(best, part.size())
            if failures > patience.tries:
                raise ValueError(
                    f"{part.url}: {reason}, {failures} time(s) in a row; check the network (a compute node may have none) "
                    "and run the same command again: the received bytes are kept"
                )
            backoff = min(patience.longest, patience.wait * 2 ** (failures - 1)) * random.uniform(0.5, 1)
            if stop.wait(backoff if wait is None else min(wait, patience.asked)):
                raise ValueError(f"{part.url}: stopped; run the same command again to resume")


def _trouble(error: Exception, part: _Part) -> str:
    """Describe a temporary network error. Raises ValueError for an invalid certificate, which a retry cannot fix."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        raise ValueError(
            f"{part.url}: the server's certificate cannot be verified; set REQUESTS_CA_BUNDLE to the certificates of your "
            f"network, set download.mirror, or put the file by hand at {part.target}"
        ) from None
    unknown = "the host name of the server cannot be resolved"
    kinds = {"timed out": "no answer in time", "resolve": unknown, "Name or service": unknown, "refused": "connection refused"}
    return next((said for word, said in kinds.items() if word in text), f"the connection broke ({type(error).__name__})")


def _unwritable(target: Path, error: OSError) -> ValueError:
    if error.errno in _FULL:
        return ValueError(
            f"{target}: no space left in {target.parent} ({error.strerror}); free some space and run the same command again: "
            "the received bytes are kept"
        )
    return ValueError(f"{target}: cannot be written ({error.strerror}); fix the folder's permissions or choose another root")


def _attempt(
    session: requests.Session, part: _Part, bytes: int | None, checked: bool, patience: Patience, stop: threading.Event
) -> None:
    """Send one request. Returns when the part is complete; raises `_Again`, `_Wrong`, ValueError, or what requests raises."""
    card, offset = part.card(), part.size()
    validator = card.get("etag") or card.get("modified")
    if not card or not (validator or checked):  # a changed file on the server could not be detected
        offset = 0
    total = card.get("bytes") if offset else None
    if total is not None and offset == total:
        return
    asked = {}
    if offset:
        asked["Range"] = f"bytes={offset}-"
        if validator:
            asked["If-Range"] = validator
    with session.get(part.url, headers=asked, stream=True, timeout=(patience.connect, patience.read)) as response:
        if response.status_code == 416 and offset:
            if _range(response)[1] == offset:
                return
            part.drop()
            raise _Again("the partial file does not match the file on the server", 0)
        _judge(response, part)
        if response.status_code == 206:
            start, length = _range(response)
            changed = card.get("etag") and response.headers.get("ETag", card["etag"]) != card["etag"]
            if start != offset or changed or (total is not None and length != total):
                part.drop()
                raise _Again("the file changed on the server", 0)
            total = length if total is None else total
        else:
            offset, total = 0, _length(response)
            part.start(response, total)
        if bytes and total is not None and total != bytes:
            raise _Wrong(f"the server announces {total} bytes, expected {bytes}")
        _room(part.target, (total or offset) - offset)
        _receive(response, part, total, stop)
    if total is not None and part.size() < total:
        raise _Again(f"the connection was cut at {part.size()} of {total} bytes")
    if total is not None and part.size() > total:
        part.drop()
        raise _Again("received more bytes than the server announced")


def _judge(response: requests.Response, part: _Part) -> None:
    """Raise for a response without a usable body: `_Again` if waiting may help, else ValueError that says how to fix it."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise _Again(f"the server answered {status} ({response.reason})", _retry_after(response.headers.get("Retry-After")))
    if status not in (200, 206) or (status == 206 and "Range" not in response.request.headers):
        raise ValueError(f"{part.url}: the server answered {status} ({response.reason}); {_GONE} {part.target}")
    page = response.headers.get("Content-Type", "").startswith("text/html")
    if page and part.target.suffix not in (".html", ".htm"):  # a dead site often answers 200 with its front page
        raise ValueError(f"{part.url}: the server answered with a web page instead of the file; {_GONE} {part.target}")


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None if it holds neither."""
    if value and value.strip().isdigit():
        return float(value)
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdigit() and not response.headers.get("Content-Encoding") else None


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """(first byte, total bytes) of a Content-Range header; None for a missing value."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    return tuple(int(g) if g and g.isdigit() else None for g in found.groups()) if found else (None, None)


def _room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise ValueError(
            f"{target}: {needed / 1e9:.4g} GB are still to download, but only {free / 1e9:.4g} GB are free in {target.parent}; "
            "free some space or choose another root"
        )


def _receive(response: requests.Response, part: _Part, total: int | None, stop: threading.Event) -> None:
    shown = {"desc": part.target.name, "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with open(part.path, "ab") as file, tqdm(total=total, initial=part.size(), **shown) as bar:
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            bar.update(len(chunk))
            if stop.is_set():
                raise ValueError(f"{part.url}: stopped; run the same command again to resume")
        file.flush()
        os.fsync(file.fileno())
