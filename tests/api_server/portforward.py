"""Port-forwarding to pods: ``v4.channel.k8s.io`` frames over a WebSocket, to a TCP address.

Each forwarded port has two channels, data 2i and error 2i+1; the first frame on each carries the
port's number as a little-endian uint16. A connection carries one TCP connection per port, and ends
with the last of them. See kubelet's ``portforward/websocket.go``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Final

from tests.api_server.websocket import WebSocket

PROTOCOLS: Final = ("v4.channel.k8s.io",)


class Routes:
    """Where the ports of pods really lead, and which forwards are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._routes: dict[tuple[str, str, int], tuple[str, int]] = {}
        self._forwards: dict[Forward, tuple[str, str]] = {}

    def add(self, namespace: str, pod: str, port: int, host: str, to: int) -> None:
        with self._lock:
            self._routes[namespace, pod, port] = (host, to)

    def find(self, namespace: str, pod: str, port: int) -> tuple[str, int] | None:
        with self._lock:
            return self._routes.get((namespace, pod, port))

    def cut(self, namespace: str | None = None, pod: str | None = None) -> None:
        """End the forwards to a pod, or all."""
        with self._lock:
            found = [
                forward
                for forward, (its_namespace, its_pod) in self._forwards.items()
                if namespace in {None, its_namespace} and pod in {None, its_pod}
            ]
        for each in found:
            each.end()

    def serve(self, namespace: str, pod: str, ports: list[int], peer: WebSocket) -> None:
        """Forward until either side ends."""
        forward = Forward(peer)
        with self._lock:
            self._forwards[forward] = (namespace, pod)
        try:
            forward.run(
                [(port, self.find(namespace, pod, port)) for port in ports], f"{pod}_{namespace}"
            )
        finally:
            with self._lock:
                del self._forwards[forward]


class Forward:
    """One WebSocket and the connections behind it."""

    def __init__(self, peer: WebSocket) -> None:
        self._peer = peer
        self._sockets: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    def run(self, ports: list[tuple[int, tuple[str, int] | None]], pod: str) -> None:
        for index, (port, _) in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                self._peer.send(bytes([channel]) + struct.pack("<H", port))
        threads = []
        for index, (port, address) in enumerate(ports):
            try:
                if address is None:
                    raise ConnectionRefusedError
                self._sockets[index] = socket.create_connection(address, timeout=10.0)
                self._sockets[index].settimeout(None)
            except OSError:
                self._peer.send(bytes([2 * index + 1]) + _refused(port, pod).encode())
                continue
            thread = threading.Thread(
                target=self._pump, args=(index,), name=f"port-forward:{port}", daemon=True
            )
            threads.append(thread)
            thread.start()
        if not threads:
            self._peer.close()
        for message in self._peer.messages():
            index, is_error = divmod(message[0], 2) if message else (0, 1)
            connection = self._sockets.get(index)
            if connection is not None and not is_error:
                with contextlib.suppress(OSError):
                    connection.sendall(message[1:])
        self.end()
        for thread in threads:
            thread.join()

    def end(self) -> None:
        """Close what is behind the forward, with which the forward ends."""
        for connection in list(self._sockets.values()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _pump(self, index: int) -> None:
        connection = self._sockets[index]
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(1 << 15):
                self._peer.send(bytes([2 * index]) + data)
        with self._lock:
            del self._sockets[index]
            last = not self._sockets
        if last:
            self._peer.close()


def _refused(port: int, pod: str) -> str:
    return (
        f"error forwarding port {port} to pod {pod}, uid : failed to execute portforward in "
        f'network namespace "/var/run/netns/cni": failed to connect to localhost:{port} inside '
        f'namespace "{pod}", IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused IPv6 '
        f"dial tcp6 [::1]:{port}: connect: connection refused "
    )
