"""The controller's service for operators; the contract is ``testbed.rpc.operator``.

Who may call stands in ``testbed.rpc.authorization``. What cannot be done is answered with
``INVALID_ARGUMENT``, ``FAILED_PRECONDITION`` or ``NOT_FOUND`` and a message for the user; what the
task log or an artifact store makes impossible, with ``ABORTED`` (try again) or ``DATA_LOSS``.

Calls that change something are carried out one after another, to their end, even if the caller
goes away in the middle (``Commands``); such work never touches the call itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import structlog

from controller.deploy import DRL, ActiveRun, Deployments
from controller.faults import repeated_faults
from controller.link import NodeLink
from controller.live import live_state
from controller.registry import Node, Registry
from controller.run import AnyRun, Order
from testbed.errors import TestbedError, UsageError
from testbed.model.faults import Fault
from testbed.rpc.commands import Commands
from testbed.rpc.failures import abort
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.operator import Acknowledgement, FaultList, NodeStatus, PolicyDeployment, Status
from testbed.scenario.plan import PlanHead, SchedulerSpec
from testbed.scenario.units import TIME_SCALE, QuantityError

_log = structlog.get_logger("controller.service")

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Result = TypeVar("_Result")


class _Refused(Exception):
    """The request is impossible now; ``code`` is the status of the answer."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(message)


LAST_EPISODE: Final = 2**31 - 1
"""The highest number of an episode that messages between controller and nodes can hold."""

PROGRESS_INTERVAL_S: Final = 0.2
"""Shortest time between two messages of a watched run."""


