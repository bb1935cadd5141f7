"""The per-destination encoders: one row of features for every node a task could go to.

A network that scores rows fits any number of nodes, and rows without units fit any scenario: times
are divided by the deadline, amounts by the scenario's maxima. Everything in a row is known to the
node that decides: static facts, its own state, and what the peers answered that it asked: their
overload bits (``per-destination-v1``), their states (``per-destination-v2``, the columns of the
former and more), or states that may be old or unknown (``per-destination-v3``, one column more).
The compiled engine computes the same rows (``testbed.sim.engine.features``).
docs/per-destination.md describes each column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from testbed.model.decision import Observation
from testbed.model.scarcity import mean_cycles
from testbed.model.task import Task
from testbed.model.topology import OverloadMeasure, Rules, Topology
from testbed.model.units import SECOND, Micros
from testbed.model.workload import Workload

NAME: Final = "per-destination-v1"
STATE_NAME: Final = "per-destination-v2"
HEARD_NAME: Final = "per-destination-v3"

COLUMNS: Final = (
    "own",
    "size",
    "cycles",
    "transmission",
    "send_backlog",
    "execution",
    "slack",
    "exposure",
    "failure_rate",
    "capacity",
    "own_backlog",
    "own_capacity",
    "own_failure_rate",
    "own_arrival",
    "overloaded",
    "overloaded_share",
    "in_time",
    "unmasked",
    "overloaded_trend",
    "own_load",
    "mean_execution",
    "overload_limit",
)
"""Names of the columns of a row of ``per-destination-v1``, in order."""

STATE_COLUMNS: Final = (
    "known",
    "backlog",
    "known_slack",
    "known_in_time",
    "sending_work",
    "age",
)
"""Names of the further columns of ``per-destination-v2``; 0 where the state of j is not known, but
for ``sending_work``, which the own node always knows."""

HEARD_COLUMNS: Final = ("sent_since",)
"""Names of the further columns of ``per-destination-v3``."""

COLUMNS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    NAME: COLUMNS,
    STATE_NAME: (*COLUMNS, *STATE_COLUMNS),
    HEARD_NAME: (*COLUMNS, *STATE_COLUMNS, *HEARD_COLUMNS),
}
"""Names of the columns by encoder."""

OLDEST: Final = 2
"""Deadlines after which ``per-destination-v3`` takes no notice of a state that was heard."""

_Queue: TypeAlias = tuple[float, float, float] | None
"""Backlog of a node with the work on its way to it, the age of that, and the work that the own node
has sent there since, in seconds."""

TREND_DECAY: Final = 0.9
"""Factor per slot by which the moving average of the overloaded share forgets."""


class PerDestinationEncoder:
    """Turns observations of one node into rows; keeps what it has seen and done in one episode.

    ``name`` is one of ``COLUMNS_OF``.
    """

    def __init__(
        self,
        node: int,
        topology: Topology,
        rules: Rules,
        workload: Workload,
        name: str = NAME,
    ) -> None:
        capacity = topology.capacity_hz
        self.name = name
        self.columns = COLUMNS_OF[name]
        self._with_states = name != NAME
        self._ages = name == HEARD_NAME
        # How long before the state of a node was heard the latest decision was made that it may
        # know of: the announcement takes the delay there, and the state that of the way back.
        self._unheard = [
            rules.delay(node, peer) + rules.delay(peer, node) for peer in range(len(capacity))
        ]
        self._sent: list[list[tuple[Micros, float]]] = [[] for _ in capacity]
        self._node = node
        self._topology = topology
        self._max_size = workload.size_bytes.maximum
        self._max_cycles = 8.0 * workload.size_bytes.maximum * workload.complexity.maximum
        self._share = [hz / sum(capacity) for hz in capacity]
        cycles = mean_cycles(workload)
        self._mean_execution = [cycles / hz for hz in capacity]
        self._overload = overload = rules.overload
        by_backlog = overload.measure is OverloadMeasure.BACKLOG
        self._limit = [
            limit / SECOND if by_backlog else limit * execution
            for limit, execution in zip(
                map(overload.limit_for, topology.cores), self._mean_execution, strict=True
            )
        ]
        arrival = topology.arrival_probability[node]
        load = arrival * self._mean_execution[node] / (workload.slot / SECOND)
        self._own_load = load / (1.0 + load)
        self._arrival = arrival
        self._relative_capacity = [hz / max(capacity) for hz in capacity]
        # Floats, because Python divides them faster than whole numbers.
        self._of_node = [
            (1.0 if j == node else 0.0, float(hz), failure, float(rate), link_failure)
            for j, (hz, failure, rate, link_failure) in enumerate(
                zip(
                    capacity,
                    topology.execution_failure_rate,
                    topology.link_rate[node],
                    topology.link_failure_rate[node],
                    strict=True,
                )
            )
        ]
        self._unknown: list[_Queue] = [None] * len(capacity)
        self._nothing_sent: tuple[Micros, ...] = (0,) * len(capacity)
        self._deadline = -1.0
        self._by_deadline: list[tuple[float, float, float, float]] = []
        self._trend = 0.0
        self._trend_slot = -1
        self._episode = -1

    def rows(
        self, observation: Observation, task: Task, mask: Sequence[bool]
    ) -> list[tuple[float, ...]]:
        """Return the rows [N, F] for ``task`` under ``mask`` [N] (True: not overloaded).

        Call once per decision, in the order of the decisions: each call moves the average. The
        own entry of ``mask`` is True, because the own node is always allowed; whether it is
        nevertheless overloaded is read from the observation.
        """
        flat, width = self.flat(observation, task, mask), len(self.columns)
        return [tuple(flat[at : at + width]) for at in range(0, len(flat), width)]

    def flat(self, observation: Observation, task: Task, mask: Sequence[bool]) -> list[float]:
        """Return the numbers of ``rows`` [N * F], row by row."""
        self._enter(observation.episode)
        topology, node = self._topology, self._node
        deadline = task.deadline / SECOND
        backlog = observation.backlog / SECOND
        bits = [0.0 if free else 1.0 for free in mask]
        unmasked = len(bits) - sum(bits)
        if self._overload.holds(
            cores=topology.cores[node],
            queue_length=observation.queue_length,
            backlog=observation.backlog,
        ):
            bits[node] = 1.0
        share = 0.0
        for bit, part in zip(bits, self._share, strict=True):
            share += bit * part
        trend = self._moved(task.slot, share)
        size = task.size_bytes / self._max_size
        cycles = task.cycles / self._max_cycles
        own_backlog = min(backlog / deadline, 1.5)
        own_failure = min(2.5 * topology.execution_failure_rate[node] * deadline, 4.0)
        own_capacity = self._relative_capacity[node]
        free_share = math.log(unmasked + 1.0) / 3.0
        arrival, own_load = self._arrival, self._own_load
        if deadline != self._deadline:
            self._deadline, self._by_deadline = deadline, self._constants(deadline)
        with_states, with_ages = self._with_states, self._ages
        queues = self._unknown
        if with_states:
            queues = self._expected(observation, task) if with_ages else self._queues(observation)
        size_bytes, needed = float(task.size_bytes), float(task.cycles)
        numbers: list[float] = []
        # Comparisons instead of min and max, whose calls would take most of the time.
        of_each = zip(
            self._of_node,
            self._by_deadline,
            observation.send_backlog,
            observation.sending_work or self._nothing_sent,
            bits,
            queues,
            strict=True,
        )
        for of_node, of_deadline, sent, sent_work, bit, queue in of_each:
            own, hz, failure, rate, link_failure = of_node
            failure_rate, capacity, mean_execution, limit = of_deadline
            execution = needed / hz
            exposure = failure * (execution if execution < deadline else deadline)
            if own:
                wait, transmission, sending = backlog, 0.0, 0.0
            else:
                transmission = size_bytes / rate
                wait = sending = sent / SECOND
                exposure += link_failure * transmission
            slack = (deadline - wait - transmission - execution) / deadline
            arrival_after, works_for = sending + transmission, execution
            transmission /= deadline
            sending /= deadline
            execution /= deadline
            exposure *= 4.0
            numbers += (
                own,
                size,
                cycles,
                transmission if transmission < 3.0 else 3.0,
                sending if sending < 3.0 else 3.0,
                execution if execution < 3.0 else 3.0,
                slack if slack > -2.0 else -2.0,
                exposure if exposure < 4.0 else 4.0,
                failure_rate,
                capacity,
                own_backlog,
                own_capacity,
                own_failure,
                arrival,
                bit,
                share,
                1.0 if slack > 0.0 else 0.0,
                free_share,
                trend,
                own_load,
                mean_execution,
                limit,
            )
            if not with_states:
                continue
            work = sent_work / SECOND / deadline
            work = work if work < 2.0 else 2.0
            if queue is None:
                numbers += (0.0, 0.0, 0.0, 0.0, work, 0.0)
            else:
                queued, age, since = queue
                longer = queued if queued > arrival_after else arrival_after
                slack = (deadline - longer - works_for) / deadline
                queued /= deadline
                age /= deadline
                numbers += (
                    1.0,
                    queued if queued < 2.0 else 2.0,
                    slack if slack > -2.0 else -2.0,
                    1.0 if slack > 0.0 else 0.0,
                    work,
                    age if age < 2.0 else 2.0,
                )
            if with_ages:
                # Known only for a known queue.
                numbers.append(0.0 if queue is None else min(since / deadline, 2.0))
        return numbers

    def decided(self, destination: int, task: Task, observation: Observation) -> None:
        """Note where the task of ``observation`` goes; call once after each decision.

        ``per-destination-v3`` adds the work to the queue of that node until its next state.
        """
        if self._ages and destination != self._node:
            self._enter(observation.episode)
            work = task.cycles / self._topology.capacity_hz[destination]
            self._sent[destination].append((observation.now, work))

    def _queues(self, observation: Observation) -> list[_Queue]:
        """Return what is known of the execution queue of each node [N]."""
        now = observation.now
        queues: list[_Queue] = [
            None
            if heard is None
            # Its age by the own clock: when it came, for the peer's clock is another one.
            else (
                (heard[0].backlog + heard[0].inbound_work) / SECOND,
                (now - heard[1]) / SECOND,
                0.0,
            )
            for heard in observation.known
        ]
        queues[self._node] = _own(observation)
        return queues

    def _expected(self, observation: Observation, task: Task) -> list[_Queue]:
        """Return the queue that each node [N] will have by now, as far as this node can know.

        What was heard is worked off since, and what the own node has sent there since is added.
        """
        now, oldest = observation.now, OLDEST * task.deadline
        queues: list[_Queue] = [None] * len(observation.known)
        for j, heard in enumerate(observation.known):
            if heard is None or now - heard[1] > oldest:
                continue
            state, at = heard
            queued, then, since = (state.backlog + state.inbound_work) / SECOND, at, 0.0
            sent = self._sent[j]
            while sent and sent[0][0] <= at - self._unheard[j]:
                del sent[0]
            for sent_at, work in sent:
                later = max(sent_at, then)
                queued = max(queued - (later - then) / SECOND, 0.0) + work
                then = later
                since += work
            queued = max(queued - (now - then) / SECOND, 0.0)
            queues[j] = (queued, (now - at) / SECOND, since)
        queues[self._node] = _own(observation)
        return queues

    def _constants(self, deadline: float) -> list[tuple[float, float, float, float]]:
        """Return what depends on the node [N] and on the deadline of a task only."""
        return [
            (
                min(2.5 * failure * deadline, 4.0),
                capacity,
                min(mean_execution / deadline, 3.0),
                min(limit / deadline, 3.0),
            )
            for failure, capacity, mean_execution, limit in zip(
                self._topology.execution_failure_rate,
                self._relative_capacity,
                self._mean_execution,
                self._limit,
                strict=True,
            )
        ]

    def _enter(self, episode: int) -> None:
        """Forget what was kept of another episode."""
        if episode != self._episode:
            self._episode, self._trend, self._trend_slot = episode, 0.0, -1
            self._sent = [[] for _ in self._sent]

    def _moved(self, slot: int, share: float) -> float:
        """Return the moving average after this node has seen ``share`` in ``slot``."""
        # Answers of peers may come in so late that a later slot was decided first.
        kept = TREND_DECAY ** max(0, slot - self._trend_slot)
        self._trend = kept * self._trend + (1.0 - kept) * share
        self._trend_slot = max(slot, self._trend_slot)
        return self._trend


def _own(observation: Observation) -> _Queue:
    return (observation.backlog + observation.inbound_work) / SECOND, 0.0, 0.0
