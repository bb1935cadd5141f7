"""The heap simulator: one ``NodeState`` per node, driven in virtual time.

It is the reference for the model: the real network and the compiled engine are held to
its outcomes. Events are handled in the order of the key (time, phase, node, task, sequence), so
what happens at equal instants is part of the model; see ``Phase``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

from testbed.errors import PermanentError
from testbed.model.decision import Answer, Scheduler, SchedulerContext, SchedulerFactory
from testbed.model.events import (
    AnnounceTransfer,
    AskPeers,
    AwaitTurn,
    ChangeExecution,
    ChangeTransmission,
    ConditionsChanged,
    DeadlinePassed,
    DecisionBroken,
    DecisionDue,
    DecisionRecord,
    Effect,
    ExecutionEnded,
    GossipDue,
    HandOver,
    PeersAnswered,
    PeersSilent,
    Record,
    RecordKind,
    ResumeDecision,
    SetDeadline,
    SlotIdle,
    StartExecution,
    StartTransmission,
    StateHeard,
    StopExecution,
    TaskArrived,
    TellPeers,
    TransferAnnounced,
    TransferArrived,
    TransferWithdrawn,
    TransmissionEnded,
    WithdrawTransfer,
)
from testbed.model.faulted import FaultedNode
from testbed.model.information import gossip_period
from testbed.model.node import NodeState
from testbed.model.own_code import SchedulerFailed
from testbed.model.task import Outcome, Task
from testbed.model.units import NEVER, Micros
from testbed.scenario.plan import Plan
from testbed.schedulers import registry
from testbed.sim.central import Central, CentralReject
from testbed.sim.choice import chosen
from testbed.sim.garbage import no_garbage_collection
from testbed.sim.network import NetworkScheduler, NetworkView, Seat
from testbed.sim.oracle import Oracle


class Phase(IntEnum):
    """Order of events of the same instant.

    What frees a unit comes before what ends a task for lateness, and both before new work. With a
    control delay of 0 all tasks of a slot see the same state: nobody's probe is evaluated before
    everybody who decides at once has decided, and all probes of a round before any decision that
    follows from them. Round r is evaluated in phase ``PROBES + 2 r`` and answered in
    ``ANSWERS + 2 r``.
    """

    EXECUTION_ENDED = 0
    TRANSMISSION_ENDED = 1
    """The task is delivered to the receiver at once."""
    FAULT = 2
    """Faults begin and end, in order of the nodes. What ends at that instant has ended."""
    DEADLINE = 3
    ARRIVAL = 4
    """In order of the nodes; a decision without questions takes effect here, also one that has
    waited for its turn (``Rules.stagger``)."""
    PROBES = 5
    ANSWERS = 6
    CONTROL = 100
    """Announcements and withdrawals of transfers."""
    GOSSIP = 101
    """Nodes tell their state unasked: who decides at that instant has not heard it."""
    HEARD = 102


SchedulerChoice: TypeAlias = str | SchedulerFactory
"""A registered name (``central`` and ``oracle`` included), ``module:Class``, or what makes one."""

_NETWORK_SCHEDULERS: Final[dict[str, Callable[[Plan], NetworkScheduler]]] = {
    "central": Central,
    "central-reject": CentralReject,
    "oracle": Oracle,
}

_OUTCOMES: Final[Mapping[int | str, Outcome]] = {outcome.value: outcome for outcome in Outcome}

# As plain integers for the heap: comparing enum members costs several times as much.
_EXECUTION_ENDED: Final = int(Phase.EXECUTION_ENDED)
_TRANSMISSION_ENDED: Final = int(Phase.TRANSMISSION_ENDED)
_FAULT: Final = int(Phase.FAULT)
_DEADLINE: Final = int(Phase.DEADLINE)
_ARRIVAL: Final = int(Phase.ARRIVAL)
_PROBES: Final = int(Phase.PROBES)
_ANSWERS: Final = int(Phase.ANSWERS)
_CONTROL: Final = int(Phase.CONTROL)
_GOSSIP: Final = int(Phase.GOSSIP)
_HEARD: Final = int(Phase.HEARD)
_Entry: TypeAlias = tuple[Micros, int, int, int, int, Any]


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """Result of one episode.

    ``records`` and ``decisions`` are in the order they were made and empty if they were not to be
    kept; ``outcomes`` has every task of the episode by its id, in the order they ended. ``failed``
    holds the ends of the tasks that the scheduler failed at, also where no records are kept.
    """

    episode: int
    records: list[Record]
    decisions: list[DecisionRecord]
    outcomes: dict[int, Outcome]
    failed: tuple[Record, ...] = ()

    @property
    def counts(self) -> Counter[Outcome]:
        """Number of tasks by outcome."""
        return Counter(self.outcomes.values())

    @property
    def success_rate(self) -> float:
        """Share of the tasks that succeeded (paper eq. 9); NaN without a task."""
        if not self.outcomes:
            return float("nan")
        return self.counts[Outcome.SUCCEEDED] / len(self.outcomes)


def names() -> tuple[str, ...]:
    """All scheduler names the simulator knows: those of nodes, then its own."""
    return (*registry.names(), *_NETWORK_SCHEDULERS)


def describe(name: str) -> str:
    """One line about the scheduler ``name``.

    Raises:
        UsageError: unknown name.
    """
    network_scheduler = _NETWORK_SCHEDULERS.get(name)
    if network_scheduler is None:
        return registry.describe(name)
    return (network_scheduler.__doc__ or "").splitlines()[0]


class Simulation:
    """A plan under one scheduler; runs episodes, each with a fresh network.

    The schedulers live as long as the simulation, as they do on nodes. ``scheduler`` None takes
    the plan's, with its options. ``keep`` False keeps outcomes only.

    Raises:
        UsageError: unknown scheduler or option.
    """

    def __init__(
        self,
        plan: Plan,
        scheduler: SchedulerChoice | None = None,
        options: Mapping[str, object] | None = None,
        *,
        keep: bool = True,
    ) -> None:
        self.plan = plan
        self._keep = keep
        self._view = NetworkView(plan)
        self._schedulers = self._make_schedulers(*chosen(plan, scheduler, options))

    @property
    def scheduler_name(self) -> str:
        """Name of the scheduler in the task log."""
        return self._schedulers[0].name

    def episode(self, episode: int) -> EpisodeResult:
        """Run one episode; the same number gives the same result for stateless schedulers."""
        return _Episode(self.plan, self._schedulers, self._view, episode, self._keep).run()

    def _make_schedulers(
        self, scheduler: SchedulerChoice, options: Mapping[str, object]
    ) -> list[Scheduler]:
        plan = self.plan
        contexts = [
            SchedulerContext(
                node,
                plan.topology,
                plan.rules,
                plan.workload,
                plan.seeds.schedulers,
                dict(options),
                plan.artifacts_url,
            )
            for node in range(plan.topology.size)
        ]
        if isinstance(scheduler, str):
            network_scheduler = _NETWORK_SCHEDULERS.get(scheduler)
            if network_scheduler is not None:
                decider = network_scheduler(plan)
                return [Seat(decider, self._view) for _ in contexts]
            return [registry.create(scheduler, context) for context in contexts]
        return [scheduler(context) for context in contexts]


def simulate_episode(
    plan: Plan,
    episode: int,
    scheduler: SchedulerChoice | None = None,
    options: Mapping[str, object] | None = None,
) -> EpisodeResult:
    """Run one episode of ``plan`` with new schedulers.

    Raises:
        UsageError: unknown scheduler or option.
    """
    return Simulation(plan, scheduler, options).episode(episode)


def simulate(
    plan: Plan,
    scheduler: SchedulerChoice | None = None,
    episodes: int | None = None,
    first_episode: int = 0,
    options: Mapping[str, object] | None = None,
    *,
    keep: bool = True,
) -> Iterator[EpisodeResult]:
    """Run ``episodes`` episodes (None: as many as the plan says), one result at a time.

    Raises:
        UsageError: unknown scheduler or option; on the call, before the first episode.
    """
    simulation = Simulation(plan, scheduler, options, keep=keep)
    count = plan.episodes if episodes is None else episodes
    return (simulation.episode(episode) for episode in range(first_episode, first_episode + count))


class _Episode:
    """One episode under way."""

    def __init__(
        self, plan: Plan, schedulers: list[Scheduler], view: NetworkView, episode: int, keep: bool
    ) -> None:
        self._plan = plan
        self._episode = episode
        self._keep = keep
        self._timeline = plan.timeline(episode)
        node_of = FaultedNode if plan.faults or self._timeline else NodeState
        self._nodes = [
            node_of(node, plan.topology, plan.rules, plan.seeds.faults, episode, scheduler)
            for node, scheduler in enumerate(schedulers)
        ]
        view.attach(self._nodes)
        self._handle: list[Callable[[Any, Micros], list[Effect]]] = [
            node.handle for node in self._nodes
        ]
        self._heap: list[_Entry] = []
        self._sequence = 0
        self._records: list[Record] = []
        self._decisions: list[DecisionRecord] = []
        self._outcomes: dict[int, Outcome] = {}
        self._failed: list[Record] = []
        self._carry_out: dict[type, Callable[[int, Any, Micros], None]] = {
            DecisionRecord: self._log_decision,
            AskPeers: self._ask,
            TellPeers: self._tell,
            SetDeadline: self._set_deadline,
            StartExecution: self._start_execution,
            StartTransmission: self._start_transmission,
            AnnounceTransfer: self._announce,
            WithdrawTransfer: self._withdraw,
            HandOver: self._hand_over,
            StopExecution: self._ignore,
            ChangeExecution: self._change_execution,
            ChangeTransmission: self._change_transmission,
            ResumeDecision: self._resume_decision,
            AwaitTurn: self._await_turn,
        }
        for at, node, conditions in self._timeline.changes:
            self._push(at, _FAULT, node, 0, ConditionsChanged(conditions))
        self._periods = [gossip_period(scheduler) for scheduler in schedulers]
        for node, period in enumerate(self._periods):
            if period:
                self._push(0, _GOSSIP, node, 0, GossipDue())

    def run(self) -> EpisodeResult:
        with no_garbage_collection():
            return self._run()

    def _run(self) -> EpisodeResult:
        plan = self._plan
        workload = plan.workload
        slots = plan.tasks(self._episode, self._timeline)
        generated = 0
        for slot, tasks in enumerate(slots):
            generated += len(tasks)
            self._run_slot(slot, slot * workload.slot, tasks)
        self._run_until(NEVER, 0, 0)
        if len(self._outcomes) != generated:
            raise PermanentError(
                f"episode {self._episode}: {generated - len(self._outcomes)} of {generated} tasks "
                "never ended; this is a defect of the simulator"
            )
        return EpisodeResult(
            self._episode, self._records, self._decisions, self._outcomes, tuple(self._failed)
        )

    def _run_slot(self, slot: int, now: Micros, tasks: Iterable[Task]) -> None:
        """Bring the tasks of a slot to their nodes, in the nodes' order."""
        arriving = {task.source: task for task in tasks}
        log_idle = self._plan.log_idle_slots
        idle = SlotIdle(self._episode, slot)
        heap = self._heap
        for node, handle in enumerate(self._handle):
            if heap and heap[0] < (now, _ARRIVAL, node):
                self._run_until(now, _ARRIVAL, node)
            task = arriving.get(node)
            if task is not None:
                try:
                    effects = handle(TaskArrived(task), now)
                except SchedulerFailed as failed:
                    effects = handle(DecisionBroken(task.id, failed.reason), now)
                self._apply(node, effects, now)
            elif log_idle:
                self._apply(node, handle(idle, now), now)

    def _run_until(self, time: Micros, phase: int, node: int) -> None:
        """Handle everything whose key comes before (``time``, ``phase``, ``node``)."""
        heap = self._heap
        handle = self._handle
        apply = self._apply
        limit = (time, phase, node)
        ended = self._outcomes
        while heap and heap[0] < limit:
            now, phase, where, task_id, _, event = heappop(heap)
            if phase == _DEADLINE:
                # Most tasks have ended by then; their node would ignore it.
                if task_id in ended:
                    continue
                event = DeadlinePassed(task_id)
            elif type(event) is AskPeers:
                self._evaluate(where, event, now)
                continue
            elif phase == _GOSSIP:
                self._push_gossip(where, now)
            try:
                effects = handle[where](event, now)
            except SchedulerFailed as failed:
                effects = handle[where](DecisionBroken(task_id, failed.reason), now)
            if effects:
                apply(where, effects, now)

    def _push(self, time: Micros, phase: int, node: int, task_id: int, event: object) -> None:
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (time, phase, node, task_id, sequence, event))

    # --- effects ------------------------------------------------------------------------------

    def _apply(self, node: int, effects: list[Effect], now: Micros) -> None:
        """Carry out what ``node`` asked for."""
        keep = self._records if self._keep else None
        for effect in effects:
            if type(effect) is Record:
                if keep is not None:
                    keep.append(effect)
                if effect.kind is RecordKind.ENDED:
                    self._outcomes[effect.task.id] = _OUTCOMES[effect.data["outcome"]]
                    if "reason" in effect.data:
                        self._failed.append(effect)
            else:
                self._carry_out[type(effect)](node, effect, now)

    def _log_decision(self, node: int, effect: DecisionRecord, now: Micros) -> None:
        if self._keep:
            self._decisions.append(effect)

    def _ask(self, node: int, effect: AskPeers, now: Micros) -> None:
        rules = self._plan.rules
        task_id, round_ = effect.task_id, effect.round
        for (there, back), peers in rules.trips(node, effect.peers).items():
            if there + back > rules.probe_timeout:
                when = now + rules.probe_timeout
                silent = PeersSilent(task_id, round_, peers)
                self._push(when, _ANSWERS + 2 * round_, node, task_id, silent)
            else:
                together = effect._replace(peers=peers)
                self._push(now + there, _PROBES + 2 * round_, node, task_id, together)

    def _evaluate(self, node: int, effect: AskPeers, now: Micros) -> None:
        """Take the state of peers that were asked, all at the same distance; they answer later."""
        nodes = self._nodes
        ((there, back),) = self._plan.rules.trips(node, effect.peers)
        asked, answered = now - there, now + back
        asked_peers = peers = effect.peers
        if self._timeline:
            scene = self._timeline.scene(now)
            peers = tuple(peer for peer in asked_peers if scene.answers(node, peer))
        if effect.states_of:
            answers = [
                Answer(peer, state.overloaded, told, asked, answered)
                for peer in peers
                for state in [nodes[peer].peer_state(now)]
                for told in [None if effect.bit_only(peer) else state]
            ]
        elif effect.bits_only:
            answers = [
                Answer(peer, nodes[peer].overloaded(now), None, asked, answered) for peer in peers
            ]
        else:
            states = [(peer, nodes[peer].peer_state(now)) for peer in peers]
            answers = [
                Answer(peer, state.overloaded, state, asked, answered) for peer, state in states
            ]
        if len(answers) < len(asked_peers):
            silent = PeersSilent(effect.task_id, effect.round)
            over = asked + self._plan.rules.probe_timeout
            self._push(over, _ANSWERS + 2 * effect.round, node, effect.task_id, silent)
        event = PeersAnswered(effect.task_id, effect.round, tuple(answers))
        self._push(answered, _ANSWERS + 2 * effect.round, node, effect.task_id, event)

    def _push_gossip(self, node: int, now: Micros) -> None:
        """Let a node tell its state once more after a period, unless all slots are over then."""
        following = now + self._periods[node]
        if following < self._plan.workload.slots * self._plan.workload.slot:
            self._push(following, _GOSSIP, node, 0, GossipDue())

    def _tell(self, node: int, effect: TellPeers, now: Micros) -> None:
        scene = self._timeline.scene(now) if self._timeline else None
        rules, event = self._plan.rules, StateHeard(node, effect.state)
        for peer in range(len(self._nodes)):
            if peer != node and (scene is None or scene.passes(node, peer)):
                self._push(now + rules.delay(node, peer), _HEARD, peer, 0, event)

    def _set_deadline(self, node: int, effect: SetDeadline, now: Micros) -> None:
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (effect.at, _DEADLINE, node, effect.task_id, sequence, None))

    def _start_execution(self, node: int, effect: StartExecution, now: Micros) -> None:
        task_id, fails_after = effect.task.id, effect.fails_after
        failed = fails_after is not None
        after = effect.duration if fails_after is None else fails_after
        self._push(now + after, _EXECUTION_ENDED, node, task_id, ExecutionEnded(task_id, failed))

    def _change_execution(self, node: int, effect: ChangeExecution, now: Micros) -> None:
        # The end planned before stays in the heap; the node ignores it.
        task_id, fails_after = effect.task.id, effect.fails_after
        after = effect.duration if fails_after is None else fails_after
        event = ExecutionEnded(task_id, fails_after is not None, effect.revision)
        self._push(now + after, _EXECUTION_ENDED, node, task_id, event)

    def _start_transmission(self, node: int, effect: StartTransmission, now: Micros) -> None:
        task_id, fails_after = effect.task.id, effect.fails_after
        failed = fails_after is not None
        after = effect.duration if fails_after is None else fails_after
        event = TransmissionEnded(effect.peer, task_id, failed)
        self._push(now + after, _TRANSMISSION_ENDED, node, task_id, event)

    def _change_transmission(self, node: int, effect: ChangeTransmission, now: Micros) -> None:
        task_id, fails_after = effect.task.id, effect.fails_after
        after = effect.duration if fails_after is None else fails_after
        event = TransmissionEnded(effect.peer, task_id, fails_after is not None, effect.revision)
        self._push(now + after, _TRANSMISSION_ENDED, node, task_id, event)

    def _resume_decision(self, node: int, effect: ResumeDecision, now: Micros) -> None:
        self._push(now, _ARRIVAL, node, effect.task_id, DecisionDue(effect.task_id))

    def _await_turn(self, node: int, effect: AwaitTurn, now: Micros) -> None:
        self._push(effect.at, _ARRIVAL, node, effect.task_id, DecisionDue(effect.task_id))

    def _announce(self, node: int, effect: AnnounceTransfer, now: Micros) -> None:
        when = now + self._plan.rules.delay(node, effect.peer)
        event = TransferAnnounced(effect.task, node)
        self._push(when, _CONTROL, effect.peer, effect.task.id, event)

    def _withdraw(self, node: int, effect: WithdrawTransfer, now: Micros) -> None:
        if not effect.tell:
            return
        # The end of the transmission stays in the heap; the node ignores it.
        when = now + self._plan.rules.delay(node, effect.peer)
        event = TransferWithdrawn(effect.task_id, node)
        self._push(when, _CONTROL, effect.peer, effect.task_id, event)

    def _hand_over(self, node: int, effect: HandOver, now: Micros) -> None:
        event = TransferArrived(effect.task, node, effect.elapsed, effect.seq)
        self._apply(effect.peer, self._handle[effect.peer](event, now), now)

    def _ignore(self, node: int, effect: StopExecution, now: Micros) -> None:
        """The end of the execution stays in the heap; the node ignores it."""
