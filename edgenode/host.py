"""The nodes of one process: what they share, and how one of them ends alone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from edgenode.background import Background
from edgenode.carriers.grpc_streams import GrpcLink
from edgenode.carriers.local import Hub, LocalNode
from edgenode.carriers.trunk import TrunkNode, Trunks
from edgenode.links import PeerAt, PeerLink
from edgenode.spool import Files, Spool
from testbed.rpc.credentials import Secrets
from testbed.rpc.generated import edge_pb2 as pb

REST_S: Final = 0.03
"""Seconds from the end of an episode at one node to the collection of garbage."""


class Transport(StrEnum):
    """What carries messages between nodes of different processes."""

    AUTO = "auto"
    """Trunks where both processes take them, gRPC elsewhere."""
    TRUNK = "trunk"
    GRPC = "grpc"
    """gRPC, also between nodes of one process."""


class HostedNode(LocalNode, TrunkNode, Protocol):
    """A node of this process, for all that carries its messages."""

    def heard(self, sender: int, said: pb.Said) -> None:
        """Hear what a neighbour says to all of its neighbours."""
        ...


class Host:
    """The nodes of this process and what carries messages between them and to others.

    ``size`` is how many nodes the process is started with.
    """

    def __init__(self, size: int = 1, transport: Transport = Transport.AUTO) -> None:
        self.size = size
        self._transport = transport
        self._hub = Hub()
        self._nodes: dict[int, HostedNode] = {}
        self._enders: dict[int, Callable[[], None]] = {}
        self._ended: dict[int, asyncio.Event] = {}
        self._trunks = Trunks(self._nodes, self.end_node)
        self._files: Files | None = None
        self._resting = False
        self.log = -1
        """The node whose files the log of this process is in."""

    @property
    def trunk(self) -> str:
        """Where other processes connect their trunks; empty: nowhere."""
        return self._trunks.address

    def spool(self, node: int, folder: Path) -> Spool:
        """Return the log of a node, in the files of the first one of this process.

        ``folder`` is where a node has its files if it is the first.
        """
        if self._files is None:
            self.log = node
            made = Spool(folder)
            self._files = made.files
            return made
        return Spool(folder, self._files)

    def listen(self, bind: str) -> None:
        """Take trunks, and orders to end a node, at ``bind``.

        Raises: TestbedError: as ``Trunks.listen``.
        """
        self._trunks.listen(bind)

    def rest(self) -> None:
        """Note that the episode of a node is over: soon nothing is due at any of them.

        Garbage is collected then, and hardly ever while something may be due: it takes tens of
        milliseconds where many nodes share a process.
        """
        if not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_later(REST_S, self._collect)

    def _collect(self) -> None:
        self._resting = False
        gc.collect()

    def add(self, node: HostedNode, end: Callable[[], None]) -> None:
        """Take in a node that has its address. ``end`` ends it at once, without a farewell."""
        self._nodes[node.index] = node
        self._enders[node.index] = end
        self._ended[node.index] = asyncio.Event()
        self._hub.add(node)

    def remove(self, node: HostedNode) -> None:
        """Break what leads to a node that ends. No-op if it is not here."""
        if self._nodes.get(node.index) is not node:
            return
        del self._nodes[node.index]
        self._hub.remove(node)
        self._trunks.ended(node.index)

    def gone(self, node: int) -> None:
        """Note that everything of a node has ended."""
        if node in self._ended:
            self._ended[node].set()

    async def end_node(self, node: int) -> None:
        """End a node as if it had been killed, and return when it is gone."""
        self._nodes[node].context.copy().run(self._enders[node])
        await self._ended[node].wait()

    def here(self, address: str) -> HostedNode | None:
        """Return the node of this process at an address; None if messages to it go over gRPC."""
        found = None if self._transport is Transport.GRPC else self._hub.find(address)
        return None if found is None else self._nodes.get(found.index)

    def link(self, peer: int, at: PeerAt, me: HostedNode, background: Background) -> PeerLink:
        """Return a link from a node of this process to a peer."""
        if self._transport is not Transport.GRPC:
            if self._hub.find(at.address) is not None:
                return self._hub.link(peer, at.address, me)
            if at.trunk and self._trunks.address and isinstance(me.me, Secrets):
                return self._trunks.link(peer, at.address, at.trunk, me)
        return GrpcLink(peer, at.address, background, me.me)

    def close(self) -> None:
        """Close all trunks."""
        self._trunks.close()
