"""One run: nodes configured, episodes one after another, everything that happened in the task log.

``Run`` is what the runs of all families of work have in common; ``controller.task_run`` and
``controller.serving.run`` add theirs.

A run always ends, in one of the states of the task log. A node that is gone takes its work with it
(``lost``), and the run goes on without it and ends as ``degraded``; if the same process is back, it
takes part again from the next episode on. When the log cannot be written the run ends as
``failed``: what is not stored is not acknowledged and stays in the nodes' spools.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import structlog

from controller.attendance import Attendance, by_reason, named
from controller.changes import SchedulerChanges
from controller.configuring import configuration
from controller.faults import RunFaults, refusal
from controller.link import EpisodeStart, NodeLink
from controller.machine import MachineWatch
from controller.marker import RunMarker, close
from controller.recording import Recording
from controller.registry import GONE, Node, Registry
from controller.writer import LogWriter
from testbed.errors import Problem, TemporaryError, TestbedError, UsageError
from testbed.model.certificate import Certificate, Machine, TermSoFar
from testbed.model.faults import KINDS, Fault, Timeline
from testbed.model.run_state import RunState
from testbed.model.units import Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.operator import EpisodeCount, FaultList, LinkNow, Progress, RunStatus
from testbed.scenario.plan import PlanHead, SchedulerSpec
from testbed.storage.tasklog import TESTBED, RunInfo, TaskLog, new_run_id

_log = structlog.get_logger("controller.run")

FLUSH_TIMEOUT_S: Final = 5.0
"""Seconds that the last batches of an episode may take after their node has announced them."""

RETURN_S: Final = 10.0
"""Seconds that a run without nodes waits for one that may live."""

LEAST_LEAD_S: Final = 0.1
MOST_LEAD_S: Final = 2.0
"""Real seconds between telling the nodes when an episode begins and its beginning: three times as
long as telling them the last one took, within these bounds. A node that is told later begins
late; what others send it waits there."""

FIRST_LEAD_S: Final = 0.002
"""The same for a run's first episode, for each node."""

STORE_TIMEOUT_S: Final = 90.0
"""Seconds that the end of a run waits for the task log; more than the log waits for its server."""

SHOWN: Final = 3
"""Episodes over their bound that are told one by one; all of them stand in the run's document."""


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's order: a run of the testbed's plan, with these differences."""

    scheduler: SchedulerSpec
    episodes: int
    first_episode: int = 0
    label: str = ""
    faults: Mapping[int, tuple[Fault, ...]] = field(default_factory=dict)
    """Faults that another run met by hand, by episode, to be met once more."""
    time_scale: float | None = None
    """Real seconds per emulated second; None: the plan's."""


class RunNow(NamedTuple):
    """Facts of a run that its progress does not tell; see ``testbed.rpc.operator.LiveState``."""

    loads: Sequence[int | None]
    backlogs: Sequence[Micros | None]
    links: tuple[LinkNow, ...]
    latencies: tuple[Micros, Micros, Micros] | None
    fidelity: tuple[TermSoFar, ...]


class RunningEpisode(Protocol):
    """The episode of a run under way, whatever its work is."""

    @property
    def number(self) -> int: ...

    @property
    def slot(self) -> int:
        """The present slot, or window."""
        ...

    @property
    def now(self) -> Micros:
        """The present instant on the controller's clock of this episode, emulated."""
        ...

    def first_arrivals(self, node: int) -> pb.Arrivals | None:
        """Return what a node has to know of its tasks when it prepares for the episode."""
        ...

    def prepared(self, node: int) -> None:
        """Note that a node has prepared for the episode."""
        ...

    def begin(self, at: float | None = None) -> None:
        """Begin at the instant ``at`` on the event loop's clock, in seconds; None: now."""
        ...

    def node_died(self, node: int) -> None:
        """Note that a node is out of the run."""
        ...

    def redraw(self, timeline: Timeline) -> None:
        """Note that other faults hold from now on."""
        ...

    def settle(self) -> None:
        """See whether the episode is over."""
        ...

    def stop(self, *, wait: bool) -> None:
        """Stop arrivals; without ``wait`` the episode is over at once."""
        ...

    async def wait(self) -> None:
        """Return when the episode is over."""
        ...


_Plan = TypeVar("_Plan", bound=PlanHead)
_Episode = TypeVar("_Episode", bound=RunningEpisode)


