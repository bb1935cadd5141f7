"""The server as a process: who gets in, how it is started and how it ends."""

from __future__ import annotations

import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from testbed.ui.server import is_loopback
from tests.cli.conftest import Command
from tests.ui.pages import PATIENCE_S, Served, served


def get(server: Served, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Ask the server, as the host that the headers name."""
    place = urlsplit(server.place)
    assert place.hostname is not None
    connection = HTTPConnection(place.hostname, place.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read().decode(errors="replace")
    finally:
        connection.close()


def test_from_its_start_to_its_end(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert server.place.startswith("http://127.0.0.1:")
        path = server.address.removeprefix(server.place)

        for asked in ("/", "/runs", "/_nicegui_ws/socket.io/?EIO=4&transport=polling", "/?token=x"):
            assert get(server, asked)[0] == 403
        assert get(server, path, Host="evil.example")[0] == 403

        status, headers, _ = get(server, path)
        assert status == 303
        cookie = headers["set-cookie"].partition(";")[0]
        assert get(server, path)[0] == 403
        assert server.next_address().startswith(server.place)

        status, headers, text = get(server, "/", Cookie=cookie)
        assert status == 200
        assert "default" in text or "testbed" in text
        assert "https://" not in text.replace("https://www.w3.org", "")
        assert server.interrupt() == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""


def test_a_port_that_is_taken(tmp_path: Path, testbed: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = testbed("ui", "--no-browser", "--port", port)

    assert said.code == 2
    assert "address already in use" in said.err
    assert "--port" in said.err


def test_without_the_extra_it_is_named(testbed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("testbed.ui")]:
        monkeypatch.delitem(sys.modules, name)
    absent: Any = None
    monkeypatch.setitem(sys.modules, "nicegui", absent)
    said = testbed("ui", "--no-browser")

    assert said.code == 3
    assert "pip install 'edge-testbed[ui]'" in said.err


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("lab.example", False),
    ],
)
def test_addresses_of_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own
