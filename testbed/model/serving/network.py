"""The static facts of a serving network: functions, their limits, and who is whose neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from testbed.model.units import SECOND, Micros

PATIENCE: Final = 2 * SECOND
"""How much longer than a service takes a user or a forwarder waits for an answer."""


class Function(NamedTuple):
    """A function that every node serves: each request takes ``time``, however many there are.

    ``max_rate`` is by node the number of requests of its own users that a node is meant to serve in
    one window.
    """

    name: str
    time: Micros
    max_rate: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServingNetwork:
    """Nodes 0 to N - 1, each a proxy with services, and the overlay over which they talk.

    ``neighbours`` has the neighbours of each node in order, without itself. Requests are counted in
    windows of ``window``, by the clock of the node, which begin at multiples of it. What a
    neighbour says is forgotten ``expiry`` after it was heard. ``enforce_limits``: requests of a
    neighbour above what it was told are refused.
    """

    functions: tuple[Function, ...]
    neighbours: tuple[tuple[int, ...], ...]
    expiry: Micros = 90 * SECOND
    enforce_limits: bool = False
    window: Micros = SECOND

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.neighbours)

    def patience(self, function: int) -> Micros:
        """Return how long a request for ``function`` is waited for.

        Whoever has no answer until then takes the node for unreachable.
        """
        return self.functions[function].time + PATIENCE
