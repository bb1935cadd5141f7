"""The hook ``route``: which requests a node serves itself, and to whom it forwards the others.

A router is called at fixed shares of a period, with what the node has counted and heard since. It
answers with a table for the proxy, with something to say to all neighbours, with both or neither.
It does no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from math import isfinite
from operator import index
from typing import Any, ClassVar, Final, NamedTuple, Protocol, runtime_checkable

from testbed.errors import PermanentError
from testbed.model.hook import Document, Hook, HookContext
from testbed.model.own_code import LONGEST_NAME, shortened, shown
from testbed.model.serving.network import ServingNetwork
from testbed.model.units import Micros

ROUTE: Final = "route"

LONGEST_SAID: Final = 4_096
"""Bytes of JSON that a node may say to its neighbours at a time."""


class Route(NamedTuple):
    """The routing of one function at a node; entries of tuples are by node.

    Requests of users are served here while fewer than ``local_cap`` came in this window (None: all
    of them), and the others forwarded in the proportions of ``weights``; with all weights 0 they
    are refused. ``limits_in`` is how many a neighbour may forward here in a window, None for any
    number; it counts where limits are enforced. ``reject`` is the probability that a request of a
    user is refused at once.
    """

    local_cap: int | None
    weights: tuple[int, ...]
    limits_in: tuple[int | None, ...]
    reject: float = 0.0


class Routing(NamedTuple):
    """The answer of a router: a route per function (None: they stay), and something to say."""

    table: tuple[Route, ...] | None = None
    say: Mapping[str, Any] | None = None


LATER: Final = Routing(say={"later": True})
"""Answer of the router of a driver that calls the real one elsewhere: ``RouterAnswered`` follows.

