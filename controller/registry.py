"""The nodes of a testbed and whether they live: registration, heartbeats, health.

A node is healthy when it has registered, answers its health check and beats. When its heartbeat
stream breaks, or no beat came for a while, it is *suspect* and asked. If it answers it lives, and
nothing has happened. If its address refuses the connection its process has ended: it is *dead*. If
it does not answer it is *unreachable*, whatever the cause. What is said of it is what was seen. A
node that registers again is healthy again.

Silence is counted in time in which this process could have heard something (``Pulse``), and nodes
whose timers ring late are given more of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog

from controller.link import Acks, Handler, NodeLink
from testbed.errors import TemporaryError, TestbedError, UsageError
from testbed.model.units import SECOND, Micros
from testbed.rpc.addresses import parse
from testbed.rpc.authorization import caller
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity
from testbed.rpc.operator import NodeCondition
from testbed.rpc.pulse import Pulse

_log = structlog.get_logger("controller.registry")

BEAT_INTERVAL: Final[Micros] = SECOND // 2
"""Real microseconds between two heartbeats of a node."""

SHARED_BEAT_INTERVAL: Final[Micros] = SECOND
"""The same of a node that shares its process: there are many of them, and one loop tells of all."""

BEAT_TIMEOUT_S: Final = 3.0
"""Silence after which a node is suspect. A process that ends is noticed at once, by its broken
stream; this is for one that hangs, and must not hit one that merely waits for a processor."""

LAGS: Final = 2.0
"""Factor by which the lag of a node's timers is added to ``BEAT_TIMEOUT_S``."""

LONGEST_TIMEOUT_S: Final = 15.0
"""Silence after which a node is suspect however late its timers ring."""

ASK_S: Final = 2.0
"""Seconds that a suspect node has to answer its health check."""

ASK_AGAIN_S: Final = 0.1
"""Between two attempts to ask a node that cannot be connected to."""

RETURN_S: Final = 0.5
"""Between two checks of a node that answers, and has not opened a heartbeat stream again."""

SETTLE_S: Final = 8.0
"""Seconds to wait until the condition of all nodes is known."""

DOUBT_S: Final = 1.0
"""Seconds to wait for the end of the heartbeats of a node that a call to has just failed."""

_REFUSED: Final = ("connection refused", "no such file or directory")
"""Texts of errors of connections to a port or a Unix socket where nothing listens."""

_ELSEWHERE: Final = "earlier registration"
"""Text in the answer of a process that has not registered here, or not since."""

GONE: Final[frozenset[NodeCondition]] = frozenset({"unreachable", "dead"})
"""Conditions of a node that takes no part."""


@dataclass(slots=True)
class Node:
    """The registry's entry of one node; ``link`` is there from registration on."""

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
    """Name of the node's last registration; heartbeats of another one are not counted."""
    process: str = ""
    """Names the process that has registered."""
    trunk: str = ""
    """Where its process takes trunks; empty: nowhere."""
    sharing: int = 1
    """How many nodes its process was started with."""
    http: str = ""
    """Address of its HTTP front, as host:port; empty if it has none."""
    http_key: str = ""
    """Makes the tokens that it asks for there."""
    heard: float = 0.0
    """When it was heard last, on the registry's pulse."""
    recent_lag: Micros = 0
    """Lag of its timers, the larger the less long ago."""
    episode_lag: Micros = 0
    """Worst lag of its timers in the present episode; the run begins it anew."""

    @property
    def patience_s(self) -> float:
        """Silence after which it is suspect."""
        return min(LONGEST_TIMEOUT_S, BEAT_TIMEOUT_S + LAGS * self.recent_lag / SECOND)

    @property
    def unsettled(self) -> bool:
        """Whether its condition is about to change."""
        return self.condition == "suspect" or (
            self.condition == "starting" and self.link is not None
        )


