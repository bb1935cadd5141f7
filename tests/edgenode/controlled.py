"""What tests of all families of work have of started nodes: a controller's side of their logs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc.aio

from edgenode.node import EdgeNode
from testbed.rpc.generated import edge_pb2 as pb


class Connected(Protocol):
    """A node, and the controller's side of its connection."""

    @property
    def node(self) -> EdgeNode: ...

    @property
    def channel(self) -> grpc.aio.Channel: ...

    @property
    def control(self) -> Any: ...


_Member = TypeVar("_Member", bound=Connected)


class Controlled(ABC, Generic[_Member]):
    """Nodes whose logs are read; ``patience`` is how long, in seconds, something is waited for."""

    patience: float

    def __init__(self, members: list[_Member]) -> None:
        self.members = members
        self._news = asyncio.Condition()
        self._listening: list[asyncio.Task[None]] = []

    @abstractmethod
    def _take(self, member: _Member, batch: pb.EventBatch) -> None:
        """Keep a batch that a node has sent; the nodes of a process have one log."""

    def listen(self, member: _Member) -> None:
        """Read the log of a node from now on."""
        self._listening.append(asyncio.create_task(self._listen(member)))

    async def _listen(self, member: _Member) -> None:
        call = member.control.Events()
        async for batch in call:
            self._take(member, batch)
            await call.write(pb.BatchAck(run=batch.run, number=batch.number))
            async with self._news:
                self._news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what the nodes have logged makes the condition true."""
        async with asyncio.timeout(self.patience), self._news:
            await self._news.wait_for(condition)

    async def prepare(self, episode: int = 0, *, run: str = "run") -> None:
        """Prepare an episode at all nodes."""
        for member in self.members:
            await member.control.PrepareEpisode(pb.PrepareEpisodeRequest(run=run, episode=episode))

    async def start(self, episode: int = 0, *, run: str = "run", listen: bool = True) -> None:
        await self.prepare(episode, run=run)
        for member in self.members:
            await self.begin(member, episode, run=run, listen=listen)

    async def begin(
        self, member: _Member, episode: int = 0, *, run: str = "run", listen: bool = True
    ) -> None:
        """Begin at one node the episode that it has prepared."""
        await member.control.StartEpisode(pb.StartEpisodeRequest(run=run, episode=episode))
        if listen:
            self.listen(member)

    async def end(self, episode: int = 0, *, run: str = "run") -> list[pb.EndEpisodeReply]:
        return [
            await member.control.EndEpisode(pb.EndEpisodeRequest(run=run, episode=episode))
            for member in self.members
        ]

    async def close(self) -> None:
        for listening in self._listening:
            listening.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        for member in self.members:
            await member.channel.close(None)
        for member in self.members:
            await member.node.close()
            member.node.host.close()
