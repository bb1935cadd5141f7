"""Calls of routers that failed, counted for what is told of a run."""

from __future__ import annotations

from typing import NamedTuple

from testbed.model.units import SECOND, Micros


class RoutingFailure(NamedTuple):
    """A call of a router that raised or gave an invalid answer; its node kept the table it had."""

    episode: int
    node: int
    at: Micros
    reason: str


class RoutingFailures:
    """Counts the calls of routers that failed, and keeps the first."""

    __slots__ = ("_count", "_first")

    def __init__(self) -> None:
        self._count = 0
        self._first: RoutingFailure | None = None

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, failure: RoutingFailure) -> None:
        """Take the next one."""
        self._count += 1
        self._first = self._first or failure

    @property
    def lines(self) -> tuple[str, ...]:
        """One sentence if there were any: how many, and the first with its node and reason."""
        first = self._first
        if first is None:
            return ()
        calls = "1 call" if self._count == 1 else f"{self._count} calls"
        return (
            f"the router failed at {calls}, and routes stayed as they were; the first: episode "
            f"{first.episode}, node {first.node}, at {first.at / SECOND:g} s: {first.reason}",
        )
