"""The network: nodes, links, and the rules that every node follows (model section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

from testbed.model.later import later
from testbed.model.task import Task
from testbed.model.units import MILLISECOND, Micros, duration


class OverloadMeasure(StrEnum):
    """The quantity that is compared with the limit to call a node overloaded."""

    QUEUE_LENGTH = "queue_length"
    """Tasks waiting and running."""
    QUEUE_LENGTH_PER_4_CORES = "queue_length_per_4_cores"
    """The same, with a limit for every four cores of the node."""
    BACKLOG = "backlog"
    """Time, in microseconds, until the execution queue would be empty."""


@dataclass(frozen=True, slots=True)
class Overload:
    """A node is overloaded when its ``measure`` has reached ``limit`` (model section 6)."""

    measure: OverloadMeasure
    limit: int

    def limit_for(self, cores: int) -> int:
        """Return the limit that holds for a node with ``cores`` cores; at least 1."""
        if self.measure is OverloadMeasure.QUEUE_LENGTH_PER_4_CORES:
            return max(1, self.limit * cores // 4)
        return self.limit

    def holds(self, *, cores: int, queue_length: int, backlog: Micros) -> bool:
        """Return whether a node in this state is overloaded."""
        measured = backlog if self.measure is OverloadMeasure.BACKLOG else queue_length
        return measured >= self.limit_for(cores)


LinkDelays: TypeAlias = tuple[tuple[Micros, ...], ...]
"""Time of a control message over each link ``[i][j]``, from i to j; 0 on the diagonal."""


def usual_stagger(control_delay: Micros) -> Micros:
    """Return the time between turns if control messages take ``control_delay`` at most.

    A question and its answer, and as much more as the announcement of what was decided needs to be
    there before the next node's question is answered.
    """
    return 2 * control_delay + 1


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that hold for every node of a run.

    ``execution_queue_limit`` counts waiting tasks without the running one; None is unbounded.
    ``control_delay`` is the one-way time of a control message (probe, answer, announcement), on
    the slowest link where ``link_delays`` are given, None where it is the same on all links.
    ``probe_timeout`` is how long a decision waits for answers; peers silent till then count as
    not answering. ``stagger`` is the order within a slot: node i begins to decide i times as long
    after its task arrived; 0 lets all nodes decide at once. ``reject`` allows to refuse tasks.
    """

    overload: Overload
    drop_hopeless: bool = True
    execution_queue_limit: int | None = None
    control_delay: Micros = 0
    probe_timeout: Micros = 250 * MILLISECOND
    stagger: int = later(0)
    reject: bool = later(False)
    link_delays: tuple[tuple[Micros, ...], ...] | None = later(None)

    def delay(self, source: int, destination: int) -> Micros:
        """Return the one-way time of a control message from ``source`` to ``destination``."""
        if self.link_delays is None:
            return self.control_delay
        return self.link_delays[source][destination]

    def trips(
        self, node: int, peers: tuple[int, ...]
    ) -> Mapping[tuple[Micros, Micros], tuple[int, ...]]:
        """Return ``peers`` by the times that a question of ``node`` and its answer take.

        Peers with equal times are together, in the order given.
        """
        if self.link_delays is None:
            return {(self.control_delay, self.control_delay): peers}
        found: dict[tuple[Micros, Micros], tuple[int, ...]] = {}
        for peer in peers:
            trip = self.delay(node, peer), self.delay(peer, node)
            found[trip] = (*found.get(trip, ()), peer)
        return found

    def turn(self, node: int) -> Micros:
        """Return how long after the beginning of a slot ``node`` begins to decide."""
        return node * self.stagger


@dataclass(frozen=True)
class Topology:
    """N nodes and their directed links; index i is the node, ``[i][j]`` the link from i to j.

    The diagonal of the link matrices is unused and 0: a node has no link to itself.
    Capacities are in cycles per second, link rates in bytes per second, failure rates in 1/s.
    """

    cores: tuple[int, ...]
    capacity_hz: tuple[int, ...]
    arrival_probability: tuple[float, ...]
    execution_failure_rate: tuple[float, ...]
    link_rate: tuple[tuple[int, ...], ...]
    link_failure_rate: tuple[tuple[float, ...], ...]

    @cached_property
    def size(self) -> int:
        """N, the number of nodes."""
        return len(self.capacity_hz)

    def execution_time(self, task: Task, node: int) -> Micros:
        """``c / F_j`` (paper eq. 1)."""
        return duration(task.cycles, self.capacity_hz[node])

    def transmission_time(self, task: Task, source: int, destination: int) -> Micros:
        """``s / r_ij`` (paper eq. 2); 0 from a node to itself."""
        if source == destination:
            return 0
        return duration(task.size_bytes, self.link_rate[source][destination])
