"""The gRPC services of a node: arrivals from the controller, transfers and probes from peers.

Each call is turned into calls of the current episode's driver; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import grpc

from edgenode.receiving import HasDriver, Inflow, Refused, answer
from testbed.rpc.authorization import caller
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc

_logger: Final = logging.getLogger(__name__)

Context = Any
"""``grpc.aio.ServicerContext``; its stubs know no message types."""


class HasArrivals(HasDriver, Protocol):
    """Where the services find the run and the episode that is running."""

    @property
    def run_id(self) -> str: ...


class Hears(HasDriver, Protocol):
    """A node that hears what others say."""

    def heard(self, sender: int, said: pb.Said) -> None: ...


class TasksServicer(pb_grpc.TasksServicer):
    """Takes the arrivals of an episode from the controller."""

    def __init__(self, node: HasArrivals) -> None:
        self._node = node

    async def Arrive(self, request: pb.Arrivals, context: Context) -> pb.ArrivalsTaken:
        """Hand arrivals to their episode, if that is running."""
        driver = self._node.driver
        if driver is None or (self._node.run_id, driver.episode) != (request.run, request.episode):
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"episode {request.episode} of run '{request.run}' is not running here",
            )
            raise AssertionError("abort has raised already")
        try:
            return driver.take_arrivals(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise  # abort has raised already


class PeersServicer(pb_grpc.PeersServicer):
    """Receives tasks from peers and answers their probes."""

    def __init__(self, node: Hears) -> None:
        self._node = node

    async def Say(self, request: pb.Said, context: Context) -> pb.Empty:
        """Hear what a neighbour says."""
        sender = _peer()
        if request.sender != sender:
            await _abort(
                context, Refused(f"node {sender} may not act for {request.sender}", denied=True)
            )
        self._node.heard(sender, request)
        return pb.Empty()

    async def Exchange(self, requests: AsyncIterator[pb.PeerFrames], context: Context) -> None:
        """Take what one peer says. If the peer goes away, the tasks it announced will not come."""
        sender = _peer()
        replies = _Replies(context)
        inflow = Inflow(self._node, sender, replies.taken)
        try:
            async for message in requests:
                try:
                    with replies.gathered():
                        for probe in message.probes:
                            answer(self._node, sender, probe, replies.answered)
                        if message.reset:
                            inflow.end()
                        for frame in message.frames:
                            inflow.frame(frame)
                except Refused as refused:
                    await _abort(context, refused)
                    raise  # abort has raised already
                await replies.write()
        finally:
            inflow.end()
            replies.close()


class _Replies:
    """The answers to one peer, written together; one at a time writes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting = pb.PeerReplies()
        self._any = False
        self._gathering = False
        self._writing = False
        self._late: asyncio.Task[None] | None = None

    def taken(self, reply: pb.HandOverTaken) -> None:
        """Add the answer to a hand-over."""
        self._waiting.taken.append(reply)
        self._add()

    def answered(self, reply: pb.ProbeReply) -> None:
        """Add the answer to a question."""
        self._waiting.probes.append(reply)
        self._add()

    def _add(self) -> None:
        if not self._any and not self._gathering:
            # An answer may come long after its question, when nothing more is read.
            self._late = asyncio.get_running_loop().create_task(self._write_late())
        self._any = True

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Leave it to the caller to write what is added meanwhile."""
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False

    async def _write_late(self) -> None:
        try:
            await self.write()
        except Exception as error:  # noqa: BLE001 - the call has ended, and its reader says why
            _logger.debug("an answer comes too late: %s", error)

    async def write(self) -> None:
        """Write all answers there are."""
        while self._any and not self._writing:
            message, self._waiting, self._any = self._waiting, pb.PeerReplies(), False
            self._writing = True
            try:
                await self._context.write(message)
            finally:
                self._writing = False

    def close(self) -> None:
        """Write nothing more."""
        self._any = False
        if self._late is not None:
            self._late.cancel()


def _peer() -> int:
    """Return the index of the node that calls: a node speaks for itself alone."""
    node = caller().node
    assert node is not None, "only nodes are let through"
    return node


async def _abort(context: Context, refused: Refused) -> None:
    code = grpc.StatusCode
    await context.abort(
        code.PERMISSION_DENIED if refused.denied else code.INVALID_ARGUMENT, str(refused)
    )
