"""Which nodes there are and whether they live: registration, heartbeats, health.

A node is healthy when it has registered, answers its health check and beats. It is dead at once
when its heartbeat stream breaks, and when no beat came for ``BEAT_TIMEOUT_S``; timers and streams
say so, nothing asks round. A dead node that registers again is healthy again, but the run during
which it died goes on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog

from controller.link import Handler, NodeLink
from testbed.errors import UsageError
from testbed.model.units import SECOND, Micros
from testbed.rpc.addresses import parse
from testbed.rpc.authorization import caller
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity
from testbed.rpc.operator import NodeCondition

_log = structlog.get_logger("controller.registry")

BEAT_INTERVAL: Final[Micros] = SECOND // 2
"""What nodes are told: real microseconds between two heartbeats."""

BEAT_TIMEOUT_S: Final = 3.0
"""Silence after which a node counts as dead. A process that dies is noticed at once, by its broken
stream; this is for one that hangs, and must not hit one that merely waits for a processor."""


@dataclass(slots=True)
class Node:
    """What the registry knows of one node; ``link`` is there from registration on."""

    node: int
    condition: NodeCondition = "starting"
    reason: str = "has not registered yet"
    address: str = ""
    pid: int = 0
    version: str = ""
    resident_bytes: int = 0
    lag: Micros = 0
    worst_lag: Micros = 0
    cpu: Micros = 0
    link: NodeLink | None = None
    beats: int = 0
    session: int = 0
    """Number of registrations; what an earlier one left behind no longer counts."""
    named: str = ""
    """What the node has called its last registration; heartbeats of another are not counted."""
    timer: asyncio.TimerHandle | None = None


async def _as_itself(node: int, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Return if the call is from node ``node``; a node speaks for no other."""
    if caller() != node_identity(node):
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"{caller()} may not speak for node {node}"
        )


class Registry(pb_grpc.RegistryServicer):
    """The nodes of one testbed, and the gRPC service through which they come in.

    ``me`` are the controller's credentials. ``on_events`` gets the event batches of all nodes.
    ``changed`` is called with a node whenever its condition has changed.
    """

    def __init__(
        self,
        testbed: str,
        size: int,
        me: Credentials,
        *,
        on_events: Handler,
        changed: Callable[[Node], None],
    ) -> None:
        self._testbed = testbed
        self._me = me
        self._on_events = on_events
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        self.nodes = [Node(node) for node in range(size)]

    @property
    def healthy(self) -> bool:
        """Whether all nodes are."""
        return all(node.condition == "healthy" for node in self.nodes)

    async def Register(
        self,
        request: pb.RegisterRequest,
        context: grpc.aio.ServicerContext[pb.RegisterRequest, pb.RegisterReply],
    ) -> pb.RegisterReply:
        """Take a node in, or refuse it; see ``edge.proto``."""
        await _as_itself(request.node, context)
        if not 0 <= request.node < len(self.nodes):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"node {request.node}: {self._testbed} has nodes 0 to {len(self.nodes) - 1}",
            )
        try:
            parse(request.address)
        except UsageError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        node = self.nodes[request.node]
        if node.condition == "healthy" and node.pid != request.pid:
            await context.abort(
                grpc.StatusCode.ALREADY_EXISTS,
                f"node {request.node} is up already, as process {node.pid}",
            )
        # No await from here on: a node that hangs up in the middle is taken in all the same.
        if node.link is not None and node.address != request.address:
            self._spawn(node.link.close())
            node.link = None
        node.address, node.pid, node.version = request.address, request.pid, request.version
        node.session += 1
        node.beats = 0
        if node.link is None:
            node.link = NodeLink(node.node, node.address, self._on_events, self._me)
        node.link.registered(request.session)
        node.named = request.session
        self._set(node, "starting", "has registered, and is being checked")
        self._expect_beat(node)
        self._spawn(self._check(node, node.link, node.session))
        return pb.RegisterReply(testbed=self._testbed, heartbeat_interval=BEAT_INTERVAL)

    async def Beat(
        self,
        request_iterator: AsyncIterator[pb.Heartbeat],
        context: grpc.aio.ServicerContext[pb.Heartbeat, pb.Empty],
    ) -> pb.Empty:
        """Heartbeats of one node for as long as it lives; see ``edge.proto``."""
        node: Node | None = None
        session = 0
        try:
            async for beat in request_iterator:
                if node is None:
                    if not 0 <= beat.node < len(self.nodes):
                        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such node")
                    await _as_itself(beat.node, context)
                    if beat.session != self.nodes[beat.node].named:
                        await context.abort(
                            grpc.StatusCode.FAILED_PRECONDITION,
                            "this heartbeat is of an earlier registration; register again",
                        )
                    node = self.nodes[beat.node]
                    session = node.session
                elif node.session != session:
                    # It registered anew and has another stream by now.
                    break
                node.resident_bytes, node.lag, node.cpu = beat.resident_bytes, beat.lag, beat.cpu
                node.worst_lag = max(node.worst_lag, beat.lag)
                if node.condition == "dead":
                    await context.abort(
                        grpc.StatusCode.FAILED_PRECONDITION, "counted as dead; register again"
                    )
                node.beats += 1
                self._expect_beat(node)
        finally:
            if node is not None and node.session == session:
                self._die(node, "its heartbeat stream broke: the process ended or was cut off")
        return pb.Empty()

    async def close(self) -> None:
        """Close the connections to all nodes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self.nodes:
            if node.timer is not None:
                node.timer.cancel()
            if node.link is not None:
                await node.link.close()

    async def _check(self, node: Node, link: NodeLink, session: int) -> None:
        problem = await link.check_health()
        if node.session != session or node.condition == "dead":
            return
        if problem:
            self._die(node, f"its health check failed: {problem}")
            return
        link.start_events()
        self._set(node, "healthy", "")

    def _expect_beat(self, node: Node) -> None:
        if node.timer is not None:
            node.timer.cancel()
        silent = f"no heartbeat for {BEAT_TIMEOUT_S:g} s"
        loop = asyncio.get_running_loop()
        node.timer = loop.call_later(BEAT_TIMEOUT_S, self._die, node, silent)

    def end(self) -> None:
        """From now on nodes are expected to go."""
        self._ending = True

    def _die(self, node: Node, reason: str) -> None:
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        if node.condition != "dead" and not self._ending:
            self._set(node, "dead", reason)
            if node.link is not None:
                self._spawn(node.link.close())
                node.link = None

    def _set(self, node: Node, condition: NodeCondition, reason: str) -> None:
        node.condition, node.reason = condition, reason
        _log.info("node", node=node.node, condition=condition, reason=reason, pid=node.pid)
        self._changed(node)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
