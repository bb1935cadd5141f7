"""A WebHDFS server that sends something else than it should: nothing is read beyond bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from testbed.errors import PermanentError
from testbed.storage.artifacts import open_artifact_store
from testbed.storage.artifacts.base import MANIFEST, manifest_of

CONTENT = b"12"
ENDLESS = 1 << 40


@contextmanager
def served(length: int, body: Callable[[str], Iterator[bytes]]) -> Iterator[tuple[str, list[int]]]:
    """A server whose files are said to have ``length`` bytes; its URL, and what was taken of it."""
    taken: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parse_qs(parts.query)["op"] == ["GETFILESTATUS"]:
                found = {"FileStatus": {"length": length, "type": "FILE", "pathSuffix": ""}}
                self._start({"Content-Type": "application/json"})
                self.wfile.write(json.dumps(found).encode())
                return
            self._start({"Content-Type": "application/octet-stream"})
            sent = 0
            try:
                for chunk in body(parts.path):
                    self.wfile.write(chunk)
                    sent += len(chunk)
            except OSError:
                pass
            taken.append(sent)

        def _start(self, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"webhdfs://me@127.0.0.1:{server.server_address[1]}/store", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def manifest_then(chunk: bytes, count: int) -> Callable[[str], Iterator[bytes]]:
    def body(path: str) -> Iterator[bytes]:
        if path.endswith(MANIFEST):
            yield manifest_of({"file": CONTENT})
            return
        for _ in range(count):
            yield chunk

    return body


def test_a_file_comes_as_it_is() -> None:
    with served(len(CONTENT), manifest_then(CONTENT, 1)) as (url, _):
        assert open_artifact_store(url).get("policies/one") == {"file": CONTENT}


def test_a_file_that_is_said_to_be_longer_is_not_fetched() -> None:
    with served(ENDLESS, manifest_then(CONTENT, 1)) as (url, taken):
        with pytest.raises(PermanentError, match=f"file has {ENDLESS} bytes instead of 2"):
            open_artifact_store(url).get("policies/one")
        assert len(taken) == 1, "only the manifest was read"


def test_a_download_ends_beyond_what_was_said() -> None:
    chunk = bytes(1 << 16)
    with (
        served(len(CONTENT), manifest_then(chunk, ENDLESS >> 16)) as (url, taken),
        pytest.raises(PermanentError, match="file has 3 bytes instead of 2"),
    ):
        open_artifact_store(url).get("policies/one")
    assert sum(taken) < 1 << 26


def test_a_manifest_without_end_is_refused() -> None:
    def body(path: str) -> Iterator[bytes]:
        for _ in range(ENDLESS >> 16):
            yield b" " * (1 << 16)

    with (
        served(len(CONTENT), body) as (url, _),
        pytest.raises(PermanentError, match=r"manifest.json has more than"),
    ):
        open_artifact_store(url).get("policies/one")
