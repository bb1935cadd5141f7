"""Ports of pods as ports of this machine, through the API server: no ingress, no exposed service.

Like ``kubectl port-forward``: whoever connects to the local port is connected to the pod, over a
connection of its own that is as safe as the one to the API server. The pod is looked up by name for
every connection, so one that came back is found again.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Final

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from testbed.errors import TemporaryError, TestbedError
from testbed.runtime.kubernetes.api import Cluster

if TYPE_CHECKING:
    from websocket import WebSocket

_logger: Final = logging.getLogger(__name__)
_DATA: Final = 0
"""The channel of bytes; the other one is for errors."""
_PIECE: Final = 1 << 16
_RECORD: Final = 1 << 14
_MOST: Final = 1 << 22
_PATIENCE_S: Final = 5.0


class PortForward:
    """``port`` of ``pod`` at ``address`` of this machine, until ``close``."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str, port: int) -> None:
        self._cluster = cluster
        self._namespace, self._pod, self._port = namespace, pod, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._closed = False
        threading.Thread(target=self._serve, name=f"forward to {pod}", daemon=True).start()

    @property
    def address(self) -> str:
        """host:port"""
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        """Take no further connections; those that are open go on until one side ends them."""
        self._closed = True
        with contextlib.suppress(OSError):
            # Wakes the thread that waits for connections.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._connect,
                args=(connection,),
                name=f"forwarded connection to {self._pod}",
                daemon=True,
            ).start()

    def _connect(self, connection: socket.socket) -> None:
        with connection:
            try:
                tunnel = self._patiently()
            except TestbedError as error:
                # The other end sees a closed connection, and tries again or says so.
                _logger.info("no connection to %s: %s", self._pod, error)
                return
            from websocket import WebSocketException

            try:
                _Carrier(connection, tunnel).carry()
            except (OSError, WebSocketException) as error:
                _logger.info("connection to %s broke: %s", self._pod, error)
            finally:
                # Not its close(): that waits for the other side to agree.
                tunnel.shutdown()

    def _patiently(self) -> WebSocket:
        """Return a tunnel; waits a moment for a pod being replaced or a busy API server."""
        waiting = Retrying(
            retry=retry_if_exception_type(TemporaryError),
            stop=stop_after_delay(_PATIENCE_S),
            wait=wait_exponential(multiplier=0.1, max=1.0),
            reraise=True,
        )
        return waiting(self._cluster.tunnel, self._pod, self._namespace, self._port)


class _Carrier:
    """Carries bytes between a connection and a tunnel until either has ended.

    One thread for both directions, because a TLS connection may not be used by two.
    """

    def __init__(self, near: socket.socket, tunnel: WebSocket) -> None:
        from websocket import ABNF

        self._near, self._tunnel = near, tunnel
        self._frames = ABNF
        self._to_near, self._to_far = bytearray(), bytearray()
        self._opened: set[int] = set()

    def carry(self) -> None:
        """Raises: OSError, WebSocketException: one of them broke."""
        near, far = self._near, self._tunnel.sock
        if far is None:
            return
        while True:
            # One that is not read from for a while is one that others do not write to for ever.
            reading = [far] if len(self._to_near) < _MOST else []
            if len(self._to_far) < _MOST:
                reading.append(near)
            writing = ([near] if self._to_near else []) + ([far] if self._to_far else [])
            # What TLS has decrypted already no select sees.
            decrypted = far in reading and isinstance(far, ssl.SSLSocket) and far.pending() > 0
            ready, writable, _ = select.select(reading, writing, [], 0 if decrypted else None)
            if near in writable:
                del self._to_near[: near.send(self._to_near)]
            if far in writable:
                del self._to_far[: far.send(self._to_far[:_RECORD])]
            if near in ready:
                piece = near.recv(_PIECE)
                if not piece:
                    # What was said last still gets there.
                    far.sendall(self._to_far)
                    return
                frame = self._frames.create_frame(
                    bytes([_DATA]) + piece, self._frames.OPCODE_BINARY
                )
                self._to_far += frame.format()
            if (far in ready or decrypted) and not self._receive():
                near.sendall(self._to_near)
                return

    def _receive(self) -> bool:
        """Take one frame; whether there is more to come."""
        opcode, frame = self._tunnel.recv_data_frame(True)
        if opcode == self._frames.OPCODE_CLOSE:
            return False
        if opcode != self._frames.OPCODE_BINARY or frame is None or not frame.data:
            return True
        channel, content = frame.data[0], frame.data[1:]
        if channel not in self._opened:
            # The first of each channel names the port.
            self._opened.add(channel)
        elif channel == _DATA:
            self._to_near += content
        elif content:
            _logger.info("connection refused: %s", content.decode(errors="replace"))
            return False
        return True
