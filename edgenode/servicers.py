"""The gRPC services of a node: arrivals from the controller, transfers and probes from peers.

Each call is turned into calls of the current episode's driver; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from edgenode.driver import EpisodeDriver
from edgenode.faulting import DOWN
from edgenode.payload import BLOCK_BYTES
from testbed.rpc.authorization import caller
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.messages import task_from_message

Context = Any
"""``grpc.aio.ServicerContext``; its stubs know no message types."""


class HasDriver(Protocol):
    """Where the services find the episode that is running."""

    @property
    def run_id(self) -> str: ...

    @property
    def driver(self) -> EpisodeDriver | None: ...


class TasksServicer(pb_grpc.TasksServicer):
    """Takes the arrivals of an episode from the controller."""

    def __init__(self, node: HasDriver) -> None:
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
        announced: dict[int, EpisodeDriver] = {}
        sender = _peer()
        try:
            async for frame in requests:
                kind = frame.WhichOneof("frame")
                driver = self._node.driver
                await _check_frame(frame, sender, driver, context)
                if driver is None or driver.episode != frame.episode:
                    if kind == "hand_over":
                        yield pb.HandOverTaken(
                            task_id=frame.hand_over.task.id,
                            reason=f"episode {frame.episode} is not running here",
                        )
                elif kind == "chunk":
                    # Read once: every reading copies it.
                    data = frame.chunk.data
                    if len(data) > BLOCK_BYTES:
                        await context.abort(
                            grpc.StatusCode.INVALID_ARGUMENT,
                            f"a chunk of {len(data)} bytes; at most {BLOCK_BYTES} are taken",
                        )
                    driver.inbox.add(sender, frame.chunk.task_id, data)
                elif kind == "announce":
                    task = task_from_message(frame.announce.task)
                    # Not of an earlier run, whose tasks had the same numbers.
                    if announced.get(task.id) is not driver:
                        announced[task.id] = driver
                        driver.announced(sender, task)
                elif kind == "withdraw":
                    if announced.pop(frame.withdraw.task_id, None) is driver:
                        driver.withdrawn(sender, frame.withdraw.task_id)
                elif kind == "hand_over":
                    offer = frame.hand_over
                    refused = driver.handed_over(
                        sender,
                        task_from_message(offer.task),
                        offer.elapsed,
                        offer.seq,
                        offer.payload_bytes,
                    )
                    if refused is None:
                        announced.pop(offer.task.id, None)
                    yield pb.HandOverTaken(
                        task_id=offer.task.id,
                        accepted=refused is None,
                        reason=refused or "",
                        down=refused == DOWN,
                    )
        finally:
            for task_id, driver in announced.items():
                driver.withdrawn(sender, task_id)

    async def Probe(
        self, requests: AsyncIterator[pb.ProbeRequest], context: Context
    ) -> AsyncIterator[pb.ProbeReply]:
        """Answer each question with what is true when it arrives; none of another episode."""
        sender = _peer()
        async for request in requests:
            if request.sender != sender:
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"node {sender} may not act for {request.sender}",
                )
            driver = self._node.driver
            if driver is not None and driver.episode == request.episode:
                reply = driver.answer(request)
                if reply is not None:
                    yield reply


def _peer() -> int:
    """Return the index of the node that calls: a node speaks for itself alone."""
    node = caller().node
    assert node is not None, "only nodes are let through"
    return node


async def _check_frame(
    frame: pb.TransferFrame, sender: int, driver: EpisodeDriver | None, context: Context
) -> None:
    """End the call if this frame cannot be the caller's, or is about a task that cannot be."""
    if frame.sender != sender:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"node {sender} may not act for {frame.sender}"
        )
    if driver is None or driver.episode != frame.episode:
        return
    size = driver.plan.topology.size
    if sender >= size or sender == driver.node:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"node {sender} is not a peer of node {driver.node} in a network of {size}",
        )
    kind = frame.WhichOneof("frame")
    if kind not in ("announce", "hand_over"):
        return
    task = frame.announce.task if kind == "announce" else frame.hand_over.task
    least = min(task.slot, task.size_bytes, task.cycles, task.deadline)
    if task.source != sender or task.episode != frame.episode or least < 0:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"task {task.id} cannot come from node {sender}"
        )
    if kind == "hand_over" and frame.hand_over.elapsed < 0:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"task {task.id} was handed over before it arrived"
        )
