"""The server's side of a WebSocket, as far as Kubernetes uses it (RFC 6455)."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
from collections.abc import Iterator
from typing import BinaryIO, Final, Protocol

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


class Output(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


def accept_key(key: str) -> str:
    """What ``Sec-WebSocket-Accept`` answers to ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


class WebSocket:
    """Binary messages over an upgraded connection. Any thread may send; one receives."""

    def __init__(self, source: BinaryIO, sink: Output) -> None:
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()
        self._closed = False

    def send(self, data: bytes) -> None:
        """Raises: OSError: the connection is gone."""
        self._send(_BINARY, data)

    def close(self, code: int = 1000) -> None:
        """Say that nothing more comes; idempotent, also when the connection is gone."""
        try:
            self._send(_CLOSE, struct.pack("!H", code))
        except (OSError, ValueError):
            self._closed = True

    def messages(self) -> Iterator[bytes]:
        """What the peer sends, until it closes or the connection ends."""
        whole = b""
        while True:
            try:
                final, kind, data = self._receive()
            except (OSError, EOFError, ValueError):
                return
            if kind == _CLOSE:
                self.close()
                return
            if kind == _PING:
                self._send(_PONG, data)
            elif kind in {_TEXT, _BINARY, _CONTINUATION}:
                whole += data
                if final:
                    yield whole
                    whole = b""

    def _send(self, kind: int, data: bytes) -> None:
        head = bytes([0x80 | kind])
        if len(data) < 126:
            head += bytes([len(data)])
        elif len(data) < 1 << 16:
            head += struct.pack("!BH", 126, len(data))
        else:
            head += struct.pack("!BQ", 127, len(data))
        with self._lock:
            if self._closed:
                return
            self._closed = kind == _CLOSE
            self._sink.write(head + data)
            self._sink.flush()

    def _receive(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._read(8))
        if not second & 0x80:
            raise ValueError("a client masks its frames")
        mask = self._read(4)
        data = self._read(size)
        repeated = mask * (size // 4 + 1)
        number = int.from_bytes(data, "big") ^ int.from_bytes(repeated[:size], "big")
        return bool(first & 0x80), first & 0x0F, number.to_bytes(size, "big")

    def _read(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise EOFError
        return data
