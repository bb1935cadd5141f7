"""State and rates of every node and link at one instant, which faults change.

Rates are integer millionths of the configured rate (``FULL``), so that what is left of a piece of
work is an integer in every driver. Faults that overlap combine: factors multiply, failure rates
add, and what one of them cuts is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

FULL: Final = 1_000_000
"""The configured rate."""

_LARGEST: Final = 1_000 * FULL


class State(IntEnum):
    """Whether a node works; of several faults the largest holds."""

    UP = 0
    HUNG = 1
    """Stands still: keeps what it has, answers nothing."""
    KILLED = 2
    """Has lost what it had; answers nothing."""


class LinkConditions(NamedTuple):
    """The state of one directed link under faults, seen from its sender.

    ``rate`` is in millionths of the configured rate, 0 for a link on which nothing moves.
    ``failures`` is added to its failure rate, 1/s. ``restart`` says that the receiver has lost what
    it had received.
    """

    rate: int = FULL
    failures: float = 0.0
    restart: bool = False


class Conditions(NamedTuple):
    """The state of one node under faults; ``links`` has its links that are not as configured.

    ``execution_rate`` in millionths of the configured rate; ``execution_failures`` is added to the
    execution failure rate, 1/s.
    """

    state: State = State.UP
    execution_rate: int = FULL
    execution_failures: float = 0.0
    links: Mapping[int, LinkConditions] = {}


NORMAL: Final = Conditions()
NORMAL_LINK: Final = LinkConditions()


class Scene:
    """The whole network at one instant, as the active faults leave it.

    Kinds of faults change it with the methods below and with nothing else.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._states: dict[int, State] = {}
        self._execution_rates: dict[int, int] = {}
        self._execution_failures: dict[int, float] = {}
        self._link_rates: dict[tuple[int, int], int] = {}
        self._link_failures: dict[tuple[int, int], float] = {}
        self._cut: set[tuple[int, int]] = set()
        self._arrivals: dict[int, float] = {}

    # --- for kinds of faults ------------------------------------------------------------------

    def stop(self, node: int, state: State) -> None:
        """Take a node down; nothing moves on its links."""
        self._states[node] = max(state, self.state(node))

    def slow_node(self, node: int, factor: float) -> None:
        """Multiply the execution rate of a node."""
        self._execution_rates[node] = _times(self._execution_rates.get(node, FULL), factor)

    def endanger_node(self, node: int, failure_rate: float) -> None:
        """Add to the execution failure rate of a node, 1/s."""
        known = self._execution_failures.get(node, 0.0)
        self._execution_failures[node] = known + failure_rate

    def slow_link(self, link: tuple[int, int], factor: float) -> None:
        """Multiply the rate of a directed link."""
        self._link_rates[link] = _times(self._link_rates.get(link, FULL), factor)

    def endanger_link(self, link: tuple[int, int], failure_rate: float) -> None:
        """Add to the failure rate of a directed link, 1/s."""
        self._link_failures[link] = self._link_failures.get(link, 0.0) + failure_rate

    def cut(self, link: tuple[int, int]) -> None:
        """Cut a directed link."""
        self._cut.add(link)

    def multiply_arrivals(self, node: int, factor: float) -> None:
        """Multiply the probability that a task arrives at a node in a slot."""
        self._arrivals[node] = self._arrivals.get(node, 1.0) * factor

    # --- for drivers --------------------------------------------------------------------------

    def state(self, node: int) -> State:
        """Return whether a node works."""
        return self._states.get(node, State.UP)

    def execution(self, node: int) -> tuple[int, float]:
        """Rate of the executions of a node in millionths, and what is added to their failures."""
        up = self.state(node) is State.UP
        rate = self._execution_rates.get(node, FULL) if up else 0
        return rate, self._execution_failures.get(node, 0.0)

    def arrival_factor(self, node: int) -> float:
        """Return what the arrival probability of a node is multiplied with."""
        return self._arrivals.get(node, 1.0)

    def passes(self, source: int, destination: int) -> bool:
        """Return whether a message gets across: both nodes work and no fault cuts the link."""
        return (
            (source, destination) not in self._cut
            and self.state(source) is State.UP
            and self.state(destination) is State.UP
        )

    def answers(self, asking: int, peer: int) -> bool:
        """Return whether a probe is answered: question and answer get through."""
        return self.passes(asking, peer) and self.passes(peer, asking)

    def link(self, source: int, destination: int) -> LinkConditions:
        """Return the conditions of a directed link."""
        link = (source, destination)
        rate = self._link_rates.get(link, FULL) if self.passes(source, destination) else 0
        restart = self.state(destination) is State.KILLED
        return LinkConditions(rate, self._link_failures.get(link, 0.0), restart)

    def conditions(self) -> list[Conditions]:
        """Return the conditions of every node, in their order."""
        touched = {*self._link_rates, *self._link_failures, *self._cut}
        for down in self._states:
            for other in range(self.size):
                touched.update(((down, other), (other, down)))
        links: list[dict[int, LinkConditions]] = [{} for _ in range(self.size)]
        for source, destination in sorted(touched):
            if source != destination:
                found = self.link(source, destination)
                if found != NORMAL_LINK:
                    links[source][destination] = found
        return [
            Conditions(
                self.state(node),
                self._execution_rates.get(node, FULL),
                self._execution_failures.get(node, 0.0),
                links[node],
            )
            for node in range(self.size)
        ]


def _times(rate: int, factor: float) -> int:
    """Return the slowed rate, at least 1: a rate of 0 would mean that it is cut."""
    return min(_LARGEST, max(1, round(rate * factor)))
