"""One edge node: its server, what it is configured for, and the episode it is in."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs

from edgenode.answers import Answers
from edgenode.applications import check as check_application
from edgenode.applications import create as create_application
from edgenode.applications.seam import Application
from edgenode.background import Background
from edgenode.complaints import Complaints
from edgenode.control import ControlServicer
from edgenode.families import Connecting, family_of
from edgenode.host import Host
from edgenode.links import PeerAt
from edgenode.policies import Policies
from edgenode.seam import Link, NodeDriver, Surroundings
from edgenode.servicers import PeersServicer, TasksServicer
from edgenode.speaking import context_of
from edgenode.watch import (
    BoundedApplication,
    CodeWatch,
    OwnCode,
    made_in_time,
)
from testbed.errors import PermanentError, PrerequisiteMissing, UsageError
from testbed.model.decision import Scheduler
from testbed.model.faults import Fault
from testbed.model.own_code import described, interrupted
from testbed.model.units import Micros
from testbed.rpc.addresses import Address, TcpAddress
from testbed.rpc.authorization import CommandCheck
from testbed.rpc.channels import listen, listen_for_probes, new_server
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity
from testbed.rpc.messages import ALIVE_SERVICE
from testbed.scenario.plan import PlanHead, SchedulerSpec
from testbed.schedulers import registry

_logger: Final = logging.getLogger(__name__)

CALLS: Final = 4096
"""Calls that a node serves at a time: two of every peer, and those of the controller."""

FAREWELL: Final = 0.3
"""Seconds a stopping node waits for the controller to store its log, if it is not told."""


class Closes(Protocol):
    """The HTTP front of a node."""

    def stop(self) -> None:
        """Take no more connections."""
        ...

    def abort(self) -> None:
        """Take no more connections, and hang up on all clients at once."""
        ...

    async def close(self) -> None:
        """Hang up on all clients."""
        ...


class EdgeNode:
    """The node ``index``: started, then registered, configured for a run, and given episodes.

    ``me`` is what proves it to others, and others to it. ``watch`` ends calls of a scheduler or an
    application that go on too long; without one they go on. ``host`` is the process it shares with
    other nodes; without one it is alone in it.

    Raises: UsageError: these are the credentials of somebody else.
    """

    def __init__(
        self,
        index: int,
        spool: Path,
        me: Credentials,
        watch: CodeWatch | None = None,
        host: Host | None = None,
    ) -> None:
        if me.identity != node_identity(index):
            raise UsageError(f"these are the credentials of {me.identity}, not of node {index}")
        self.index = index
        self.me = me
        self.context = context_of(index)
        self.host = host or Host()
        self.commands = CommandCheck()
        self.spool = self.host.spool(index, spool)
        self.address = ""
        self.process = secrets.token_hex(8)
        """Names this process: a process number may be that of another one elsewhere."""
        self.run_id = ""
        self.http = ""
        """Where it takes requests of users; empty: nowhere."""
        self.http_key = ""
        """Makes the tokens that it asks for there."""
        self.driver: NodeDriver | None = None
        self.stopped = asyncio.Event()
        self.dismissed = False
        self.killed = False
        self.policies = Policies(self)
        self._background = Background()
        self._complaints = Complaints()
        self._plan: PlanHead | None = None
        self._scheduler: Scheduler | None = None
        self._asked = SchedulerSpec("")
        self._watch = watch or CodeWatch()
        self._application: Application | None = None
        self._links: Mapping[int, Link] = {}
        self._standby: NodeDriver | None = None
        self._front: Closes | None = None
        self._worst_lateness: Micros = 0
        self._configuring = 0
        self._server = new_server(me, calls=CALLS, commands=self.commands)
        self._health = health.HealthServicer()
        self._probes: grpc.aio.Server | None = None
        self._add_health(self._server)
        pb_grpc.add_TasksServicer_to_server(TasksServicer(self), self._server)
        pb_grpc.add_PeersServicer_to_server(PeersServicer(self), self._server)
        pb_grpc.add_ControlServicer_to_server(ControlServicer(self), self._server)

    @property
    def scheduler_name(self) -> str:
        """Name of the scheduler at this node; empty before it is configured."""
        return "" if self._scheduler is None else self._scheduler.name

    # --- process ----------------------------------------------------------------------------

    async def start(
        self, bind: str, advertise: str | None = None, probes: str = "", http: str = ""
    ) -> str:
        """Open the server; return the address at which others reach it.

        ``probes`` is where the health service is open to anybody, ``http`` where requests of users
        are taken; nowhere if empty. ``advertise`` is the host to name instead of that of ``bind``
        and ``http``; an IPv6 address may come without brackets.

        Raises: PrerequisiteMissing if an address cannot be used.
        """
        if http:
            await self._open_front(http, advertise)
        try:
            address = listen(self._server, bind, self.me)
            if probes:
                self._probes = listen_for_probes(self._add_health, probes)
        except PermanentError as error:
            raise PrerequisiteMissing(
                f"node {self.index} {error}",
                "name an address of this host with a free port, or port 0 for any",
            ) from error
        await self._server.start()
        if self._probes is not None:
            await self._probes.start()
        await self._health.set(ALIVE_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await self.set_serving(False)
        self.address = str(_advertised(address, advertise))
        self.host.add(self, self._end_at_once)
        _logger.info("node %d listens on %s", self.index, self.address)
        return self.address

    async def _open_front(self, bind: str, advertise: str | None) -> None:
        # It brings an HTTP server with it, which few nodes need.
        from edgenode.serving.front import Front

        front = Front(self, self.host.size)
        self.http = str(_advertised(await front.listen(bind), advertise))
        self.http_key = front.key
        self._front = front
        _logger.info("node %d takes HTTP requests at %s", self.index, self.http)

    def _add_health(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

    async def set_serving(self, serving: bool) -> None:
        """Set what the health service says about contact with the controller."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        await self._health.set("", status.SERVING if serving else status.NOT_SERVING)

    def stop(self, why: str) -> None:
        """Ask the process to end; ``stopped`` says so."""
        if not self.stopped.is_set():
            _logger.info("node %d stops: %s", self.index, why)
            self.stopped.set()

    def dismiss(self) -> None:
        """Stop on the controller's order: it will not come back for what is in the spool."""
        self.dismissed = True
        self.stop("asked to")

    def _end_at_once(self) -> None:
        """Stop as if killed: the log that is not handed over yet stays in the spool."""
        self.killed = True
        self.host.remove(self)
        if self._front is not None:
            self._front.abort()
        if self.driver is not None:
            self.end_episode(self.driver.episode)
        self.stop("ended at once, as if it had been killed")

    async def leave(self, farewell: float = FAREWELL) -> None:
        """End the episode, take part in no other, and hand the log over to the controller.

        Waits for at most ``farewell`` seconds; what is not stored by then stays in the spool. The
        controller takes the log for as long as the node is registered, so this comes before the
        end of the heartbeats.
        """
        self.stop("leaves")
        if self._front is not None:
            self._front.stop()
        if self.driver is not None:
            self.end_episode(self.driver.episode)
        await self.set_serving(False)
        if not await self.spool.drained(farewell):
            _logger.warning(
                "node %d: not all of its log is stored; batches left in the spool: %d",
                self.index,
                self.spool.unacknowledged,
            )

    async def close(self) -> None:
        """End the episode and stop; what has not been handed over is left in the spool."""
        self.stopped.set()
        self.host.remove(self)
        if self.driver is not None:
            self.end_episode(self.driver.episode)
        self._end_standby()
        if self._front is not None:
            await self._front.close()
        # Streams of peers and the controller are open for as long as both ends live.
        await self._server.stop(None)
        if self._probes is not None:
            await self._probes.stop(None)
        await self._close_run()
        await self._background.close()
        self.spool.close()
        self.host.gone(self.index)

    def take_lateness(self) -> Micros:
        """Worst lateness of a timer since this was asked last, in real microseconds."""
        worst, self._worst_lateness = self._worst_lateness, 0
        if self.driver is not None:
            worst = max(worst, self.driver.timers.worst_lateness)
            self.driver.timers.worst_lateness = 0
        return worst

    # --- runs and episodes ------------------------------------------------------------------

    async def configure(
        self,
        run: str,
        plan: PlanHead,
        peers: Mapping[int, PeerAt],
        scheduler: SchedulerSpec,
        *,
        tokens: Sequence[str] = (),
        standby: bool = False,
    ) -> str:
        """Configure a run; return the scheduler's name. Nothing changes on error.

        It may be cancelled at any moment: then all has changed or nothing. ``tokens`` are by node,
        for their HTTP fronts. ``standby``: it is no run, nothing is logged; only before a run, or
        when its last episode is over.

        Raises: UsageError: no such node in the plan, unknown scheduler or application, the node
        is leaving, or it was asked for another run meanwhile, or for no run in an episode.
        PermanentError: the spool cannot be written.
        """
        self._stay()
        if not run:
            raise UsageError("the run has no name")
        if not 0 <= self.index < plan.size:
            raise UsageError(
                f"this is node {self.index}, but the plan has nodes 0 to {plan.size - 1}"
            )
        self._configuring += 1
        turn = self._configuring
        created = await self._create_scheduler(plan, scheduler, application=True)
        # No await from here on.
        self._stay()  # it took a while
        if turn != self._configuring:
            raise UsageError(f"run {run}: another run was requested meanwhile")
        if standby and self.driver is not None:
            raise UsageError(f"run {self.run_id} is under way at node {self.index}")
        application = self._create_application(plan)
        if self.driver is not None:
            self.end_episode(self.driver.episode)
        if not standby:
            try:
                self.spool.begin(run)
            except PermanentError:
                _let_go(application)
                raise
        self._end_standby()
        self._background.start(_closed(self._application, self._links), "the end of a run")
        self._complaints.begin()
        self.run_id, self._plan = "" if standby else run, plan
        self._decide_by(created, scheduler)
        self._application = application
        self._links = family_of(plan).connect(
            plan, Connecting(self, self.host, peers, tokens, self._background)
        )
        self._stand_by()
        return created.name

    def prepare_episode(
        self,
        episode: int,
        faults: Sequence[Fault] = (),
        *,
        arrivals: pb.Arrivals | None = None,
    ) -> NodeDriver:
        """Prepare an episode with empty queues, which begins later; ends the one before it.

        ``faults`` are those injected by hand that are still active, ``arrivals`` the first ones.

        Raises: UsageError: the node is leaving. ValueError: these cannot be arrivals here; then
        nothing has changed.
        """
        self._stay()
        assert self._plan is not None
        family = family_of(self._plan)
        if arrivals is not None:
            wrong = family.refusal(self._plan, self.index, episode, arrivals)
            if wrong:
                raise ValueError(wrong)
        if self.driver is not None:
            self.end_episode(self.driver.episode)
        self._end_standby()
        driver = self.driver = family.driver(self._surroundings(), episode)
        if faults:
            driver.set_faults(faults)
        if arrivals is not None:
            driver.take_arrivals(arrivals)
        return driver

    def _surroundings(self) -> Surroundings:
        assert self._application is not None
        return Surroundings(
            self.index,
            self.run_id,
            self._plan,
            self._scheduler,
            self._links,
            self._application,
            self.spool,
            self._background,
            self._complaints,
            self._remake,
        )

    async def _remake(self) -> Any:
        plan, asked = self._plan, self._asked
        assert plan is not None
        return self._bounded(await self._create_scheduler(plan, asked), plan)

    def _stand_by(self) -> None:
        """Do what the plan's family does where no episode is running."""
        if self._plan is not None and not (self.stopped.is_set() or self.killed):
            self._standby = family_of(self._plan).standby(self._surroundings())

    def _end_standby(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            standby.close()

    @property
    def answers(self) -> Answers | None:
        """What answers requests now; None if nothing does."""
        driver = self.driver or self._standby
        return None if driver is None else driver.answers

    def heard(self, sender: int, said: pb.Said) -> None:
        """Hear what a neighbour says to all of its neighbours."""
        answers = self.answers
        if answers is not None:
            answers.heard(sender, said)

    def end_episode(self, episode: int) -> int:
        """End this episode if it is running; return the number of tasks this node still held."""
        if self.driver is None or self.driver.episode != episode:
            return 0
        driver, self.driver = self.driver, None
        self._worst_lateness = max(self._worst_lateness, driver.timers.worst_lateness)
        unfinished = driver.close()
        self._stand_by()
        return unfinished

    async def set_scheduler(self, scheduler: SchedulerSpec) -> str:
        """Change the scheduler from the next decision on; return its name.

        Raises: UsageError: unknown scheduler, or no run is configured.
        """
        plan = self._plan
        if plan is None:
            raise UsageError("no run is configured here, so there is nothing to schedule")
        created = await self._create_scheduler(plan, scheduler)
        if plan is not self._plan:
            raise UsageError("another run began while the scheduler was loaded")
        self.decide_by(created, scheduler)
        return self.scheduler_name

    @property
    def plan(self) -> PlanHead | None:
        """The plan of the last configuration; None before the first."""
        return self._plan

    @property
    def asked(self) -> SchedulerSpec:
        """The scheduler that decides here as it was asked for, with its options."""
        return self._asked

    def decide_by(self, scheduler: Scheduler, asked: SchedulerSpec) -> None:
        """Decide by ``scheduler``, which ``asked`` describes, from the next decision on."""
        self._decide_by(scheduler, asked)
        for driver in (self.driver, self._standby):
            if driver is not None:
                driver.decide_by(self._scheduler)

    def _decide_by(self, scheduler: Scheduler, asked: SchedulerSpec) -> None:
        assert self._plan is not None
        self._scheduler, self._asked = self._bounded(scheduler, self._plan), asked

    def _bounded(self, scheduler: Scheduler, plan: PlanHead) -> Any:
        return family_of(plan).bounded(scheduler, self.index, plan, self._watch)

    def scheduler_context(self, plan: PlanHead, options: Mapping[str, Any]) -> Any:
        """Return the context that a scheduler of this node is made from."""
        return family_of(plan).context(self.index, plan, options)

    def _stay(self) -> None:
        if self.stopped.is_set():
            raise UsageError(f"node {self.index} is shutting down")

    async def _create_scheduler(
        self, plan: PlanHead, asked: SchedulerSpec, *, application: bool = False
    ) -> Scheduler:
        """Make a scheduler; with ``application`` import that of the plan as well."""
        context = self.scheduler_context(plan, asked.options)

        def make() -> Scheduler:
            if application:
                check_application(plan.application.name)
            made: Scheduler = registry.create(asked.name, context)
            return made

        what = f"scheduler '{asked.name}'"
        if application:
            what += f" with application '{plan.application.name}'"
        return await made_in_time(what, make)

    def _create_application(self, plan: PlanHead) -> Application:
        asked = plan.application
        # Not in a thread: what it makes may belong to the event loop.
        making = OwnCode(self._watch, f"making application '{asked.name}' had not ended after")
        application = making.call(create_application, asked.name, asked.options)
        return BoundedApplication(application, self._watch)

    async def _close_run(self) -> None:
        application, self._application = self._application, None
        links, self._links = self._links, {}
        await _closed(application, links)


def _advertised(address: Address, host: str | None) -> Address:
    """Return the address that others are told, with another host if one is named."""
    if not host or not isinstance(address, TcpAddress):
        return address
    bare = ":" in host and not host.startswith("[")
    return TcpAddress(f"[{host}]" if bare else host, address.port)


async def _closed(application: Application | None, links: Mapping[int, Link]) -> None:
    """Close what an earlier run has used."""
    if application is not None:
        _let_go(application)
    for link in links.values():
        await link.close()


def _let_go(application: Application) -> None:
    """Close an application; what it raises is logged, for the run it served is over."""
    try:
        application.close()
    except BaseException as error:
        if interrupted(error):
            raise
        _logger.exception("close() of the application raised %s", described(error))
