"""A node's estimates about a destination: completion time and reliability (model section 5).

The estimates use static facts (capacities, rates, failure rates), which every node knows, the own
state from the observation, and backlogs that peers answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from testbed.model.decision import Observation, SchedulerContext
from testbed.model.task import Task
from testbed.model.units import SECOND, Micros


class Candidate(NamedTuple):
    """A possible destination.

    ``completion`` is the estimated time from now until the task is done, ``exposure`` the expected
    number of failures on the way: reliability is ``exp(-exposure)``, so less is more reliable.
    """

    destination: int
    completion: Micros
    exposure: float


class Estimator:
    """Estimates of one node about where its tasks could go."""

    def __init__(self, context: SchedulerContext) -> None:
        topology = context.topology
        self._node = context.node
        self._capacity_hz = topology.capacity_hz
        self._execution_failure_rate = topology.execution_failure_rate
        self._link_rate = topology.link_rate[context.node]
        self._link_failure_rate = topology.link_failure_rate[context.node]

    def candidate(
        self, observation: Observation, task: Task, destination: int, backlog: Micros
    ) -> Candidate:
        """``destination`` with ``backlog`` on its execution queue.

        Completion is the sum of paper eq. 7: waiting for the link, transmission, ``backlog`` and
        execution; the first two are 0 for the own node. The backlog is taken as it was told, not
        reduced by the time the transfer will take, because other tasks may come in meanwhile.
        Reliability is the product of paper eq. 4 and 5.
        """
        # Same as Topology.execution_time and transmission_time; inlined, this is the hot path.
        capacity_hz = self._capacity_hz[destination]
        execution = (2 * SECOND * task.cycles + capacity_hz) // (2 * capacity_hz)
        exposure = self._execution_failure_rate[destination] * execution
        completion = backlog + execution
        if destination != self._node:
            rate = self._link_rate[destination]
            transmission = (2 * SECOND * task.size_bytes + rate) // (2 * rate)
            exposure += self._link_failure_rate[destination] * transmission
            completion += observation.send_backlog[destination] + transmission
        return Candidate(destination, completion, exposure / SECOND)

    def own(self, observation: Observation, task: Task) -> Candidate:
        """Return the own node in its present state; known without a probe."""
        return self.candidate(observation, task, self._node, observation.backlog)


def time_left(observation: Observation, task: Task, turn: Micros = 0) -> Micros:
    """Return the time until the deadline of ``task``, negative when it is over.

    Asking takes time; the first question was asked the moment the task arrived, or ``turn`` later
    where nodes take turns (``Rules.turn``).
    """
    left = task.deadline - turn
    if observation.answers:
        return left - (observation.now - observation.answers[0].asked)
    return left


def faster(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the smallest completion estimate; the first of equals."""
    return min(candidates, key=_completion)


def more_reliable_or_faster(candidates: Sequence[Candidate], left: Micros) -> Candidate:
    """The rule of RATC (paper section V-B): if all are in time the most reliable, else the fastest.

    Of equally reliable ones the faster, of equals the first.
    """
    for candidate in candidates:
        if candidate.completion > left:
            return min(candidates, key=_completion)
    return min(candidates, key=_exposure)


def _completion(candidate: Candidate) -> Micros:
    return candidate.completion


def _exposure(candidate: Candidate) -> tuple[float, Micros]:
    return candidate.exposure, candidate.completion
