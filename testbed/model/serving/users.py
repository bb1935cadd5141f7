"""Users of a serving network: the rates of their requests over time, and the instants of these.

Nothing is random: request k of a user comes at the first instant by which the rate has added up to
k requests, so that the counts of every window follow the rate to within one request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from typing import Final, NamedTuple, TypeAlias

from testbed.model.serving.events import Request
from testbed.model.units import SECOND, Micros

EXTERNAL: Final = 2**40
"""Ids from here on are those of requests that are not of the scenario's users."""


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """``rate`` requests per second all the time."""

    rate: float

    @property
    def highest(self) -> float:
        """Highest requests per second that there are."""
        return self.rate

    def total(self, until: Micros) -> float:
        """Return how many requests have added up before ``until``."""
        return self.rate * until / SECOND

    def instants(self, until: Micros) -> Iterator[Micros]:
        """Return the instants of all requests before ``until``, in order."""
        if self.rate <= 0.0:
            return
        k = 0
        while (at := round(k * SECOND / self.rate)) < until:
            yield at
            k += 1


@dataclass(frozen=True, slots=True)
class StepRate:
    """``rates[i]`` requests per second from ``begins[i]`` until the next one begins.

    ``begins`` ascends from 0.
    """

    begins: tuple[Micros, ...]
    rates: tuple[float, ...]

    @property
    def highest(self) -> float:
        """Highest requests per second that there are."""
        return max(self.rates)

    def total(self, until: Micros) -> float:
        """Return how many requests have added up before ``until``."""
        ends = (*self.begins[1:], until)
        return sum(
            rate * max(0, min(end, until) - begin) / SECOND
            for begin, end, rate in zip(self.begins, ends, self.rates, strict=True)
        )

    def instants(self, until: Micros) -> Iterator[Micros]:
        """Return the instants of all requests before ``until``, in order."""
        k, added = 0, 0.0
        ends = (*self.begins[1:], until)
        for begin, end, rate in zip(self.begins, ends, self.rates, strict=True):
            if begin >= until:
                return
            if rate > 0.0:
                while (at := begin + round((k - added) * SECOND / rate)) < min(end, until):
                    yield at
                    k += 1
            added += rate * (end - begin) / SECOND


@dataclass(frozen=True, slots=True)
class SinusoidalRate:
    """``mean + amplitude sin(2 pi (t / period + phase))`` requests per second.

    ``amplitude`` is at most ``mean``; ``phase`` is in periods.
    """

    mean: float
    amplitude: float
    period: Micros
    phase: float = 0.0

    @property
    def highest(self) -> float:
        """Highest requests per second that there are."""
        return self.mean + self.amplitude

    def total(self, until: Micros) -> float:
        """Return how many requests have added up before ``until``."""
        turn = 2.0 * math.pi
        swing = math.cos(turn * self.phase) - math.cos(turn * (until / self.period + self.phase))
        return (self.mean * until + self.amplitude * self.period / turn * swing) / SECOND

    def instants(self, until: Micros) -> Iterator[Micros]:
        """Return the instants of all requests before ``until``, in order."""
        count = math.ceil(self.total(until) - _NEARLY)
        at = 0
        for k in range(count):
            low, high = at, until
            # The total never falls: the first instant at which it has reached k.
            while low < high:
                middle = (low + high) // 2
                if self.total(middle) >= k - _NEARLY:
                    high = middle
                else:
                    low = middle + 1
            if low >= until:
                return
            at = low
            yield at


_NEARLY: Final = 1e-6
"""Of a request: what rounding may leave missing from a whole one."""

Trace: TypeAlias = ConstantRate | StepRate | SinusoidalRate
"""How the requests of a user come over an episode."""


@dataclass(frozen=True, slots=True)
class Users:
    """Users at node ``node`` who send requests for ``function`` (an index) as ``trace`` says."""

    node: int
    function: int
    trace: Trace


class Arrival(NamedTuple):
    """A request and the instant at which it comes to its node."""

    at: Micros
    request: Request


def arrivals(users: tuple[Users, ...], length: Micros, episode: int) -> Iterator[Arrival]:
    """Return the requests of all users before ``length``, in order of instant and id.

    Request k of users u has the id ``k len(users) + u``.
    """
    return merge(*(_of(users, number, length, episode) for number in range(len(users))))


def _of(users: tuple[Users, ...], number: int, length: Micros, episode: int) -> Iterator[Arrival]:
    each, every = users[number], len(users)
    for k, at in enumerate(each.trace.instants(length)):
        yield Arrival(at, Request(number + k * every, episode, each.node, each.function))


def external(node: int, size: int, number: int) -> int:
    """Return the id of request ``number`` (from 0) of somebody else to ``node`` of ``size``."""
    return EXTERNAL + node + size * number