Until then the table stays. It is told apart by identity."""


class Heard(NamedTuple):
    """What a neighbour said last, and when it was heard on the own clock."""

    peer: int
    content: Mapping[str, Any]
    at: Micros


class RouteObservation(NamedTuple):
    """The knowledge of a node when its router is called.

    ``period`` counts from 0; ``phase`` is the index in the router's ``phases``. Per function,
    ``rates`` has the number of requests of users in the last whole window, and ``counts`` what
    became of requests since this phase came last: ``local`` (served here for own users), ``to:J``
    (forwarded to node J), ``failed:J`` (those of them that node J did not serve), ``from:J``
    (served here for node J), and ``no_peer``, ``over_limit:J`` and ``forbidden`` (refused here).
    ``heard`` has the last words of each neighbour, oldest first, without those that have expired.
    """

    node: int
    now: Micros
    period: int
    phase: int
    rates: tuple[int, ...]
    counts: tuple[Mapping[str, int], ...]
    heard: tuple[Heard, ...]


@dataclass(frozen=True)
class RouterContext(HookContext["Router"]):
    """What a router is made from: its node, the static network, and its options."""

    hook: ClassVar[str] = ROUTE

    node: int
    network: ServingNetwork
    seed: int = 0
    options: dict[str, object] = field(default_factory=dict)

    @property
    def neighbours(self) -> tuple[int, ...]:
        """The neighbours of the node."""
        return self.network.neighbours[self.node]

    @property
    def max_rates(self) -> tuple[int, ...]:
        """Per function, how many requests of users the node is meant to serve in a window."""
        return tuple(function.max_rate[self.node] for function in self.network.functions)


@runtime_checkable
class Router(Protocol):
    """Routes the requests that come to one node.

    ``phases`` are shares of the period at which it is called, ascending from 0 and below 1. One
    instance serves one node for one episode after another.
    """

    name: str
    phases: tuple[float, ...]

    def route(self, observation: RouteObservation) -> Routing:
        """Return the table and the words of this phase.

        If it raises, or answers something else, the table of its node stays as it is.
        """
        ...


class RoutingRecord(NamedTuple):
    """A routing with everything it was made from; ``number`` counts those of its node."""

    node: int
    episode: int
    number: int
    at: Micros
    scheduler: str
    observation: RouteObservation
    routing: Routing

    @property
    def hook(self) -> str:
        """Name of its hook."""
        return ROUTE

    @property
    def task_id(self) -> None:
        """It is about no single request."""
        return None


class RouterFailed(PermanentError):
    """A router raised, or gave an invalid answer; ``reason`` names which, what and where."""

    def __init__(self, router: str, what: str, node: int) -> None:
        self.reason = shortened(f"router '{shortened(router, LONGEST_NAME)}' {what}")
        super().__init__(f"node {node}: {self.reason}")


# --- check --------------------------------------------------------------------------------------


def phases_of(router: Router) -> tuple[float, ...]:
    """Return the phases of a router as plain numbers.

    Raises: ValueError: they are not one or more ascending shares from 0 to below 1.
    """
    given: Any = router.phases
    try:
        phases = tuple(float(phase) for phase in islice(given, 1_000))
    except (TypeError, ValueError, OverflowError):
        phases = ()
    ascending = all(early < late for early, late in pairwise(phases))
    if not phases or not ascending or not 0.0 <= phases[0] <= phases[-1] < 1.0:
        raise ValueError(
            f"phases {shown(given)}; they have to be ascending shares of the period, 0 to below 1"
        )
    return phases


def checked(answer: object, node: int, network: ServingNetwork) -> Routing:
    """Return a router's answer at ``node`` with plain numbers in it.

    Raises: ValueError: it is none; the message names what it is and what is required.
    """
    if not isinstance(answer, Routing):
        raise ValueError(f"{shown(answer)}; it has to be Routing(table, say)")
    given: tuple[Any, Any] = answer
    table, say = given
    if table is not None:
        table = _tuple(table, len(network.functions), "a table", "one Route per function")
        table = tuple(_checked_route(route, node, network) for route in table)
    return Routing(table, None if say is None else _checked_words(say))


def _checked_route(route: object, node: int, network: ServingNetwork) -> Route:
    if not isinstance(route, Route):
        raise ValueError(f"a table with {shown(route)}; it has to have a Route per function")
    given: tuple[Any, Any, Any, Any] = route
    cap, weights, limits, reject = given
    size = network.size
    weights = tuple(
        _count(weight, "a weight") for weight in _tuple(weights, size, "weights", "one per node")
    )
    neighbours = network.neighbours[node]
    for peer, weight in enumerate(weights):
        if weight and peer not in neighbours:
            raise ValueError(
                f"a weight of {weight} for node {peer}; node {node} has the neighbours {neighbours}"
            )
    limits = tuple(
        None if limit is None else _count(limit, "a limit")
        for limit in _tuple(limits, size, "limits_in", "one per node")
    )
    try:
        probability = float(reject)
    except (TypeError, ValueError, OverflowError):
        probability = -1.0
    if not (isfinite(probability) and 0.0 <= probability <= 1.0):
        raise ValueError(f"reject={shown(reject)}; it has to be a probability, 0 to 1")
    return Route(None if cap is None else _count(cap, "a local_cap"), weights, limits, probability)


def _checked_words(say: object) -> dict[str, Any]:
    try:
        text = json.dumps(say, allow_nan=False)
    except (TypeError, ValueError, RecursionError, OverflowError):
        text = ""
    if not isinstance(say, Mapping) or not text or len(text.encode()) > LONGEST_SAID:
        raise ValueError(
            f"to say {shown(say)}; it has to be a mapping that is at most {LONGEST_SAID} bytes of "
            "JSON, or None"
        )
    # As neighbours hear it, who get it as JSON.
    words: dict[str, Any] = json.loads(text)
    return words


def _tuple(values: Any, count: int, what: str, needed: str) -> tuple[Any, ...]:
    try:
        # One more than there can be: it need not end.
        found = tuple(islice(values, count + 1))
    except TypeError:
        found = None
    if found is None or len(found) != count:
        raise ValueError(f"{what} {shown(values)}; it has to have {needed}: {count}")
    return found


def _count(value: Any, what: str) -> int:
    try:
        count = int(index(value))
    except TypeError:
        count = -1
    if not 0 <= count < 2**31:
        raise ValueError(f"{what} {shown(value)}; it has to be a whole number from 0 to 2^31 - 1")
    return count


# --- documents ----------------------------------------------------------------------------------


def to_document(record: RoutingRecord) -> Document:
    """Return a routing with its inputs as plain values."""
    seen, routing = record.observation, record.routing
    return {
        **record._asdict(),
        "observation": {
            **seen._asdict(),
            "counts": [dict(counts) for counts in seen.counts],
            "heard": [heard._asdict() for heard in seen.heard],
        },
        "routing": {
            "table": None if routing.table is None else [each._asdict() for each in routing.table],
            "say": routing.say,
        },
    }


def from_document(document: Document) -> RoutingRecord:
    """Return the routing of plain values; the inverse of ``to_document``.

    Raises: ValueError, KeyError or TypeError: these are not the values of a routing.
    """
    seen, routing = document["observation"], document["routing"]
    table = routing["table"]
    return RoutingRecord(
        **{
            **document,
            "observation": RouteObservation(
                **{
                    **seen,
                    "rates": tuple(seen["rates"]),
                    "counts": tuple(seen["counts"]),
                    "heard": tuple(Heard(**heard) for heard in seen["heard"]),
                }
            ),
            "routing": Routing(
                None if table is None else tuple(_route(route) for route in table), routing["say"]
            ),
        }
    )


def _route(document: Document) -> Route:
    return Route(
        **{
            **document,
            "weights": tuple(document["weights"]),
            "limits_in": tuple(document["limits_in"]),
        }
    )


HOOK: Final = Hook(
    name=ROUTE,
    noun="router",
    method="route",
    group="edge_testbed.routers",
    protocol=Router,
    context=RouterContext,
    record=RoutingRecord,
    to_document=to_document,
    from_document=from_document,
)
