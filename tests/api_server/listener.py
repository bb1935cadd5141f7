"""Connections: accepts them, one thread for each, cuts them, and goes away and comes back."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

HOST: Final = "127.0.0.1"

_RESET: Final = struct.pack("ii", 1, 0)


class Listener:
    """Serves one port of this machine until ``close``; ``serve`` gets each accepted socket."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._accepting: threading.Thread | None = None
        self._socket = _bound(0)
        self.port: int = self._socket.getsockname()[1]

    def listen(self) -> None:
        """Accept connections from now on."""
        self._socket.listen(128)
        self._accepting = threading.Thread(
            target=self._accept, args=(self._socket,), name=f"api-server:{self.port}", daemon=True
        )
        self._accepting.start()

    def leave(self) -> None:
        """Reset all connections and refuse new ones, but keep the port."""
        self._stop_accepting()
        # Bound but not listening: nobody else gets the port, and who connects is refused.
        self._socket = _bound(self.port)
        self.cut()

    def close(self) -> None:
        """End every connection and every thread."""
        if self._accepting is not None:
            self._stop_accepting()
        else:
            self._socket.close()
        self.cut()
        with self._lock:
            threads = list(self._open)
        for thread in threads:
            thread.join(10.0)
            if thread.is_alive():
                raise RuntimeError(f"{thread.name} of the API server does not end")

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            for connection in self._open.values():
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    connection.shutdown(socket.SHUT_RDWR)

    def _stop_accepting(self) -> None:
        # shutdown, unlike close, wakes the thread that is in accept.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._accepting is not None:
            self._accepting.join()
            self._accepting = None
        self._socket.close()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(
                target=self._run, args=(connection,), name="api-connection", daemon=True
            )
            with self._lock:
                self._open[thread] = connection
            thread.start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                self._serve(connection)
        finally:
            with contextlib.suppress(OSError):
                connection.close()
            with self._lock:
                self._open.pop(threading.current_thread(), None)


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((HOST, port))
    return made
