"""Port-forwarding through the fake API server, by the official client."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward

from tests.api_server import ApiServer
from tests.testing.cluster import NAMESPACE, Api, pod, ready


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving.server_address[1]
        serving.shutdown()
        thread.join()


@pytest.fixture
def forward(server: ApiServer, api: Api, echo: int) -> Iterator[Any]:
    """Opens forwards to a pod that is ready; they are closed before ``echo`` is."""
    api.core.create_namespaced_pod(NAMESPACE, pod())
    server.wait_for(lambda: ready(server, "single"))
    forwards: list[Any] = []

    def opened(*ports: int) -> Any:
        made = portforward(
            api.core.connect_get_namespaced_pod_portforward,
            "single",
            NAMESPACE,
            ports=",".join(map(str, ports)),
        )
        forwards.append(made)
        for port in ports:
            made.socket(port).settimeout(10.0)
        return made

    yield opened
    for each in forwards:
        each.close()
    _wait_for_proxies()
    for each in forwards:
        # The client leaves its socket open where the server has ended the forward.
        each.websocket.shutdown()


def _wait_for_proxies() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("Kubernetes port forward proxy"):
            thread.join(10.0)


def _read(peer: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := peer.recv(1 << 16)):
        data += more
    return data


def test_what_is_sent_comes_back(server: ApiServer, forward: Any, echo: int) -> None:
    server.route(NAMESPACE, "single", 7440, "127.0.0.1", echo)
    peer = forward(7440).socket(7440)
    for data in (b"hello", bytes(range(256)) * 1000, b"x" * 125 + b"y", b"z" * 70_000):
        thread = threading.Thread(target=peer.sendall, args=(data,))
        thread.start()
        assert _read(peer, len(data)) == data
        thread.join()
    assert any(each.path.endswith("/portforward") for each in server.requests)


def test_several_ports_and_forwards(server: ApiServer, forward: Any, echo: int) -> None:
    for port in (7440, 7441):
        server.route(NAMESPACE, "single", port, "127.0.0.1", echo)
    both, other = forward(7440, 7441), forward(7440)
    peers = [both.socket(7440), both.socket(7441), other.socket(7440)]
    for number, peer in enumerate(peers):
        peer.sendall(b"number %d" % number)
    assert [_read(peer, 8) for peer in peers] == [b"number 0", b"number 1", b"number 2"]


def test_nothing_listens(server: ApiServer, forward: Any) -> None:
    made = forward(7440)
    assert made.socket(7440).recv(10) == b""
    assert "connection refused" in made.error(7440)


def test_a_forward_ends_with_the_pod(server: ApiServer, forward: Any, echo: int) -> None:
    server.route(NAMESPACE, "single", 7440, "127.0.0.1", echo)
    for end in (
        partial(server.break_forwards, NAMESPACE, "single"),
        partial(server.delete, "pods", NAMESPACE, "single"),
    ):
        peer = forward(7440).socket(7440)
        peer.sendall(b"x")
        assert _read(peer, 1) == b"x"
        end()
        with contextlib.suppress(ConnectionError):
            assert peer.recv(10) == b""


def test_a_forward_ends_with_what_is_behind_it(server: ApiServer, forward: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.route(NAMESPACE, "single", 7440, "127.0.0.1", listening.getsockname()[1])
        peer = forward(7440).socket(7440)
        behind, _ = listening.accept()
        with behind:
            behind.sendall(b"last words")
        assert _read(peer, 100) == b"last words"


def test_no_forward_to_a_pod_that_does_not_run(server: ApiServer, api: Api) -> None:
    with pytest.raises(ApiException, match="404"):
        portforward(
            api.core.connect_get_namespaced_pod_portforward, "none", NAMESPACE, ports="7440"
        )
    server.forbid("create", "pods/portforward")
    api.core.create_namespaced_pod(NAMESPACE, pod())
    server.wait_for(lambda: ready(server, "single"))
    with pytest.raises(ApiException, match="403"):
        portforward(
            api.core.connect_get_namespaced_pod_portforward, "single", NAMESPACE, ports="7440"
        )
