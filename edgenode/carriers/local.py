"""Links between nodes of one process: a queue of what they say, some of it in each loop turn.

The bytes of tasks are copied once, as if they had come from elsewhere, and checked like all others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from edgenode.links import Outgoing, PeerLink, Piece
from edgenode.payload import payload_slice
from edgenode.receiving import HasDriver, Inflow, Refused, answer
from edgenode.turns import MESSAGES_S
from testbed.rpc.generated import edge_pb2 as pb

_logger: Final = logging.getLogger(__name__)

Frame = TypeVar("Frame")


class LocalNode(HasDriver, Protocol):
    """A node of this process."""

    @property
    def index(self) -> int: ...

    @property
    def address(self) -> str: ...

    @property
    def context(self) -> Context:
        """The context in which all of the node's code runs."""
        ...


class Hub:
    """The nodes of one process by address, and the messages between them."""

    def __init__(self) -> None:
        self._nodes: dict[str, LocalNode] = {}
        self._links: set[LocalLink] = set()
        self._messages: deque[_Message] = deque()
        self._probes: deque[_Message] = deque()
        self._scheduled = False

    def add(self, node: LocalNode) -> None:
        """Take in a node that has its address."""
        self._nodes[node.address] = node

    def remove(self, node: LocalNode) -> None:
        """Break what leads to a node that ends. No-op if it is not here."""
        if self._nodes.get(node.address) is not node:
            return
        del self._nodes[node.address]
        for link in self._links:
            if link.address == node.address:
                self.post(link.me, link.broke, f"node {node.index} has ended")

    def find(self, address: str) -> LocalNode | None:
        """Return the node of this process that has an address; None if none has."""
        return self._nodes.get(address)

    def link(self, peer: int, address: str, me: LocalNode) -> LocalLink:
        """Return a link from ``me``, a node of this process, to another one."""
        link = LocalLink(peer, address, me, self)
        self._links.add(link)
        return link

    def drop(self, link: LocalLink) -> None:
        """Forget a link that was closed."""
        self._links.discard(link)

    def post(self, node: LocalNode, work: Callable[..., None], *arguments: Any) -> None:
        """Call ``work`` as ``node``, after what was posted before, when the loop comes round."""
        self._add(self._messages, (node, work, arguments))

    def post_probe(self, node: LocalNode, work: Callable[..., None], *arguments: Any) -> None:
        """Do the same for probes and answers, which come after what tasks wait for."""
        self._add(self._probes, (node, work, arguments))

    def _add(self, messages: deque[_Message], message: _Message) -> None:
        messages.append(message)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work_off, context=_EMPTY)

    def _work_off(self) -> None:
        messages, probes = self._messages, self._probes
        until = time.monotonic() + MESSAGES_S
        try:
            while messages or probes:
                node, work, arguments = (messages or probes).popleft()
                try:
                    node.context.run(work, *arguments)
                except Exception:
                    _logger.exception("node %d: a message cannot be handled", node.index)
                if time.monotonic() >= until:
                    break
        finally:
            self._scheduled = bool(messages or probes)
            if self._scheduled:
                asyncio.get_running_loop().call_soon(self._work_off, context=_EMPTY)


_EMPTY: Final = Context()

_Message: TypeAlias = tuple[LocalNode, Callable[..., None], tuple[Any, ...]]


class LocalLink(PeerLink):
    """A link to a node of the same process."""

    carrier = "local"

    def __init__(self, peer: int, address: str, me: LocalNode, hub: Hub) -> None:
        super().__init__(peer, address)
        self.me = me
        self._hub = hub
        self.transfer: _Transfers = _Transfers(self, hub)
        self.probes: _Probes = _Probes(self, hub)

    def broke(self, reason: str) -> None:
        """Say of each stream that is open that it broke."""
        if self.transfer.shut():
            self.on_transfer_broken(self.peer, reason)
        if self.probes.shut():
            self.on_probes_broken(self.peer, reason)

    async def close(self) -> None:
        """Close both streams."""
        await super().close()
        self._hub.drop(self)


class _Stream(Generic[Frame]):
    """Counts how often it was opened: what was sent before it broke is gone."""

    def __init__(self, link: LocalLink, hub: Hub) -> None:
        self._link = link
        self._hub = hub
        self._opened = 0
        self.is_open = False
        self.idle = True

    def send(self, make: Callable[[], Frame | None]) -> None:
        """See ``edgenode.links``."""
        if not self.is_open:
            self.is_open = True
            self._opened += 1
        self._post(self._link.me, self._write, make, self._opened)

    def _post(self, node: LocalNode, work: Callable[..., None], *arguments: Any) -> None:
        self._hub.post(node, work, *arguments)

    def close(self) -> None:
        """See ``edgenode.links``."""
        self.shut()

    def shut(self) -> bool:
        """Close the stream; return whether it was open."""
        was_open, self.is_open = self.is_open, False
        return was_open

    def _write(self, make: Callable[[], Frame | None], opened: int) -> None:
        if not self.is_open or opened != self._opened:
            return
        frame = make()
        if frame is None:
            return
        node = self._hub.find(self._link.address)
        if node is None:
            self._link.broke("UNAVAILABLE: it is not there")
            return
        try:
            node.context.run(self._deliver, node, frame, opened)
        except Refused as refused:
            self._refused(str(refused))

    def _deliver(self, node: LocalNode, frame: Frame, opened: int) -> None:
        raise NotImplementedError

    def _refused(self, reason: str) -> None:
        raise NotImplementedError

    def _current(self, opened: int) -> bool:
        return self.is_open and opened == self._opened


class _Transfers(_Stream[Outgoing]):
    def __init__(self, link: LocalLink, hub: Hub) -> None:
        super().__init__(link, hub)
        self._inflow: tuple[LocalNode, Inflow] | None = None

    def shut(self) -> bool:
        """Close the stream, so that the peer does not wait for what was announced."""
        inflow, self._inflow = self._inflow, None
        if inflow is not None:
            self._hub.post(inflow[0], inflow[1].end)
        return super().shut()

    def _deliver(self, node: LocalNode, frame: Outgoing, opened: int) -> None:
        if self._inflow is None:
            taken = partial(self._hub.post, self._link.me, self._answered, opened)
            self._inflow = node, Inflow(node, self._link.me.index, taken)
        inflow = self._inflow[1]
        if isinstance(frame, Piece):
            data = payload_slice(frame.task_id, frame.position, frame.length)
            inflow.chunk(frame.episode, frame.task_id, data)
            return
        inflow.frame(frame)

    def _answered(self, opened: int, reply: pb.HandOverTaken) -> None:
        if self._current(opened):
            self._link.on_taken(self._link.peer, reply)

    def _refused(self, reason: str) -> None:
        if self.shut():
            self._link.on_transfer_broken(self._link.peer, reason)


class _Probes(_Stream[pb.ProbeRequest]):
    def _post(self, node: LocalNode, work: Callable[..., None], *arguments: Any) -> None:
        self._hub.post_probe(node, work, *arguments)

    def _deliver(self, node: LocalNode, frame: pb.ProbeRequest, opened: int) -> None:
        answered = partial(self._post, self._link.me, self._answered, opened)
        answer(node, self._link.me.index, frame, answered)

    def _answered(self, opened: int, reply: pb.ProbeReply) -> None:
        if self._current(opened):
            self._link.on_probe_reply(self._link.peer, reply)

    def _refused(self, reason: str) -> None:
        if self.shut():
            self._link.on_probes_broken(self._link.peer, reason)
