"""The controller's connection to one node: calls with deadlines, and the streams that stay open.

The event stream is opened again when it breaks, for as long as the link is open; whether the node
lives is the registry's business. Streams have no deadline of their own: a node that dies or hangs
stops beating, and closing the link ends them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testbed.errors import TemporaryError, TestbedError, UsageError
from testbed.model.units import SECOND
from testbed.rpc.authorization import CommandStamps
from testbed.rpc.channels import connect
from testbed.rpc.clocks import clock_name
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity
from testbed.rpc.pulse import TOLERANCE_S, Pulse
from testbed.scenario.plan import SchedulerSpec

_log = structlog.get_logger("controller.link")

CALL_TIMEOUT_S: Final = 5.0
"""Deadline of a call that a live node answers in milliseconds."""

CONFIGURE_TIMEOUT_S: Final = 30.0
"""Deadline of calls during which a node loads a scheduler or a policy."""

_Reply = TypeVar("_Reply")

_RETRY_S: Final = 0.2

Handler: TypeAlias = Callable[["NodeLink", pb.EventBatch], Awaitable[None]]
"""Takes one event batch of a node; waits while there is no room for it."""


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """The start of an episode at all nodes: ``at`` on ``time.monotonic``, in seconds."""

    run: str
    episode: int
    at: float


class Acks:
    """Acknowledgements that a log has still to get: the last stored batch by run.

    It outlives a connection, so that what is stored after a node was given up is told when it is
    back, or when another node of its process sends batches.
    """

    def __init__(self) -> None:
        self.latest: dict[str, int] = {}
        self.due = asyncio.Event()

    def add(self, run: str, number: int) -> None:
        """Acknowledge all batches of ``run`` up to ``number``, which are stored."""
        if number > self.latest.get(run, 0):
            self.latest[run] = number
            self.due.set()


class NodeLink:
    """Calls to node ``node`` at ``address``, for the registration that ``registered`` names.

    ``pulse`` tells when this process was paused: a call during which it was is made again, because
    its deadline passed without a chance for the answer. All calls that are made so are idempotent.

    Every call raises ``UsageError`` when the node says that it was asked for something impossible,
    and ``TemporaryError`` when it does not answer in time or is gone.
    """

    def __init__(
        self,
        node: int,
        address: str,
        on_events: Handler,
        me: Credentials,
        stamps: CommandStamps | None = None,
        *,
        pulse: Pulse | None = None,
        acks: Acks | None = None,
        log: int | None = None,
    ) -> None:
        self.node = node
        self.log = node if log is None else log
        """The node under which its process logs; batches that come here are numbered there."""
        self.address = address
        self._on_events = on_events
        self._stamps = stamps or CommandStamps()
        self._channel = connect(address, me, node_identity(node), stamps=self._stamps)
        self._control = pb_grpc.ControlStub(self._channel)
        self._tasks = pb_grpc.TasksStub(self._channel)
        self._events: asyncio.Task[None] | None = None
        self._pulse = pulse
        self.acks = acks or Acks()
        self._closed = False

    def registered(self, session: str) -> None:
        """Take over the session of a node that has registered again; commands go to it only."""
        self._stamps.session = session

    async def check_health(self) -> str:
        """Return what is wrong with the node; empty once it says that it is serving."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        call = stub.Watch(
            health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S, wait_for_ready=True
        )
        try:
            # It may say so a moment after it has registered.
            async for reply in call:
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    return ""
        except grpc.aio.AioRpcError as error:
            return explain(error)
        except asyncio.CancelledError:
            if _meant():
                raise
            return "the connection was closed"
        finally:
            call.cancel()
        return "it does not say that it is serving"

    async def configure(self, request: pb.ConfigureRequest) -> str:
        """Prepare the node for a run; the name of what decides there."""
        reply = await self._ask(self._control.Configure, request, CONFIGURE_TIMEOUT_S)
        return str(reply.scheduler)

    async def prepare_episode(
        self, run: str, episode: int, faults: Sequence[bytes], arrivals: pb.Arrivals | None
    ) -> None:
        """Empty the node's queues for an episode that is to begin; no-op if it has done so.

        ``faults`` are those by hand, ``arrivals`` the node's first ones.
        """
        request = pb.PrepareEpisodeRequest(
            run=run, episode=episode, faults=faults, arrivals=arrivals
        )
        await self._ask(self._control.PrepareEpisode, request, CALL_TIMEOUT_S)

    async def start_episode(self, start: EpisodeStart) -> None:
        """Send the instant at which a prepared episode begins; no-op if the node has it."""

        def request() -> pb.StartEpisodeRequest:
            left = start.at - time.monotonic()
            return pb.StartEpisodeRequest(
                run=start.run,
                episode=start.episode,
                clock=clock_name(),
                start_at=int(start.at * SECOND),
                start_in=max(0, int(left * SECOND)),
            )

        await self._ask(self._control.StartEpisode, request, CALL_TIMEOUT_S)

    async def arrive(self, arrivals: pb.Arrivals) -> pb.ArrivalsTaken:
        """Tell the node of arrivals in slots to come. Idempotent."""
        return await self._ask(self._tasks.Arrive, arrivals, CALL_TIMEOUT_S)

    async def set_faults(self, run: str, episode: int, faults: Sequence[bytes]) -> None:
        """Set the faults by hand of the episode, in place of those set before."""
        request = pb.SetFaultsRequest(run=run, episode=episode, faults=faults)
        await self._ask(self._control.SetFaults, request, CALL_TIMEOUT_S)

    async def end_episode(self, run: str, episode: int) -> pb.EndEpisodeReply:
        """Ask the node to send all it has logged of the episode."""
        request = pb.EndEpisodeRequest(run=run, episode=episode)
        return await self._ask(self._control.EndEpisode, request, CALL_TIMEOUT_S)

    async def set_scheduler(self, scheduler: SchedulerSpec) -> pb.SetSchedulerReply:
        """Change what decides at the node from the next task on; the answer says if it did."""
        request = pb.SetSchedulerRequest(
            scheduler=scheduler.name, options_json=scheduler.options_json
        )
        return await self._ask(self._control.SetScheduler, request, CONFIGURE_TIMEOUT_S)

    async def prepare_policy(self, request: pb.PreparePolicyRequest) -> pb.PreparePolicyReply:
        """Ask the node to load a policy without using it."""
        return await self._ask(self._control.PreparePolicy, request, CONFIGURE_TIMEOUT_S)

    async def commit_policy(self, deployment: str) -> pb.CommitPolicyReply:
        """Ask the node to use the policy it has loaded, from the next decision on. Idempotent."""
        request = pb.PreparedPolicy(deployment=deployment)
        return await self._ask(self._control.CommitPolicy, request, CALL_TIMEOUT_S)

    async def abort_policy(self, deployment: str) -> None:
        """Ask the node to discard the policy it has loaded; an absent node is no error."""
        request = pb.PreparedPolicy(deployment=deployment)
        try:
            await self._ask(self._control.AbortPolicy, request, CALL_TIMEOUT_S)
        except TestbedError as error:
            _log.debug("abort", node=self.node, answer=str(error))

    async def describe(self, timeout_s: float = 1.0) -> pb.NodeDescription:
        """Return what the node says of itself, within ``timeout_s``."""
        return await self._ask(self._control.Describe, pb.Empty(), timeout_s)

    async def shutdown(self) -> None:
        """Ask the node to end its process; an absent node is no error."""
        try:
            await self._ask(self._control.Shutdown, pb.Empty(), 0.5)
        except TestbedError as error:
            _log.debug("shutdown", node=self.node, answer=str(error))

    async def _ask(
        self,
        method: Callable[..., Awaitable[_Reply]],
        request: object,
        timeout_s: float,
    ) -> _Reply:
        """Make a call; ``request`` is a message, or a function that makes it for each attempt."""
        pulse = self._pulse
        began = pulse.awake() if pulse else 0.0
        while True:
            if self._closed:
                # gRPC calls this a defect of the caller, but a node may go before any call to it.
                raise TemporaryError("the connection was closed")
            paused = pulse.pauses_until_now() if pulse else 0.0
            made = request() if callable(request) else request
            try:
                return await _answer(method(made, timeout=timeout_s))
            except TemporaryError:
                if pulse is None:
                    raise
                if pulse.pauses_until_now() - paused < TOLERANCE_S:
                    raise
                if pulse.awake() - began >= timeout_s:
                    raise

    def start_events(self) -> None:
        """Begin to take the node's log, what it has kept so far first. No-op if begun."""
        if self._events is None:
            self._events = asyncio.get_running_loop().create_task(self._take_events())
            self._events.add_done_callback(self._events_ended)

    def acknowledge(self, run: str, number: int) -> None:
        """Acknowledge to the node all batches of ``run`` up to ``number``."""
        self.acks.add(run, number)

    async def close(self) -> None:
        """End all streams and the connection."""
        self._closed = True
        if self._events is not None:
            self._events.cancel()
            await asyncio.gather(self._events, return_exceptions=True)
        await self._channel.close(None)

    def _events_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("defect in taking events", node=self.node, exc_info=error)

    async def _take_events(self) -> None:
        while not self._closed:
            call = self._control.Events(wait_for_ready=True)
            acknowledging: asyncio.Task[None] | None = None
            try:
                async for batch in call:
                    if acknowledging is None:
                        # Of the nodes of a process one sends batches; others do not expect them to
                        # be acknowledged.
                        loop = asyncio.get_running_loop()
                        acknowledging = loop.create_task(self._acknowledge(call))
                    await self._on_events(self, batch)
            except grpc.aio.AioRpcError as error:
                if self._closed:
                    return
                _log.warning("events", node=self.node, broke=explain(error))
            finally:
                call.cancel()
                if acknowledging is not None:
                    acknowledging.cancel()
                    await asyncio.gather(acknowledging, return_exceptions=True)
            await asyncio.sleep(_RETRY_S)

    async def _acknowledge(
        self, call: grpc.aio.StreamStreamCall[pb.BatchAck, pb.EventBatch]
    ) -> None:
        told: dict[str, int] = {}
        acks = self.acks
        acks.due.set()
        while True:
            await acks.due.wait()
            acks.due.clear()
            for run, number in list(acks.latest.items()):
                if told.get(run) != number:
                    await call.write(pb.BatchAck(run=run, number=number))
                    told[run] = number


def _meant() -> bool:
    """Return whether this task was cancelled. If not, a ``CancelledError`` came out of gRPC,
    which raises it too when a call is cut off by closing the connection."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _answer(call: Awaitable[_Reply]) -> _Reply:
    """Return the answer to a call; see ``NodeLink`` for what it raises."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            raise UsageError(error.details() or "refuses") from None
        raise TemporaryError(explain(error)) from None
    except asyncio.CancelledError:
        if _meant():
            raise
        raise TemporaryError("the connection was closed") from None


def explain(error: BaseException) -> str:
    """Return in one line why a call failed."""
    if isinstance(error, grpc.aio.AioRpcError):
        details = (error.details() or "").strip().splitlines()
        name = error.code().name.lower().replace("_", " ")
        return f"{name}: {details[0]}" if details else name
    return str(error) or type(error).__name__
