"""The gRPC services of a node: arrivals from the controller, transfers and probes from peers.

Each call is turned into calls of the current episode's driver; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from edgenode.receiving import HasDriver, Inflow, Refused, answer
from testbed.rpc.authorization import caller
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc

Context = Any
"""``grpc.aio.ServicerContext``; its stubs know no message types."""


class HasArrivals(HasDriver, Protocol):
    """Where the services find the run and the episode that is running."""

    @property
    def run_id(self) -> str: ...


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
            return driver.arrivals.take(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise  # abort has raised already


class PeersServicer(pb_grpc.PeersServicer):
    """Receives tasks from peers and answers their probes."""

    def __init__(self, node: HasDriver) -> None:
        self._node = node

    async def Transfer(
        self, requests: AsyncIterator[pb.TransferFrame], context: Context
    ) -> AsyncIterator[pb.HandOverTaken]:
        """Take one peer's tasks. If the peer goes away, the tasks it announced will not come."""
        inflow = Inflow(self._node, _peer())
        try:
            async for frame in requests:
                try:
                    reply = inflow.frame(frame)
                except Refused as refused:
                    await _abort(context, refused)
                    raise  # abort has raised already
                if reply is not None:
                    yield reply
        finally:
            inflow.end()

    async def Probe(
        self, requests: AsyncIterator[pb.ProbeRequest], context: Context
    ) -> AsyncIterator[pb.ProbeReply]:
        """Answer each question with what is true when it arrives; none of another episode."""
        sender = _peer()
        async for request in requests:
            try:
                reply = answer(self._node, sender, request)
            except Refused as refused:
                await _abort(context, refused)
                raise  # abort has raised already
            if reply is not None:
                yield reply


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