class Run(ABC, Generic[_Plan, _Episode]):
    """A run from configuring the nodes to its end in the log.

    Make it with ``begin`` of a class for one family of work; ``wait`` for its end.
    """

    fault_kinds: ClassVar[tuple[str, ...]] = tuple(KINDS)
    """Kinds of faults that its nodes can have."""

    _recording: Recording

    def __init__(
        self,
        plan: _Plan,
        order: Order,
        registry: Registry,
        writer: LogWriter,
        marker: RunMarker,
    ) -> None:
        size = plan.size
        self.id = new_run_id()
        self.plan = dataclasses.replace(
            plan,
            scheduler=order.scheduler,
            episodes=order.episodes,
            time_scale=plan.time_scale if order.time_scale is None else order.time_scale,
        )
        self.order = order
        self._registry = registry
        self._writer = writer
        self._marker = marker
        self.faults = RunFaults(self.plan, order.faults)
        self._machine = MachineWatch(registry)
        self._episode: _Episode | None = None
        self._links: list[NodeLink | None] = [None] * size
        self._processes = [""] * size
        self._attendance = Attendance()
        self._lead = min(LEAST_LEAD_S + FIRST_LEAD_S * size, MOST_LEAD_S)
        self._overdue: list[str] = []
        self._came = asyncio.Event()
        self._stopping = False
        self._state = RunState.RUNNING
        self._reason = ""
        self._certificate: Certificate | None = None
        self._completed = 0
        self.episodes: list[EpisodeCount] = []
        """Counts of the episodes that are over, in order."""
        self._counted = (0, 0)
        self._watchers: set[asyncio.Event] = set()
        self._worst_lateness: Micros = 0
        self._main: asyncio.Task[None] | None = None
        self.changes = SchedulerChanges(size, self._position)

    def _progress(
        self, seen: Iterable[str], code_failures: tuple[str, ...], **counted: Any
    ) -> Progress:
        """Return the progress: what all families have, and what this one has ``counted``.

        ``seen`` says in words what degrades the run, ``code_failures`` what a user's own code did.
        """
        episode, certificate = self._episode, self._certificate
        first = self.order.first_episode
        return Progress(
            run=self.id,
            state=self._state,
            scheduler=self.changes.summary,
            first_episode=first,
            episodes=self.order.episodes,
            episode=episode.number if episode else first + max(0, self._completed - 1),
            completed=self._completed,
            slot=episode.slot if episode else 0,
            dead_nodes=tuple(sorted(self._attendance.out)),
            degraded=self._degraded,
            reason=self._reason or "; ".join(seen),
            valid=None if certificate is None else certificate.valid,
            invalid_because=() if certificate is None else certificate.reasons,
            code_failures=code_failures,
            absences=self._attendance.told(),
            objective=self.plan.objective,
            **counted,
        )

    # --- what each family of work has of its own ----------------------------------------------

    @property
    @abstractmethod
    def progress(self) -> Progress:
        """Progress of the run."""

    @property
    @abstractmethod
    def now(self) -> RunNow:
        """Further facts of the run at this instant."""

    @abstractmethod
    def _new_episode(self, number: int) -> _Episode:
        """Return a new episode, which begins later."""

    @abstractmethod
    def _decode(self, batch: pb.EventBatch) -> Any:
        """Return the content of a batch. Raises: ValueError: it cannot be read."""

    @abstractmethod
    def _take(self, link: NodeLink, number: int, content: Any) -> None:
        """Count the content of a node's batch ``number``, and have it stored."""

    @abstractmethod
    def _count_up(self, episode: _Episode, complete: Collection[int]) -> Sequence[Any]:
        """Close an episode and count it; return what the controller has to add to the log."""

    @abstractmethod
    def _certify(self, machine: Machine, unfaithful: Sequence[str]) -> Certificate:
        """Return the certificate; ``unfaithful`` are reasons that the log does not show."""

    @abstractmethod
    def _found(self) -> Mapping[str, Any]:
        """Return what the run's document says of the family's own."""

    @property
    @abstractmethod
    def _incomplete(self) -> bool:
        """Whether work was lost or failed, so that the run is degraded."""

    # --- for the operator -------------------------------------------------------------------

    @classmethod
    async def begin(
        cls,
        plan: _Plan,
        order: Order,
        registry: Registry,
        writer: LogWriter,
        marker: RunMarker,
    ) -> Self:
        """Configure all nodes, enter the run in the log, and start it.

        Raises: UsageError: a node refuses, for instance an unknown scheduler, or is not healthy;
        then nothing has begun. Or what the task log says when it cannot be written. PermanentError:
        the run directory cannot be written.
        """
        run = cls(plan, order, registry, writer, marker)
        info = RunInfo.of(
            run.plan,
            "network",
            id=run.id,
            episodes=order.episodes,
            first_episode=order.first_episode,
            scheduler=order.scheduler.name,
            label=order.label,
            scenario=marker.scenario,
        )
        info = replace(info, versions={**info.versions, TESTBED: registry.testbed})
        # A run before this one that the log could not be told about.
        await writer.call(marker.settle)
        await run._configure()
        # The marker first: a run that is in the log and in no marker would be running for ever.
        marker.begin(run.id)
        try:
            await writer.call(lambda log: log.begin_run(info))
        except asyncio.CancelledError:
            marker.ending(run.id)
            raise
        except Exception as error:
            # It may be entered although the answer was lost.
            marker.failed(run.id, f"the run could not begin: {error}")
            raise
        run._main = asyncio.get_running_loop().create_task(run._run())
        _log.info("run", run=run.id, scheduler=order.scheduler.name, episodes=order.episodes)
        return run

    @property
    def active(self) -> bool:
        """Whether the run is still going on."""
        return self._state is RunState.RUNNING

    @property
    def takes_batches(self) -> bool:
        """Whether batches are its business: while it goes on, and never again once it failed.

        A failed run acknowledges nothing more: what comes after a batch that could not be stored
        must stay with the node as well, because an acknowledgement is for all that came before.
        """
        return self.active or bool(self._reason)

    @property
    def status(self) -> RunStatus:
        """Progress of the run, with what has been changed while it ran, and its faults."""
        now = 0 if self._episode is None else self._episode.now
        return RunStatus(
            self.progress, self.order.label, tuple(self.changes.log), self.faults.lines(now)
        )

    def watch(self) -> asyncio.Event:
        """Return an event that is set whenever the progress has changed; give it to ``unwatch``."""
        event = asyncio.Event()
        self._watchers.add(event)
        return event

    def unwatch(self, event: asyncio.Event) -> None:
        """Set ``event`` no more."""
        self._watchers.discard(event)

    def stop(self, *, wait: bool = True) -> None:
        """End the run early: no more arrivals; with ``wait``, tasks under way may end first."""
        self._stopping = True
        if self._episode is not None:
            self._episode.stop(wait=wait)

    async def inject(self, fault: Fault) -> FaultList:
        """Inject a fault from now on, at all nodes or none; its ``end`` is its duration.

        Raises: UsageError: it cannot be. TemporaryError: a node did not answer.
        """
        wrong = refusal(fault, self.plan.size)
        if not wrong and fault.kind not in self.fault_kinds:
            wrong = (
                f"{fault.kind} has no effect on {self.plan.model}; "
                f"allowed: {', '.join(self.fault_kinds)}"
            )
        if wrong:
            raise UsageError(wrong)
        episode = self._episode
        begun = self.faults.inject(fault, None if episode is None else episode.now)
        failed = await self._tell_faults(episode)
        if failed:
            self.faults.take_back(begun)
            await self._tell_faults(episode)
            raise TemporaryError(f"{failed}; nothing was injected")
        _log.info("fault", run=self.id, injected=begun)
        return self.fault_list((begun.id,))

    async def clear_faults(self) -> FaultList:
        """Release what was injected by hand."""
        episode = self._episode
        cleared = self.faults.clear(None if episode is None else episode.now)
        failed = await self._tell_faults(episode)
        if failed:
            # They end by themselves, and with the episode.
            raise TemporaryError(f"{failed}; at the others the faults are released")
        return self.fault_list(tuple(fault.id for fault in cleared))

    def fault_list(self, changed: tuple[str, ...] = ()) -> FaultList:
        """Return the faults of the present episode."""
        episode = self._episode
        now = 0 if episode is None else episode.now
        number = self._position()[0]
        return FaultList(self.id, number, now, self.faults.described(now), changed)

    async def _tell_faults(self, episode: _Episode | None) -> str:
        """Bring the faults by hand to the nodes; what went wrong, or empty."""
        if episode is None:
            return ""
        told = self.faults.told
        episode.redraw(self.faults.timeline(episode.number))
        failed = await self._ask_all(
            lambda link: link.set_faults(self.id, episode.number, told), {}
        )
        return "; ".join(f"node {link.node}: {error}" for link, error in failed)

    async def wait(self) -> None:
        """Return when the run has ended and the log knows."""
        if self._main is not None:
            await asyncio.shield(self._main)

    # --- what comes in ----------------------------------------------------------------------

    def node_changed(self, node: Node) -> None:
        """React to a changed condition of a node; a dead one is out of this episode at least."""
        if node.condition in GONE:
            self._drop(node.node, node.reason)
        elif node.condition == "suspect" and node.node not in self._attendance.out:
            self._attendance.silent(node.node, self._position()[0], node.reason)

    def take(self, link: NodeLink, batch: pb.EventBatch) -> None:
        """Take a node's batch: count what it says, and have it stored."""
        if self._reason or not self._recording.is_new(link, batch.number):
            return
        try:
            content = self._decode(batch)
            self.faults.note(batch.faults)
        except ValueError as error:
            self._fail(f"node {link.node} sent what cannot be read: {error}")
            return
        self._take(link, batch.number, content)
        if self._episode is not None:
            self._episode.settle()
        self._came.set()
        self._changed()

    def _drop(self, node: int, reason: str) -> None:
        if not self.active or not self._attendance.leave(node, self._position()[0], reason):
            return
        _log.warning("node left the run", run=self.id, node=node, reason=reason)
        if self._episode is not None:
            self._episode.node_died(node)
        self._came.set()
        self._changed()

    def _fail(self, reason: str) -> None:
        if not self._reason:
            _log.error("run failed", run=self.id, reason=reason)
            self._reason = reason
            self.stop(wait=False)
            self._came.set()

    # --- its course -------------------------------------------------------------------------

    async def _configure(self) -> None:
        await self._registry.settled()
        nodes = [node for node in self._registry.nodes if node.condition == "healthy"]
        if len(nodes) < len(self._registry.nodes):
            raise UsageError(
                "the run cannot begin",
                [
                    Problem(
                        f"node {node.node}",
                        f"is {node.condition}: {node.reason}",
                        "all nodes have to be healthy; take the testbed down and bring it up again",
                    )
                    for node in self._registry.nodes
                    if node.condition != "healthy"
                ],
            )
        spec = self.order.scheduler
        plan_json = self.plan.to_json()
        self._processes = [node.process for node in self._registry.nodes]
        links = [node.link for node in nodes if node.link is not None]
        replies = await asyncio.gather(
            *(
                link.configure(configuration(link.node, nodes, plan_json, spec, run=self.id))
                for link in links
            ),
            return_exceptions=True,
        )
        # They may have ended, for instance by what a scheduler does when it is made.
        silent = [
            link.node
            for link, r in zip(links, replies, strict=True)
            if isinstance(r, TemporaryError)
        ]
        if silent:
            await self._registry.settled(silent)
        refusals: dict[str, list[int]] = {}
        for link, reply in zip(links, replies, strict=True):
            if isinstance(reply, str):
                self.changes.began(link.node, spec, reply)
            elif isinstance(reply, UsageError):
                refusals.setdefault(str(reply), []).append(link.node)
            elif isinstance(reply, TemporaryError):
                seen = self._registry.nodes[link.node]
                gone = f"; it is {seen.condition}: {seen.reason}" if seen.condition in GONE else ""
                refusals.setdefault(f"does not answer: {reply}{gone}", []).append(link.node)
            else:
                raise reply
        if refusals:
            raise UsageError(
                "the run cannot begin",
                [Problem(named(nodes), what, "") for what, nodes in refusals.items()],
            )

    async def _run(self) -> None:
        try:
            for number in range(
                self.order.first_episode, self.order.first_episode + self.order.episodes
            ):
                await self._take_back(number)
                if self._stopping or self._alone:
                    break
                await self._run_episode(number)
            if not self._stopping and self._alone:
                self._fail(
                    f"no node is left in the run: {'; '.join(by_reason(self._attendance.out))}"
                )
        except Exception as error:  # noqa: BLE001 - a run has to end in the log whatever went wrong
            _log.exception("run", run=self.id)
            self._fail(f"defect of the controller: {error!r}")
        await self._end()

    async def _run_episode(self, number: int) -> None:
        await self.changes.reassert(self._living())
        if self._stopping:
            return
        by_hand = self.faults.begin(number)
        self._recording.begin_episode()
        for node in self._registry.nodes:
            node.episode_lag = 0
        episode = self._episode = self._new_episode(number)
        self._changed()
        await self._start_episode(episode, by_hand)
        await episode.wait()
        complete = await self._flush(number)
        self._close_episode(episode, complete)

    def _close_episode(self, episode: _Episode, complete: Collection[int] = ()) -> None:
        """End what has not ended, and have the rows of the episode entered.

        ``complete`` are the nodes whose log of the episode is here to its end.
        """
        rest = self._count_up(episode, complete)
        self._enter_count(episode.number)
        self.faults.end(episode.now, self._attendance.out)
        self._episode = None
        self._completed += not self._stopping
        if self._recording.broken:
            return
        self._recording.store_own(rest)
        self._recording.end_episode()
        self._changed()

    def _enter_count(self, number: int) -> None:
        """Enter the counts of an episode that has just been counted."""
        progress = self.progress
        over = progress.completed_outcomes
        ended, good = sum(over.values()), over.get(progress.success, 0)
        before_ended, before_good = self._counted
        self._counted = ended, good
        self.episodes.append(EpisodeCount(number, ended - before_ended, good - before_good))

    async def _take_back(self, number: int) -> None:
        """See who takes part in an episode: all that live, and are the process that was configured.

        Who was out and is back takes part again. With nobody left it waits for a while for a node
        that may live.
        """
        until = self._registry.pulse.awake() + RETURN_S
        while True:
            await self._registry.settled()
            for node in self._registry.nodes:
                self._look_at(node, number)
            left = until - self._registry.pulse.awake()
            hopeless = all(node.condition == "dead" for node in self._registry.nodes)
            if not self._alone or self._stopping or hopeless or left <= 0:
                return
            await self._registry.news(min(left, 1.0))

    def _look_at(self, node: Node, number: int) -> None:
        """Set whether a node takes part in an episode."""
        index, link = node.node, node.link
        if node.process != self._processes[index]:
            self._drop(index, "another process has registered, which does not know of this run")
        elif link is None or node.condition in GONE:
            self._drop(index, node.reason)
        elif node.condition == "healthy" or index not in self._attendance.out:
            if self._attendance.come_back(index, number):
                _log.info("node is back in the run", run=self.id, node=index, episode=number)
            self._links[index] = link

    async def _start_episode(self, episode: _Episode, faults: list[bytes]) -> None:
        """Start an episode at all nodes that take part, at one instant.

        First all prepare: from then on they keep what others send them, so nothing is lost if some
        begin before others. Nodes of this machine begin at the same instant; others as much later
        as a message takes.
        """
        number = episode.number

        async def prepare(link: NodeLink) -> None:
            first = episode.first_arrivals(link.node)
            await link.prepare_episode(self.id, number, faults, first)
            episode.prepared(link.node)

        for link, error in await self._ask_all(prepare, {}):
            self._drop(link.node, f"did not prepare episode {number}: {error}")
        start = EpisodeStart(self.id, number, asyncio.get_running_loop().time() + self._lead)
        episode.begin(start.at)
        began = self._registry.pulse.awake()
        for link, error in await self._ask_all(lambda link: link.start_episode(start), {}):
            self._drop(link.node, f"did not start episode {number}: {error}")
        took = self._registry.pulse.awake() - began
        self._lead = min(max(LEAST_LEAD_S, 3 * took), MOST_LEAD_S)
        if self.faults.told != faults:
            # Injected while some of the nodes had not started.
            await self._tell_faults(episode)

    async def _flush(self, number: int) -> set[int]:
        """Wait for all that happened in the episode; return the nodes of which it is here.

        What does not come in time costs its node no more than this episode.
        """
        replies: dict[int, Any] = {}
        for link, error in await self._ask_all(
            lambda link: link.end_episode(self.id, number), replies
        ):
            self._late(link.node, number, f"did not say that it has all of its log sent: {error}")
        awake, writer = self._registry.pulse.awake, self._writer
        until = awake() + FLUSH_TIMEOUT_S

        def missing() -> set[int]:
            return {
                node
                for node, reply in replies.items()
                if not self._recording.has(self._log_of(node), reply.last_batch)
            } - self._attendance.out.keys()

        while not self._reason and missing():
            if not writer.has_room:
                # It is this controller that takes nothing from the nodes.
                until = awake() + FLUSH_TIMEOUT_S
            if (left := until - awake()) <= 0:
                break
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 1.0)):
                    await self._came.wait()
        left_out = missing()
        for node in sorted(left_out):
            self._late(
                node, number, f"did not send the end of its log within {FLUSH_TIMEOUT_S:g} s"
            )
        return replies.keys() - left_out - self._attendance.out.keys()

    def _log_of(self, node: int) -> int:
        """Return the node under which the process of a node logs."""
        link = self._links[node]
        return node if link is None else link.log

    def _late(self, node: int, number: int, reason: str) -> None:
        if node not in self._attendance.out:
            _log.warning("late", run=self.id, node=node, episode=number, reason=reason)
            self._attendance.was_late(node, number, reason)

    @property
    def _alone(self) -> bool:
        """Whether no node is left in the run."""
        return len(self._attendance.out) == len(self._links)

    def _living(self) -> list[NodeLink]:
        """Connections to the nodes still in the run."""
        return [
            node.link
            for node in self._registry.nodes
            if node.node not in self._attendance.out and node.link is not None
        ]

    async def _ask_all(
        self, call: Callable[[NodeLink], Awaitable[Any]], replies: dict[int, Any]
    ) -> list[tuple[NodeLink, TestbedError]]:
        """Ask the nodes that take part, and enter their ``replies``; those that did not answer."""
        links = self._living()
        answers = await asyncio.gather(*(call(link) for link in links), return_exceptions=True)
        failed = []
        for link, answer in zip(links, answers, strict=True):
            if isinstance(answer, TestbedError):
                failed.append((link, answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                replies[link.node] = answer
        return failed

    async def _end(self) -> None:
        if self._episode is not None:
            self._close_episode(self._episode)
        await self.changes.close()
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._recording.complete()
        except TimeoutError:
            self._fail(f"the task log is too slow: it is behind by more than {STORE_TIMEOUT_S:g} s")
        except Exception as error:  # noqa: BLE001 - a run has to end whatever went wrong
            _log.exception("run", run=self.id)
            self._fail(f"defect of the controller: {error!r}")
        self._certificate = self._certify(
            self._machine.result(self._worst_lateness),
            (*shortened(self._overdue), *self.faults.reasons),
        )
        state = self._final_state()
        document = {
            **self._certificate.to_document(),
            "degraded": self._degraded,
            "dead_nodes": {str(node): reason for node, reason in self._attendance.reasons.items()},
            "absences": list(self._attendance.told()),
            "silences": [
                f"node {node}: {seen}, in episode {episode}"
                for episode, nodes in self._attendance.silences.items()
                for node, seen in nodes.items()
            ],
            **self._found(),
            "episodes_completed": self._completed,
            "scheduler_changes": [dataclasses.asdict(change) for change in self.changes.log],
            "faults": self.faults.log,
            "faults_not_listed": self.faults.not_logged,
            "failure": self._reason,
            "episodes_over_bound": list(self._overdue),
            "tasks_closed": not self._recording.broken,
        }

        waited = True

        def end(log: TaskLog) -> None:
            if not waited:
                # The operator was told that the run has failed.
                return
            if self._recording.broken:
                close(log, self.id, state, document)
            else:
                log.end_run(self.id, state, document)

        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._writer.call(end)
            self._marker.end()
        except Exception as error:  # noqa: BLE001 - a run has to end whatever the log says
            waited = False
            why = str(error) or f"it does not answer within {STORE_TIMEOUT_S:g} s"
            self._fail(f"the task log cannot be written: {why}")
            state = RunState.FAILED
            self._marker.failed(self.id, self._reason)
        self._state = state
        _log.info("run ended", run=self.id, state=state.value, reason=self._reason)
        self._changed()

    # --- small things -----------------------------------------------------------------------

    @property
    def _degraded(self) -> bool:
        return not self._attendance.complete or self._incomplete

    def _final_state(self) -> RunState:
        if self._reason:
            return RunState.FAILED
        if self._stopping:
            return RunState.STOPPED
        if self._degraded:
            return RunState.DEGRADED
        if self._certificate is None or self._certificate.valid:
            return RunState.COMPLETED
        return RunState.INVALID

    def _position(self) -> tuple[int, int]:
        episode = self._episode
        if episode is None:
            return self.order.first_episode + self._completed, 0
        return episode.number, episode.slot

    def _changed(self) -> None:
        for event in self._watchers:
            event.set()


def shortened(reasons: list[str]) -> list[str]:
    """Return the first of many reasons of one kind, and how many more there are."""
    more = len(reasons) - SHOWN
    return reasons[:SHOWN] + ([f"{more} more episodes did not finish either"] if more > 0 else [])


AnyRun: TypeAlias = Run[Any, Any]
"""A run of some family of work."""
