"""What is recorded of a serving run: each request once, and each node window by window."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from testbed.model.serving.events import Status
from testbed.model.units import Micros


class RequestOutcome(StrEnum):
    """What became of a request, as logs and reports name it."""

    SERVED = "served"
    """A service answered it, 200."""
    NO_PEER = "no_peer"
    """It was above the cap and there was no neighbour to forward it to, or rejected: 503."""
    OVER_LIMIT = "over_limit"
    """The neighbour that it was forwarded to had served its share of this window, 429."""
    FORBIDDEN = "forbidden"
    """The neighbour that it was forwarded to does not know the sender, 403."""
    UNREACHABLE = "unreachable"
    """The neighbour that it was forwarded to did not answer, 502."""
    OVERLOAD = "overload"
    """The node had too many requests open to take another one, 503; only on a network."""
    LOST = "lost"
    """No answer is known."""

    @classmethod
    def of(cls, status: int) -> RequestOutcome:
        """Return the outcome of a request that the model answered with a ``Status``.

        Raises: ValueError: the model has no such status.
        """
        return _OUTCOMES[Status(status)]


_OUTCOMES: Final = {
    Status.OK: RequestOutcome.SERVED,
    Status.NO_PEER: RequestOutcome.NO_PEER,
    Status.OVER_LIMIT: RequestOutcome.OVER_LIMIT,
    Status.FORBIDDEN: RequestOutcome.FORBIDDEN,
    Status.UNREACHABLE: RequestOutcome.UNREACHABLE,
}


class RequestRecord(NamedTuple):
    """A request that was answered, as the node that it came to saw it.

    ``at`` is the instant at which it came, on the clock of its node, ``elapsed`` the time until it
    was answered; both in emulated microseconds. ``status`` is a ``Status``; ``peer`` the node that
    it was forwarded to and ``server`` the one whose service answered it, None if none.
    """

    id: int
    episode: int
    source: int
    function: int
    at: Micros
    status: int
    peer: int | None
    server: int | None
    elapsed: Micros


class WindowRecord(NamedTuple):
    """What a node counted in one window; windows count from 0.

    ``counts`` has, by function, what became of requests, with the names of
    ``RouteObservation.counts``. The others count what was said to neighbours and heard from them,
    each message once for each receiver.
    """

    node: int
    episode: int
    window: int
    counts: tuple[Mapping[str, int], ...]
    said: int
    said_bytes: int
    heard: int
    heard_bytes: int
