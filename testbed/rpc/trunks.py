"""The frames of trunks: byte streams between processes of one machine, over Unix sockets.

A frame is a header (length of its body, kind, channel) and a body. Who accepts a connection greets
it with a nonce. A channel leads from one node to another; who opens it proves that it has the token
of the caller for the server (``credentials``), and the answer proves that it came from the server.
The token itself is not sent, and a proof holds for one connection only::

    proof = HMAC(token, what, nonces, names of both)

A process of nodes also takes the order to end one of them as if it had been killed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from testbed.errors import PermanentError, TemporaryError
from testbed.rpc.credentials import Secrets
from testbed.rpc.identity import CONTROLLER, Identity, node_identity

HEADER: Final = Struct("<IBI")
"""Length of the body, kind, channel."""

MAGIC: Final = b"edge-testbed trunk 1\n"
"""Beginning of the greeting; the nonce follows."""

NONCE_BYTES: Final = 16
PROOF_BYTES: Final = 32

BODY_LIMIT: Final = 65536
"""Bytes of the largest body; that of a chunk has a limit of its own."""

CHUNK: Final = Struct("<iq")
"""Beginning of a chunk's body: episode and task. The bytes of the task follow."""

OPENING: Final = Struct(f"<ii{NONCE_BYTES}s{PROOF_BYTES}s")
"""Body of ``OPEN``: caller, server, nonce, proof. Of ``END_NODE``: -1, the node, nonce, proof."""


class Kind(IntEnum):
    """Kinds of frames. Those of channels are messages of ``edge.proto`` unless noted."""

    GREETING = 1
    """``MAGIC`` and a nonce."""
    OPEN = 2
    """``OPENING``."""
    OPENED = 3
    """The proof of the server: the channel may be used."""
    CLOSED = 4
    """The reason, as text: the channel is refused or has broken."""
    CLOSE = 5
    """Empty: nothing more comes on the channel."""
    RESET = 6
    """Empty: what was announced on the channel will not come; the channel stays open."""
    FRAME = 7
    """``TransferFrame`` without bytes of tasks."""
    BYTES = 8
    """``CHUNK`` and bytes of a task."""
    TAKEN = 9
    """``HandOverTaken``."""
    PROBE = 10
    """``ProbeRequest``."""
    REPLY = 11
    """``ProbeReply``."""
    END_NODE = 12
    """``OPENING``: end a node at once, by order of the controller's credentials."""
    BROKEN = 13
    """The reason, as text: the transfers of the channel have broken; the channel stays open."""


class Opening(NamedTuple):
    """An attempt to open a channel on a connection that was greeted with ``greeting``."""

    caller: Identity
    server: Identity
    greeting: bytes
    nonce: bytes

    def proof(self, what: bytes, token: str) -> bytes:
        """Return what proves ``token`` for this attempt; ``what`` tells caller from server."""
        names = f"{self.caller} {self.server}".encode()
        content = b"\n".join((what, self.greeting.hex().encode(), self.nonce.hex().encode(), names))
        return hmac.new(token.encode(), content, hashlib.sha256).digest()

    def holds(self, what: bytes, token: str, proof: bytes) -> bool:
        """Return whether ``proof`` proves ``token``, which must not be empty."""
        return bool(token) and hmac.compare_digest(self.proof(what, token), proof)


CALLER: Final = b"caller"
SERVER: Final = b"server"
END: Final = b"end"
"""What a proof is for."""


def new_nonce() -> bytes:
    """Return a nonce that was not used before."""
    return secrets.token_bytes(NONCE_BYTES)


def frame(kind: Kind, channel: int, body: bytes = b"") -> bytes:
    """Return a whole frame."""
    return HEADER.pack(len(body), kind, channel) + body


def end_node(path: Path, node: int, me: Secrets, timeout: float) -> None:
    """End ``node`` in the process that listens at ``path``, as if it had been killed alone.

    ``me`` are the controller's credentials.

    Raises:
        PermanentError: there is no such process, or it refuses; says why.
        TemporaryError: it does not answer within ``timeout`` seconds.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(timeout)
            stream.connect(str(path))
            kind, greeting = _read(stream)
            if kind != Kind.GREETING or not greeting.startswith(MAGIC):
                raise PermanentError(f"{path} is no socket of nodes of this version")
            opening = Opening(
                CONTROLLER, node_identity(node), greeting.removeprefix(MAGIC), new_nonce()
            )
            token = me.shown_to(opening.server)
            body = OPENING.pack(-1, node, opening.nonce, opening.proof(END, token))
            stream.sendall(frame(Kind.END_NODE, 0, body))
            kind, answer = _read(stream)
    except TimeoutError as error:
        raise TemporaryError(f"{path} does not answer within {timeout:g} s") from error
    except OSError as error:
        raise PermanentError(f"{path}: {error.strerror or error}") from error
    if kind != Kind.OPENED or not opening.holds(SERVER, token, answer):
        raise PermanentError(f"node {node}: {answer.decode(errors='replace')}")


def _read(stream: socket.socket) -> tuple[int, bytes]:
    length, kind, _ = HEADER.unpack(_exactly(stream, HEADER.size))
    if length > BODY_LIMIT:
        raise ConnectionError("the answer is none of a node")
    return kind, _exactly(stream, length)


def _exactly(stream: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = stream.recv(count)
        if not part:
            raise ConnectionError("the connection was closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
