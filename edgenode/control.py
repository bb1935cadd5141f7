"""The control service of a node: configuration, episodes, scheduler changes, its log, its end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from edgenode.host import Host
from edgenode.links import PeerAt
from edgenode.policies import Policies
from edgenode.resources import used
from edgenode.seam import NodeDriver
from edgenode.spool import Spool
from edgenode.turns import later
from testbed.errors import TestbedError, UsageError
from testbed.model.faults import Fault
from testbed.model.units import SECOND
from testbed.rpc.clocks import clock_name
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.scenario.plan import PlanHead, SchedulerSpec, load
from testbed.version import __version__

_logger: Final = logging.getLogger(__name__)

Context = Any

FARTHEST_START_S: Final = 60.0
"""Most seconds between the request for an episode and its beginning."""


@lru_cache(maxsize=2)
def _plan(text: str) -> PlanHead:
    """Return a plan, which all nodes of a process share.

    Raises: ValueError: it is none.
    """
    return load(text)


class Controlled(Protocol):
    """The node that a controller asks."""

    @property
    def index(self) -> int: ...

    @property
    def address(self) -> str: ...

    @property
    def process(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def scheduler_name(self) -> str: ...

    @property
    def host(self) -> Host: ...

    @property
    def driver(self) -> NodeDriver | None: ...

    @property
    def policies(self) -> Policies: ...

    @property
    def spool(self) -> Spool: ...

    @property
    def http(self) -> str: ...

    async def configure(
        self,
        run: str,
        plan: PlanHead,
        peers: Mapping[int, PeerAt],
        scheduler: SchedulerSpec,
        *,
        tokens: Sequence[str] = (),
        standby: bool = False,
    ) -> str: ...

    async def set_scheduler(self, scheduler: SchedulerSpec) -> str: ...

    def prepare_episode(
        self,
        episode: int,
        faults: Sequence[Fault] = (),
        *,
        arrivals: pb.Arrivals | None = None,
    ) -> NodeDriver: ...

    def end_episode(self, episode: int) -> int: ...

    def dismiss(self) -> None: ...


class ControlServicer(pb_grpc.ControlServicer):
    """Answers the controller's requests to a node."""

    def __init__(self, node: Controlled) -> None:
        self._node = node
        self._superseded = asyncio.Event()

    async def Configure(self, request: pb.ConfigureRequest, context: Context) -> pb.ConfigureReply:
        """Take the plan, the peers and the scheduler of a run."""
        try:
            plan = _plan(request.plan_json)
            scheduler = plan.scheduler
            if request.scheduler:
                scheduler = SchedulerSpec.of_message(request.scheduler, request.options_json)
            name = await self._node.configure(
                request.run,
                plan,
                {peer.node: PeerAt(peer.address, peer.trunk, peer.http) for peer in request.peers},
                scheduler,
                tokens=request.http_tokens,
                standby=request.standby,
            )
        except (TestbedError, ValueError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise  # abort has raised already
        return pb.ConfigureReply(scheduler=name)

    async def PrepareEpisode(self, request: pb.PrepareEpisodeRequest, context: Context) -> pb.Empty:
        """Prepare an episode with empty queues; no-op for the one that is prepared or running."""
        if self._node.run_id != request.run:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"run '{request.run}' is not configured here, '{self._node.run_id}' is",
            )
        driver = self._node.driver
        if driver is not None and driver.episode == request.episode:
            # The answer was lost: what has happened since the first request must stay.
            return pb.Empty()
        try:
            self._node.prepare_episode(
                request.episode,
                _faults(request.faults),
                arrivals=request.arrivals if request.HasField("arrivals") else None,
            )
        except (UsageError, ValueError) as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return pb.Empty()

    async def StartEpisode(self, request: pb.StartEpisodeRequest, context: Context) -> pb.Empty:
        """Begin the episode that is prepared; no-op if it has begun."""
        driver = self._node.driver
        if driver is None or (self._node.run_id, driver.episode) != (request.run, request.episode):
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"episode {request.episode} of run '{request.run}' is not prepared here",
            )
            raise AssertionError("abort has raised already")
        try:
            driver.begin(_start(request))
        except ValueError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return pb.Empty()

    async def EndEpisode(
        self, request: pb.EndEpisodeRequest, context: Context
    ) -> pb.EndEpisodeReply:
        """End the episode and put all that happened into batches. Idempotent."""
        unfinished = 0
        if self._node.run_id == request.run:
            unfinished = self._node.end_episode(request.episode)
            self._node.host.rest()
        return pb.EndEpisodeReply(
            last_batch=self._node.spool.flush(request.run), unfinished=unfinished
        )

    async def SetFaults(self, request: pb.SetFaultsRequest, context: Context) -> pb.Empty:
        """Take all faults injected by hand into an episode; no-op for one that is not running."""
        try:
            faults = _faults(request.faults)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise  # abort has raised already
        driver = self._node.driver
        if driver is not None and (self._node.run_id, driver.episode) == (
            request.run,
            request.episode,
        ):
            driver.set_faults(faults)
        return pb.Empty()

    async def SetScheduler(
        self, request: pb.SetSchedulerRequest, context: Context
    ) -> pb.SetSchedulerReply:
        """Change what decides here, between two decisions."""
        try:
            asked = SchedulerSpec.of_message(request.scheduler, request.options_json)
            name = await self._node.set_scheduler(asked)
        except (TestbedError, ValueError) as error:
            return pb.SetSchedulerReply(scheduler=self._node.scheduler_name, reason=str(error))
        return pb.SetSchedulerReply(accepted=True, scheduler=name)

    async def PreparePolicy(
        self, request: pb.PreparePolicyRequest, context: Context
    ) -> pb.PreparePolicyReply:
        """Load a policy beside what decides here."""
        try:
            await self._node.policies.prepare(request)
        except TestbedError as error:
            return pb.PreparePolicyReply(reason=str(error))
        return pb.PreparePolicyReply(accepted=True)

    async def CommitPolicy(
        self, request: pb.PreparedPolicy, context: Context
    ) -> pb.CommitPolicyReply:
        """Switch to the loaded policy between two decisions, where ``drl`` decides."""
        try:
            self._node.policies.commit(request.deployment)
        except TestbedError as error:
            return pb.CommitPolicyReply(scheduler=self._node.scheduler_name, reason=str(error))
        return pb.CommitPolicyReply(accepted=True, scheduler=self._node.scheduler_name)

    async def AbortPolicy(self, request: pb.PreparedPolicy, context: Context) -> pb.Empty:
        """Forget what was prepared."""
        self._node.policies.abort(request.deployment)
        return pb.Empty()

    async def Describe(self, request: pb.Empty, context: Context) -> pb.NodeDescription:
        """Return the state of this node."""
        node, driver = self._node, self._node.driver
        description = pb.NodeDescription(
            node=node.index,
            address=node.address,
            pid=os.getpid(),
            version=__version__,
            run=node.run_id,
            episode=-1,
            scheduler=node.scheduler_name,
            resident_bytes=used().resident_bytes // node.host.size,
            unacknowledged=node.spool.unacknowledged,
            process=node.process,
            http=node.http,
        )
        if driver is not None:
            description.episode = driver.episode
            driver.describe(description)
        return description

    async def Events(self, requests: AsyncIterator[pb.BatchAck], context: Context) -> None:
        """Send every batch until it is acknowledged; a second listener ends the first.

        The nodes of a process have one log: the first listener gets it. Those of other nodes wait
        until that one is gone.
        """
        self._superseded.set()
        superseded = self._superseded = asyncio.Event()
        acknowledging = asyncio.create_task(self._acknowledge(requests))
        leaving = asyncio.create_task(superseded.wait())
        reading = asyncio.create_task(self._node.spool.reading.acquire())
        sent: dict[str, int] = {}
        turns = later(asyncio.get_running_loop())
        try:
            await asyncio.wait(
                (reading, acknowledging, leaving), return_when=asyncio.FIRST_COMPLETED
            )
            while reading.done() and not (acknowledging.done() or leaving.done()):
                another = self._node.spool.news
                batch = self._node.spool.next_batch(sent)
                if batch is not None:
                    # It takes a while, and others do not wait for it.
                    await turns.turn()
                    await context.write(batch)
                    continue
                news = asyncio.create_task(another.wait())
                try:
                    await asyncio.wait(
                        (news, acknowledging, leaving), return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    news.cancel()
        finally:
            acknowledging.cancel()
            leaving.cancel()
            if reading.done() and not reading.cancelled():
                self._node.spool.reading.release()
            else:
                reading.cancel()

    async def _acknowledge(self, requests: AsyncIterator[pb.BatchAck]) -> None:
        async for ack in requests:
            self._node.spool.acknowledge(ack.run, ack.number)

    async def Shutdown(self, request: pb.Empty, context: Context) -> pb.Empty:
        """Stop the process, after this answer."""
        self._node.dismiss()
        return pb.Empty()


def _start(request: pb.StartEpisodeRequest) -> float:
    """Return when an episode begins, on ``time.monotonic``.

    Raises: ValueError: too far from now.
    """
    now = time.monotonic()
    if not 0 <= request.start_in <= FARTHEST_START_S * SECOND:
        raise ValueError(f"an episode begins within {FARTHEST_START_S:g} s of the request for it")
    at = request.start_at / SECOND
    if request.clock and request.clock == clock_name() and abs(at - now) <= FARTHEST_START_S:
        return at
    return now + request.start_in / SECOND


def _faults(documents: Iterable[bytes]) -> list[Fault]:
    """Faults from JSON.

    Raises: ValueError: one of them is not a fault.
    """
    return [Fault.from_document(json.loads(document)) for document in documents]