class Operator(pb_grpc.OperatorServicer):
    """The operator's service of one testbed.

    ``directory`` is the run directory. ``begin`` starts a run; ``describe`` fills what only the
    process knows into a status; ``shutdown`` ends the process.
    """

    def __init__(
        self,
        plan: PlanHead,
        registry: Registry,
        directory: Path,
        *,
        begin: Callable[[Order], Awaitable[AnyRun]],
        describe: Callable[[], dict[str, str | int]],
        shutdown: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._registry = registry
        self._begin = begin
        self._describe = describe
        self._shutdown = shutdown
        self._commands = Commands(lambda line: _log.warning("command", what=line))
        self.runs: dict[str, AnyRun] = {}
        self._policies = Deployments(plan, registry, directory, self._active)

    @property
    def current(self) -> AnyRun | None:
        """The run that is under way, or else the last one."""
        return next(reversed(self.runs.values()), None)

    @property
    def policy(self) -> str:
        """Key of the policy that was deployed last; empty if none was."""
        return self._policies.current or ""

    async def Status(self, request: pb.Empty, context: _Context) -> pb.StatusReply:
        """Return the status of the testbed; asks every node."""
        run = self.current
        nodes = await asyncio.gather(*(_describe(node) for node in self._registry.nodes))
        status = Status(
            **self._describe(),  # type: ignore[arg-type]
            scenario=self._plan.name,
            scenario_hash=self._plan.scenario_hash,
            scheduler=self._plan.scheduler.name,
            nodes=tuple(nodes),
            run=None if run is None else run.status,
            runs=tuple(self.runs),
            policy=self.policy,
            artifacts=self._plan.artifacts_url or "",
        )
        return pb.StatusReply(json=status.to_json())

    async def Plan(self, request: pb.Empty, context: _Context) -> pb.PlanReply:
        """Return the plan of the testbed."""
        return pb.PlanReply(json=self._plan.to_json())

    async def Live(self, request: pb.LiveRequest, context: _Context) -> pb.LiveReply:
        """Return what is known of nodes and run; asks no node."""
        run = self.current
        known = 0 if run is None or request.run != run.id else max(0, request.episodes)
        state = live_state(self._registry, run, self.policy, known)
        return pb.LiveReply(json=state.to_json())

    async def StartRun(self, request: pb.StartRunRequest, context: _Context) -> pb.StartRunReply:
        """Begin a run if none is under way and all nodes agree."""

        async def start() -> AnyRun:
            current = self.current
            if current is not None and current.active:
                raise _Refused(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"run {current.id} is under way; wait for its end, or end it: testbed stop, "
                    "or Ctrl-C where it was begun",
                )
            run = await self._begin(self._order(request))
            self.runs[run.id] = run
            return run

        run = await self._carried_out("the start of a run", start, context)
        return pb.StartRunReply(run=run.id)

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: _Context
    ) -> AsyncIterator[pb.RunProgress]:
        """Progress when it changes, not too often, and the last one in any case."""
        run = await self._run(request.run, context)
        changed = run.watch()
        try:
            while True:
                changed.clear()
                progress = run.progress
                yield pb.RunProgress(json=progress.to_json())
                if progress.state != "running":
                    return
                await asyncio.sleep(PROGRESS_INTERVAL_S)
                await changed.wait()
        finally:
            run.unwatch(changed)

    async def StopRun(self, request: pb.StopRunRequest, context: _Context) -> pb.Empty:
        """End a run early and answer when it is over."""
        run = await self._run(request.run, context)
        run.stop()
        await run.wait()
        return pb.Empty()

    async def ChangeScheduler(
        self, request: pb.ChangeSchedulerRequest, context: _Context
    ) -> pb.ChangeSchedulerReply:
        """Change the scheduler of the run under way, at all nodes or the named ones."""

        async def change() -> list[Acknowledgement]:
            run = self.current
            if run is None or not run.active:
                raise _Refused(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "no run is under way; name the scheduler when the run is started",
                )
            asked = _scheduler(request.scheduler, request.options_json)
            links = self._links(request.nodes, run)
            spec = self._policies.filled(asked)
            await self._loaded(spec, links)
            # A change of all nodes is one of those too that are out of the run for a while.
            absent = () if request.nodes else run.progress.dead_nodes
            return await run.changes.change(links, spec, absent)

        answers = await self._carried_out("a change of scheduler", change, context)
        return pb.ChangeSchedulerReply(
            nodes=[answer.node for answer in answers],
            replies=[
                pb.SetSchedulerReply(
                    accepted=answer.accepted, scheduler=answer.scheduler, reason=answer.reason
                )
                for answer in answers
            ],
        )

    async def DeployPolicy(
        self, request: pb.DeployPolicyRequest, context: _Context
    ) -> pb.DeployPolicyReply:
        """Bring a policy to the nodes, all of them or none."""

        async def deploy() -> PolicyDeployment:
            return await self._policies.deploy(request.policy, sorted(set(request.nodes)))

        result = await self._carried_out("a deploy", deploy, context)
        return pb.DeployPolicyReply(json=result.to_json())

    async def RollBackPolicy(self, request: pb.Empty, context: _Context) -> pb.DeployPolicyReply:
        """Bring back the policy that the last deploy has replaced."""
        result = await self._carried_out("a roll back", self._policies.roll_back, context)
        return pb.DeployPolicyReply(json=result.to_json())

    async def InjectFault(
        self, request: pb.InjectFaultRequest, context: _Context
    ) -> pb.FaultsReply:
        """Inject a fault into the run under way, at all nodes or none."""

        async def inject() -> FaultList:
            try:
                fault = Fault.from_document(json.loads(request.fault_json))
            except (ValueError, AttributeError, RecursionError) as error:
                raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, f"not a fault: {error}") from None
            return await self._under_way().inject(fault)

        result = await self._carried_out("a fault", inject, context)
        return pb.FaultsReply(json=result.to_json())

    async def ClearFaults(self, request: pb.Empty, context: _Context) -> pb.FaultsReply:
        """Release what was injected by hand."""

        async def clear() -> FaultList:
            return await self._under_way().clear_faults()

        result = await self._carried_out("the end of faults", clear, context)
        return pb.FaultsReply(json=result.to_json())

    async def ListFaults(self, request: pb.Empty, context: _Context) -> pb.FaultsReply:
        """Return the faults of the present episode; none if no run is under way."""
        run = self.current
        listed = run.fault_list() if run is not None and run.active else FaultList()
        return pb.FaultsReply(json=listed.to_json())

    def _under_way(self) -> AnyRun:
        run = self.current
        if run is None or not run.active:
            raise _Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                "no run is under way; put faults that a run begins with into its scenario",
            )
        return run

    async def close(self, timeout: float) -> None:
        """Begin no more changes, and wait at most ``timeout`` seconds for the one under way."""
        await self._commands.close(timeout)

    async def _carried_out(
        self, what: str, work: Callable[[], Coroutine[Any, Any, _Result]], context: _Context
    ) -> _Result:
        """Return what ``work`` returns; it goes on when this call is cancelled."""
        try:
            return await self._commands.run(what, work)
        except _Refused as error:
            await context.abort(error.code, str(error))
        except TestbedError as error:
            await abort(context, error)

    async def _loaded(self, spec: SchedulerSpec, links: list[NodeLink]) -> None:
        """Load a policy at all nodes before the first one decides by it."""
        reference = spec.options.get("policy")
        if spec.name != DRL or not isinstance(reference, str) or reference[:1] in {"/", ".", "~"}:
            return
        refusals = await self._policies.refusals(links, reference)
        if refusals:
            told = "\n".join(f"node {node}: {reason}" for node, reason in refusals.items())
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, f"nothing was changed\n{told}")

    def _active(self) -> ActiveRun | None:
        run = self.current
        if run is None or not run.active:
            return None
        return ActiveRun(run.id, run.progress.dead_nodes, run.changes)

    async def Shutdown(self, request: pb.Empty, context: _Context) -> pb.Empty:
        """End the controller once this call is answered."""
        self._shutdown()
        return pb.Empty()

    def _order(self, request: pb.StartRunRequest) -> Order:
        if request.episodes < 0 or request.first_episode < 0:
            raise UsageError(
                f"{request.episodes} episodes from {request.first_episode}: both are at least 0"
            )
        last = request.first_episode + (request.episodes or self._plan.episodes) - 1
        if last > LAST_EPISODE:
            raise UsageError(
                f"the last episode would be number {last}; there is none above {LAST_EPISODE}"
            )
        asked = _scheduler(request.scheduler or self._plan.scheduler.name, request.options_json)
        scheduler = asked if request.scheduler or asked.options else self._plan.scheduler
        return Order(
            scheduler=self._policies.filled(scheduler),
            episodes=request.episodes or self._plan.episodes,
            first_episode=request.first_episode,
            label=request.label,
            faults=repeated_faults(request, self._plan.size),
            time_scale=_time_scale(request.time_scale) or self._plan.time_scale,
        )

    async def _run(self, run_id: str, context: _Context) -> AnyRun:
        run = self.runs.get(run_id) if run_id else self.current
        if run is None:
            known = ", ".join(self.runs) or "none so far"
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"this controller has no run {run_id or 'yet'}; it has {known}",
            )
        return run

    def _links(self, wanted: Sequence[int], run: AnyRun) -> list[NodeLink]:
        dead = set(run.progress.dead_nodes)
        size = len(self._registry.nodes)
        numbers = sorted(set(wanted)) or [n for n in range(size) if n not in dead]
        links = []
        for number in numbers:
            if not 0 <= number < size:
                raise UsageError(f"there is no node {number}; there are 0 to {size - 1}")
            link = self._registry.nodes[number].link
            if number in dead or link is None:
                raise _Refused(
                    grpc.StatusCode.FAILED_PRECONDITION, f"node {number} is not in this run: dead"
                )
            links.append(link)
        return links


def _time_scale(given: float) -> float:
    try:
        return TIME_SCALE.read(given) if given else 0.0
    except QuantityError as error:
        raise UsageError(f"a time scale of {given:g}: {error}") from None


def _scheduler(name: str, options_json: str) -> SchedulerSpec:
    try:
        return SchedulerSpec.of_message(name, options_json)
    except ValueError as error:
        raise UsageError(f"the scheduler's options cannot be read: {error}") from None


async def _describe(node: Node) -> NodeStatus:
    known = NodeStatus(
        node=node.node,
        condition=node.condition,
        reason=node.reason,
        address=node.address or None,
        pid=node.pid or None,
        version=node.version or None,
        resident_bytes=node.resident_bytes or None,
        lag=node.lag,
        cpu=node.cpu,
        http=node.http or None,
    )
    if node.link is None or node.condition != "healthy":
        return known
    try:
        said = await node.link.describe()
    except TestbedError as error:
        _log.warning("describe", node=node.node, answer=str(error))
        return known
    return dataclasses.replace(
        known,
        scheduler=said.scheduler or None,
        queue_length=said.queue_length,
        backlog=said.backlog,
        held=said.held,
        unacknowledged=said.unacknowledged,
        resident_bytes=said.resident_bytes,
    )
