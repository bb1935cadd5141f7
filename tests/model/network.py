"""A third driver of the model, made for tests: small, slow, and checking as it goes.

It keeps a heap of its own, so a mistake in the simulator cannot hide one in the model. At the
same instant ends come before deadlines (finishing exactly in time is in time) and these before all
else, which is delivered in the order in which it was caused.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence

from testbed.model.decision import Answer, Ask, Decision, Observation, Scheduler
from testbed.model.events import (
    AnnounceTransfer,
    AskPeers,
    AwaitTurn,
    DeadlinePassed,
    DecisionDue,
    DecisionRecord,
    Effect,
    Event,
    ExecutionEnded,
    HandOver,
    PeersAnswered,
    Record,
    SetDeadline,
    StartExecution,
    StartTransmission,
    StopExecution,
    TaskArrived,
    TransferAnnounced,
    TransferArrived,
    TransferWithdrawn,
    TransmissionEnded,
    WithdrawTransfer,
)
from testbed.model.node import NodeState
from testbed.model.task import Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import Micros

_PHASES: dict[type, int] = {
    ExecutionEnded: 0,
    TransmissionEnded: 1,
    TransferArrived: 1,
    DeadlinePassed: 2,
}

Placement = Callable[[Observation], Decision | Ask]


class Placed:
    """A scheduler that does what a function says."""

    name = "placed"

    def __init__(self, place: Placement) -> None:
        self._place = place

    def decide(self, observation: Observation) -> Decision | Ask:
        return self._place(observation)


def always(destination: int) -> Scheduler:
    return Placed(lambda _: Decision(destination))


def topology(
    capacity_hz: Sequence[int],
    link_rate: int = 1_000_000,
    *,
    alpha: float = 0.0,
    beta: float = 0.0,
) -> Topology:
    """Nodes of these capacities (cycles/s), all links of one rate (bytes/s)."""
    n = len(capacity_hz)
    return Topology(
        cores=(1,) * n,
        capacity_hz=tuple(capacity_hz),
        arrival_probability=(1.0,) * n,
        execution_failure_rate=(alpha,) * n,
        link_rate=tuple(tuple(0 if i == j else link_rate for j in range(n)) for i in range(n)),
        link_failure_rate=tuple(tuple(0.0 if i == j else beta for j in range(n)) for i in range(n)),
    )


def rules(
    *, drop_hopeless: bool = True, limit: int | None = None, control_delay: Micros = 0
) -> Rules:
    return Rules(
        Overload(OverloadMeasure.QUEUE_LENGTH, 2),
        drop_hopeless=drop_hopeless,
        execution_queue_limit=limit,
        control_delay=control_delay,
    )


def task(
    task_id: int,
    *,
    source: int = 0,
    size_bytes: int = 1000,
    cycles: int = 1000,
    deadline: Micros = 10_000_000,
) -> Task:
    return Task(task_id, 0, 0, source, size_bytes, cycles, deadline)


class Network:
    """All nodes of a topology, driven until nothing happens any more."""

    def __init__(
        self,
        topology: Topology,
        rules: Rules,
        schedulers: Sequence[Scheduler],
        *,
        faults_seed: int = 0,
    ) -> None:
        self.topology = topology
        self.rules = rules
        self.nodes = [
            NodeState(i, topology, rules, faults_seed, 0, scheduler)
            for i, scheduler in enumerate(schedulers)
        ]
        self.records: list[Record] = []
        self.decisions: list[DecisionRecord] = []
        self.executing: Counter[int] = Counter()
        self._stopped: set[tuple[int, int, str]] = set()
        self._heap: list[tuple[Micros, int, int, int, Event | AskPeers]] = []
        self._count = 0

    def at(self, when: Micros, node: int, event: Event | AskPeers) -> None:
        self._count += 1
        phase = _PHASES.get(type(event), 3)
        heapq.heappush(self._heap, (when, phase, self._count, node, event))

    def arrive(self, when: Micros, arriving: Task) -> None:
        self.at(when, arriving.source, TaskArrived(arriving))

    def run(self, until: Micros | None = None) -> list[Record]:
        """Drive until the heap is empty, or as far as comes before ``until``.

        Returns all records in the order they were made.
        """
        while self._heap:
            if until is not None and self._heap[0][0] >= until:
                return self.records
            now, _, _, node, event = heapq.heappop(self._heap)
            if isinstance(event, AskPeers):
                self._answer(node, event, now)
                continue
            if isinstance(event, ExecutionEnded):
                if (node, event.task_id, "execution") in self._stopped:
                    continue
                self.executing[node] -= 1
            if isinstance(event, TransmissionEnded) and (
                (node, event.task_id, "transmission") in self._stopped
            ):
                continue
            for effect in self.nodes[node].handle(event, now):
                self._carry_out(node, effect, now)
            assert self.executing[node] <= 1, "a node executes two tasks at once"
            self._check_work_conservation(node, now)
        assert not any(node.held for node in self.nodes), "a task was left over"
        return self.records

    def outcome(self, task_id: int) -> str:
        return str(self.ended(task_id).data["outcome"])

    def ended(self, task_id: int) -> Record:
        (record,) = [r for r in self.records if r.kind == "ended" and r.task.id == task_id]
        return record

    def _answer(self, node: int, ask: AskPeers, now: Micros) -> None:
        delay = self.rules.control_delay
        answers = []
        for peer in ask.peers:
            state = self.nodes[peer].peer_state(now)
            answers.append(
                Answer(
                    peer,
                    state.overloaded,
                    None if ask.bit_only(peer) else state,
                    now - delay,
                    now + delay,
                )
            )
        self.at(now + delay, node, PeersAnswered(ask.task_id, ask.round, tuple(answers)))

    def _check_work_conservation(self, node: int, now: Micros) -> None:
        state = self.nodes[node]
        assert (state.queue_length > 0) == (self.executing[node] > 0), (
            f"node {node} idles at {now} with {state.queue_length} tasks in its queue"
        )

    def _carry_out(self, node: int, effect: Effect, now: Micros) -> None:
        delay = self.rules.control_delay
        match effect:
            case Record():
                self.records.append(effect)
            case DecisionRecord():
                self.decisions.append(effect)
            case AskPeers():
                self.at(now + delay, node, effect)
            case AwaitTurn(when, task_id):
                self.at(when, node, DecisionDue(task_id))
            case SetDeadline(when, task_id):
                self.at(when, node, DeadlinePassed(task_id))
            case StartTransmission(peer, sent, _, duration, fails_after):
                ends = duration if fails_after is None else fails_after
                self.at(now + ends, node, TransmissionEnded(peer, sent.id, fails_after is not None))
            case AnnounceTransfer(peer, sent):
                self.at(now + delay, peer, TransferAnnounced(sent, node))
            case WithdrawTransfer(peer, task_id):
                self._stopped.add((node, task_id, "transmission"))
                self.at(now + delay, peer, TransferWithdrawn(task_id, node))
            case HandOver(peer, sent, elapsed, seq):
                self.at(now, peer, TransferArrived(sent, node, elapsed, seq))
            case StartExecution(executed, _, duration, fails_after):
                self.executing[node] += 1
                ends = duration if fails_after is None else fails_after
                self.at(now + ends, node, ExecutionEnded(executed.id, fails_after is not None))
            case StopExecution(task_id):
                self._stopped.add((node, task_id, "execution"))
                self.executing[node] -= 1
