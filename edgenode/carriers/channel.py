"""A link whose two streams share one channel, in order: what trunks and gRPC have in common."""

from __future__ import annotations

from collections.abc import Callable

from edgenode.links import Outgoing, PeerLink
from testbed.rpc.generated import edge_pb2 as pb


class ChannelLink(PeerLink):
    """A link over a channel that carries both streams; carriers derive from it."""

    def __init__(self, peer: int, address: str) -> None:
        super().__init__(peer, address)
        self.transfer: Transfers = Transfers(self)
        self.probes: Probes = Probes(self)

    @property
    def idle(self) -> bool:
        """Whether frames of tasks that are sent now go on without waiting."""
        raise NotImplementedError

    def queue(self, make: Callable[[], Outgoing | None]) -> None:
        """Write what ``make`` returns, in order, when its turn comes; open the channel if need be.

        ``make`` is called as the node of this link.
        """
        raise NotImplementedError

    def ask(self, request: pb.ProbeRequest) -> None:
        """Write a question, before the frames that wait; open the channel if need be."""
        raise NotImplementedError

    def reset(self) -> None:
        """Let the peer forget what was announced, after what was queued before."""
        raise NotImplementedError

    def streams_broke(self, reason: str) -> None:
        """Report of each stream that is open that it broke."""
        self.transfer_broke(reason)
        if self.probes.shut():
            self.on_probes_broken(self.peer, reason)

    def transfer_broke(self, reason: str) -> None:
        """Report that the tasks' stream broke, if it is open."""
        if self.transfer.shut():
            self.on_transfer_broken(self.peer, reason)

    def taken(self, reply: pb.HandOverTaken) -> None:
        """Hand in the answer to a hand-over."""
        if self.transfer.is_open:
            self.on_taken(self.peer, reply)

    def replied(self, reply: pb.ProbeReply) -> None:
        """Hand in the answer to a question."""
        if self.probes.is_open:
            self.on_probe_reply(self.peer, reply)


class Transfers:
    """The tasks of a link. Frames from before it was closed or broke are not written."""

    def __init__(self, link: ChannelLink) -> None:
        self._link = link
        self._opened = 0
        self.is_open = False

    @property
    def idle(self) -> bool:
        """See ``edgenode.links``."""
        return self._link.idle

    def send(self, make: Callable[[], Outgoing | None]) -> None:
        """See ``edgenode.links``."""
        if not self.is_open:
            self.is_open = True
            self._opened += 1
        opened = self._opened

        def make_now() -> Outgoing | None:
            return make() if self.is_open and opened == self._opened else None

        self._link.queue(make_now)

    def close(self) -> None:
        """See ``edgenode.links``."""
        if self.shut():
            self._link.reset()

    def shut(self) -> bool:
        """Write nothing more; return whether it was open."""
        was_open, self.is_open = self.is_open, False
        return was_open


class Probes:
    """The questions of a link."""

    def __init__(self, link: ChannelLink) -> None:
        self._link = link
        self.is_open = False

    def send(self, make: Callable[[], pb.ProbeRequest | None]) -> None:
        """See ``edgenode.links``."""
        self.is_open = True
        request = make()
        if request is not None:
            self._link.ask(request)

    def close(self) -> None:
        """See ``edgenode.links``."""
        self.shut()

    def shut(self) -> bool:
        """Take no more answers; return whether it was open."""
        was_open, self.is_open = self.is_open, False
        return was_open