async def _as_itself(node: int, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Return if the call is from node ``node``; a node speaks for no other."""
    if caller() != node_identity(node):
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"{caller()} may not act for node {node}"
        )


class Registry(pb_grpc.RegistryServicer):
    """The nodes of one testbed, and the gRPC service through which they come in.

    ``me`` are the controller's credentials. ``on_events`` gets the event batches of all nodes.
    ``changed`` is called with a node whenever its condition has changed. Whoever makes it calls
    ``look`` about every ``INTERVAL_S``, by starting ``pulse`` with it.
    """

    def __init__(
        self,
        testbed: str,
        size: int,
        me: Credentials,
        *,
        on_events: Handler,
        changed: Callable[[Node], None],
        pulse: Pulse | None = None,
    ) -> None:
        self.pulse = pulse or Pulse()
        self.testbed = testbed
        self._me = me
        self._on_events = on_events
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        self._news = asyncio.Event()
        self._acks: dict[int, Acks] = {}
        self.nodes = [Node(node) for node in range(size)]

    @property
    def healthy(self) -> bool:
        """Whether all nodes are healthy."""
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
                f"node {request.node}: {self.testbed} has nodes 0 to {len(self.nodes) - 1}",
            )
        log = request.log if request.HasField("log") else request.node
        if not 0 <= log < len(self.nodes):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"there is no log {log}")
        try:
            parse(request.address)
        except UsageError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        node = self.nodes[request.node]
        process = request.process or f"pid {request.pid}"
        if (
            node.process not in {"", process}
            and node.condition not in GONE
            # Who listens at its address now has taken its place.
            and node.address != request.address
            and await self._is_there(node)
        ):
            await context.abort(
                grpc.StatusCode.ALREADY_EXISTS,
                f"node {request.node} is up already, as process {node.pid}",
            )
        # No await from here on: a node that hangs up in the middle is taken in all the same.
        if node.link is not None and (node.address, node.process) != (request.address, process):
            self._spawn(node.link.close())
            node.link = None
        node.address, node.pid, node.version = request.address, request.pid, request.version
        node.process = process
        node.trunk, node.sharing = request.trunk, max(1, request.nodes)
        node.http, node.http_key = request.http, request.http_key
        node.session += 1
        node.beats = 0
        node.heard = self.pulse.awake()
        if node.link is None:
            node.link = NodeLink(
                node.node,
                node.address,
                self._on_events,
                self._me,
                pulse=self.pulse,
                acks=self._acks.setdefault(log, Acks()),
                log=log,
            )
        node.link.registered(request.session)
        node.named = request.session
        self._set(node, "starting", "has registered, and is being checked")
        self._spawn(self._check(node, node.link, node.session))
        interval = BEAT_INTERVAL if node.sharing == 1 else SHARED_BEAT_INTERVAL
        return pb.RegisterReply(testbed=self.testbed, heartbeat_interval=interval)

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
                node.recent_lag = max(beat.lag, node.recent_lag // 2)
                node.episode_lag = max(node.episode_lag, beat.lag)
                if node.condition in GONE:
                    await context.abort(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"counted as {node.condition}; register again",
                    )
                node.beats += 1
                node.heard = self.pulse.awake()
                if node.condition == "suspect":
                    self._set(node, "healthy", "")
        finally:
            if node is not None and node.session == session:
                node.beats = 0
                self._suspect(node, "its heartbeat stream broke")
        return pb.Empty()

    async def close(self) -> None:
        """Close the connections to all nodes."""
        self.pulse.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self.nodes:
            if node.link is not None:
                await node.link.close()

    def look(self) -> None:
        """See which nodes have been silent for too long."""
        for node in self.nodes:
            if node.link is None or node.condition in GONE or node.condition == "suspect":
                continue
            silent = self.pulse.awake() - node.heard
            if silent > node.patience_s:
                self._suspect(node, f"no heartbeat for {silent:.1f} s")

    async def settled(self, doubted: Collection[int] = ()) -> None:
        """Return when no node's condition is about to change, after ``SETTLE_S`` at the latest.

        Of the ``doubted`` a call has just failed. What ended it may be seen before the end of their
        heartbeats is, so they get ``DOUBT_S`` to be anything but healthy.
        """
        began = self.pulse.awake()
        while (now := self.pulse.awake()) < began + SETTLE_S:
            if any(node.unsettled for node in self.nodes):
                until = began + SETTLE_S
            elif any(self.nodes[each].condition == "healthy" for each in doubted):
                until = began + DOUBT_S
            else:
                return
            if now >= until:
                return
            await self.news(until - now)

    async def news(self, timeout_s: float) -> None:
        """Return when a node's condition has changed, after ``timeout_s`` at the latest."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    async def _check(self, node: Node, link: NodeLink, session: int) -> None:
        problem = await link.check_health()
        if node.session != session or node.condition in GONE:
            return
        if problem:
            self._give_up(node, "unreachable", f"its health check failed: {problem}")
            return
        link.start_events()
        self._set(node, "healthy", "")

    def _suspect(self, node: Node, seen: str) -> None:
        if node.condition in GONE or node.condition == "suspect" or self._ending:
            return
        self._set(node, "suspect", f"{seen}; asked for its health")
        self._spawn(self._examine(node, node.session, seen))

    async def _examine(self, node: Node, session: int, seen: str) -> None:
        """Ask a suspect node until it is what it was, or is given up."""

        def open_question() -> bool:
            return node.session == session and node.condition == "suspect"

        while open_question():
            condition, answer = await self._ask(node)
            if not open_question():
                return
            if condition != "healthy":
                if node.beats:
                    seen = f"no heartbeat for {self.pulse.awake() - node.heard:.1f} s"
                self._give_up(node, condition, f"{seen}; {answer}")
            elif node.beats:
                # Late, not gone: its next heartbeats may have to wait as these did.
                node.heard = self.pulse.awake()
                self._set(node, "healthy", "")
            else:
                node.reason = f"{seen}; it answers, and has not registered again"
                await asyncio.sleep(RETURN_S)

    async def _is_there(self, node: Node) -> bool:
        """Return whether the process that has registered answers; if not, it is given up."""
        session = node.session
        condition, answer = await self._ask(node)
        if condition == "healthy":
            return True
        if node.session == session and node.condition not in GONE:
            self._give_up(node, condition, f"another process has registered; {answer}")
        return False

    async def _ask(self, node: Node) -> tuple[NodeCondition, str]:
        """Ask a node for its health; what it is by its answer, and what was seen."""
        until = self.pulse.awake() + ASK_S
        refusals = 0
        while True:
            link, process = node.link, node.process
            if link is None:
                return "unreachable", "its connection was closed"
            try:
                said = await link.describe(max(ASK_AGAIN_S, until - self.pulse.awake()))
            except TemporaryError as error:
                problem = str(error)
            except TestbedError as error:
                return "unreachable", f"health check failed: {error}"
            else:
                if said.process in {"", process} and said.node == node.node:
                    return "healthy", ""
                return "dead", f"process {said.pid} answers in its place"
            refused = any(words in problem.lower() for words in _REFUSED)
            refusals += refused
            if refusals > 1:
                return "dead", "connection refused, so its process has ended"
            if self.pulse.awake() + ASK_AGAIN_S >= until:
                if _ELSEWHERE in problem:
                    return "unreachable", f"takes no commands ({problem})"
                why = "" if "deadline" in problem.lower() else f" ({problem})"
                return "unreachable", f"health check not answered within {ASK_S:g} s{why}"
            await asyncio.sleep(ASK_AGAIN_S)

    def end(self) -> None:
        """From now on nodes are expected to go."""
        self._ending = True

    def _give_up(self, node: Node, condition: NodeCondition, reason: str) -> None:
        if node.condition not in GONE and not self._ending:
            self._set(node, condition, reason)
            if node.link is not None:
                self._spawn(node.link.close())
                node.link = None

    def _set(self, node: Node, condition: NodeCondition, reason: str) -> None:
        node.condition, node.reason = condition, reason
        _log.info("node", node=node.node, condition=condition, reason=reason, pid=node.pid)
        self._news.set()
        self._changed(node)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
