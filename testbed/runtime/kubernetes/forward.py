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
import threading
from typing import Any, Final

from testbed.errors import TestbedError
from testbed.runtime.kubernetes.api import Cluster

_logger: Final = logging.getLogger(__name__)
_PIECE: Final = 1 << 18


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
                tunnel = self._cluster.tunnel(self._pod, self._namespace, self._port)
            except TestbedError as error:
                # The other end sees a closed connection, and tries again or says so.
                _logger.info("no connection to %s: %s", self._pod, error)
                return
            far = tunnel.socket(self._port)
            try:
                _pump(connection, far)
            except OSError as error:
                _logger.info("connection to %s broke: %s", self._pod, error)
            finally:
                far.close()


def _pump(near: socket.socket, far: Any) -> None:
    """Carry bytes both ways until either side has ended."""
    other: dict[Any, Any] = {near: far, far: near}
    while True:
        ready, _, _ = select.select(list(other), [], [])
        for source in ready:
            piece = source.recv(_PIECE)
            if not piece:
                return
            other[source].sendall(piece)
