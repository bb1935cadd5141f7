"""What is recorded of a serving run: each request once, and each node window by window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from testbed.model.units import Micros


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
