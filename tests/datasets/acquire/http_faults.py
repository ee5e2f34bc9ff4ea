"""A real HTTP server on the loopback interface that serves files from memory, with ranges, and fails as a test specifies.

It runs in threads of the test process. A test reads the received requests from `requests`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """The fault of one response. With `cut` and `stall`, that many bytes of the body are sent first."""

    status: int = 0  # respond with this status instead of the file
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # close the connection
    stall: int | None = None  # send nothing more until the server ends
    pace: float = 0  # seconds before each 64 KiB
    body: bytes | None = None  # send this body instead
    no_range: bool = False  # ignore Range
    no_condition: bool = False  # ignore If-Range


@dataclass
class Faulty:
    """The files by path, the faults of the next requests for each path (in order, then none), and all requests so far."""

    base: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)  # path, Range, If-Range
    validators: bool = True  # send ETags
    ended: threading.Event = field(default_factory=threading.Event)

    def asked(self, path: str) -> list[str | None]:
        """The Range header of each request for `path`."""
        return [ranged for asked, ranged, _ in self.requests if asked == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        state: Faulty = self.server.state
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        state.requests.append((self.path, asked, condition))
        faults = state.faults.get(self.path, [])
        fault = faults.pop(0) if faults else Fault()
        if fault.status or self.path not in state.files:
            return self._answer(fault.status or 404, b"no", fault.headers)
        body = fault.body if fault.body is not None else state.files[self.path]
        headers = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'} if state.validators else {}
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and not fault.no_range else 0
        if condition and not fault.no_condition and condition != headers.get("ETag"):
            start = 0
        if start >= len(body) > 0:
            return self._answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._answer(206 if start else 200, body[start:], headers | fault.headers, fault)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], fault: Fault = Fault()) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        limit = next((n for n in (fault.cut, fault.stall) if n is not None), len(body))
        for at in range(0, min(limit, len(body)), 1 << 16):
            time.sleep(fault.pace)
            self.wfile.write(body[at : min(at + (1 << 16), limit)])
        if fault.stall is not None:
            self.server.state.ended.wait(30)
        if limit < len(body):
            self.close_connection = True

    def log_message(self, *args) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client was killed by a test
            super().handle()


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[Faulty]:
    """Run a server on the loopback interface while the body runs, on a free port unless `port` is given."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    server.state = Faulty(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.state
    finally:
        server.state.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
