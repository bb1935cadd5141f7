"""Requests, what can happen to them at a node, and the effects that a node answers with.

Instants are microseconds since the start of the episode on the node's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

from testbed.model.serving.route import RouteObservation, RoutingRecord
from testbed.model.units import Micros


class Status(IntEnum):
    """How a request was answered, with the status of HTTP that says so."""

    OK = 200
    """A service answered it."""
    FORBIDDEN = 403
    """It came from a node that is no neighbour."""
    OVER_LIMIT = 429
    """It came from a neighbour that has sent as many in this window as it may."""
    UNREACHABLE = 502
    """It was forwarded to a neighbour that did not answer."""
    NO_PEER = 503
    """It was above the cap, and there was no neighbour to forward it to; or it was rejected."""


class Request(NamedTuple):
    """A request of a user; ``source`` is the node that it came in at, ``function`` an index."""

    id: int
    episode: int
    source: int
    function: int


# --- events -------------------------------------------------------------------------------------


class Began(NamedTuple):
    """The episode begins."""


class RequestCame(NamedTuple):
    """A request is here: of a user if ``sender`` is None, else forwarded by node ``sender``."""

    request: Request
    sender: int | None = None


class Served(NamedTuple):
    """The service is done with a request."""

    request_id: int


class PeerAnswered(NamedTuple):
    """The neighbour that a request was forwarded to has answered it."""

    request_id: int
    status: Status


class PeerFailed(NamedTuple):
    """The neighbour that a request was forwarded to cannot be reached, or gives no answer."""

    request_id: int


class RouteDue(NamedTuple):
    """The instant of ``SetRouteTimer`` has come."""


class RouterAnswered(NamedTuple):
    """The router that had answered ``LATER`` has answered now, or has raised ``error``."""

    observation: RouteObservation
    answer: object = None
    error: BaseException | None = None


class WasSaid(NamedTuple):
    """A neighbour said something to all of its neighbours."""

    peer: int
    content: Mapping[str, Any]


Event: TypeAlias = (
    Began | RequestCame | Served | PeerAnswered | PeerFailed | RouteDue | RouterAnswered | WasSaid
)

# --- effects ------------------------------------------------------------------------------------


class Serve(NamedTuple):
    """Have the service work on a request for ``duration``; answer with ``Served``."""

    request: Request
    duration: Micros


class Forward(NamedTuple):
    """Send a request to ``peer``; answer with ``PeerAnswered`` or ``PeerFailed``."""

    request: Request
    peer: int


class Answer(NamedTuple):
    """Answer a request: to the user if ``to`` is None, else to the neighbour that forwarded it.

    ``server`` is the node whose service answered, None if none did. ``elapsed`` is the time since
    the request came to this node.
    """

    request: Request
    to: int | None
    status: Status
    server: int | None
    elapsed: Micros


class SetRouteTimer(NamedTuple):
    """Deliver ``RouteDue`` at ``at``."""

    at: Micros


class Say(NamedTuple):
    """Say something to these neighbours; deliver it as ``WasSaid``."""

    peers: tuple[int, ...]
    content: Mapping[str, Any]


Effect: TypeAlias = Serve | Forward | Answer | SetRouteTimer | Say | RoutingRecord
