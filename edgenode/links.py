"""The sending side of a link between nodes: the seam that every carrier implements.

A link has two streams, one of transfer frames and one of probes. A stream delivers in order, hands
back the answers, and says once when it broke; what is sent next opens it anew. A carrier knows
nothing of the model. ``edgenode.receiving`` is the other end of each stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from testbed.rpc.generated import edge_pb2 as pb


class PeerAt(NamedTuple):
    """Where a peer is reached: its server, and where it takes trunks and HTTP (or empty)."""

    address: str
    trunk: str = ""
    http: str = ""


class Piece(NamedTuple):
    """Bytes of a task that are to be sent: ``length`` of its payload from ``position`` on.

    A carrier makes them when it writes them (``edgenode.payload``), so what waits takes no memory.
    """

    sender: int
    episode: int
    task_id: int
    position: int
    length: int


Outgoing: TypeAlias = pb.TransferFrame | Piece
"""A frame of a transfer; bytes are no message of their own, so that they need not be copied."""


class TransferStream(Protocol):
    """Tasks to one peer: announced, withdrawn, sent and handed over."""

    @property
    def is_open(self) -> bool:
        """Whether the stream was opened and did not break."""
        ...

    @property
    def idle(self) -> bool:
        """Whether everything given so far goes on to the network without waiting for it."""
        ...

    def send(self, make: Callable[[], Outgoing | None]) -> None:
        """Write what ``make`` returns when its turn comes; nothing if that is None."""
        ...

    def close(self) -> None:
        """Close the stream without calling it broken. No-op if it is not open."""
        ...


class ProbeStream(Protocol):
    """Questions to one peer."""

    def send(self, make: Callable[[], pb.ProbeRequest | None]) -> None:
        """Write what ``make`` returns when its turn comes; nothing if that is None."""
        ...

    def close(self) -> None:
        """Close the stream without calling it broken. No-op if it is not open."""
        ...


class PeerLink:
    """The link to one peer; carriers derive from it and make both streams.

    ``on_taken``, ``on_transfer_broken``, ``on_probe_reply`` and ``on_probes_broken`` are set by
    whoever uses the link at the time.
    """

    carrier = ""
    """Name of the carrier, for people."""

    transfer: TransferStream
    probes: ProbeStream

    def __init__(self, peer: int, address: str) -> None:
        self.peer = peer
        self.address = address
        self.detach()

    def detach(self) -> None:
        """Stop reporting to whoever used the link."""
        self.on_taken: Callable[[int, pb.HandOverTaken], None] = _ignore
        self.on_transfer_broken: Callable[[int, str], None] = _ignore
        self.on_probe_reply: Callable[[int, pb.ProbeReply], None] = _ignore
        self.on_probes_broken: Callable[[int, str], None] = _ignore

    async def close(self) -> None:
        """Close both streams and what carries them."""
        self.detach()
        self.transfer.close()
        self.probes.close()


def _ignore(_peer: int, _what: object) -> None:
    """Ignore what an unused link reports."""
