"""What a serving run leaves in the log: its rows, and how they are stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

from testbed.model.codec import dumps
from testbed.model.serving import route
from testbed.model.serving.record import RequestOutcome, RequestRecord, WindowRecord
from testbed.model.serving.route import RoutingRecord
from testbed.model.units import Micros
from testbed.storage.tasklog.statements import Row

_OUTCOMES: Final = {outcome.value: outcome for outcome in RequestOutcome}


class RequestRow(NamedTuple):
    """A request, as its node and its client saw it.

    ``request`` is its id, ``function`` the name of what it is for. ``at``, ``status``, ``peer``,
    ``server`` and ``elapsed`` are those of ``RequestRecord``; of a request that its node has not
    reported (``lost``) ``at`` is when it was to come, the others are None. As the client saw it:
    the instant at which it was really ``sent``, the time until it was ``answered``, and the status
    it got; None in the simulator and for requests of others. Times are emulated microseconds.
    """

    episode: int
    request: int
    source: int
    function: str
    at: Micros
    status: int | None
    outcome: RequestOutcome
    peer: int | None
    server: int | None
    elapsed: Micros | None
    sent: Micros | None = None
    answered: Micros | None = None
    client_status: int | None = None

    @classmethod
    def of(
        cls,
        record: RequestRecord,
        function: str,
        *,
        sent: Micros | None = None,
        answered: Micros | None = None,
        client_status: int | None = None,
    ) -> Self:
        """Return the row of a request that its node has answered as the model says.

        Raises: ValueError: the model has no such status.
        """
        number, episode, source, _, at, status, peer, server, elapsed = record
        outcome = RequestOutcome.of(status)
        return cls(
            *(episode, number, source, function, at, int(status), outcome, peer, server, elapsed),
            *(sent, answered, client_status),
        )


def request_of(row: Sequence[Any]) -> RequestRow:
    """Return the request of a row of ``requests``. Raises: KeyError: an unknown outcome."""
    return RequestRow._make((*row[1:7], _OUTCOMES[row[7]], *row[8:]))


def window_row(run: int, window: WindowRecord) -> Row:
    """Return a row of ``windows``."""
    node, episode, number, counts, *messages = window
    return (run, episode, node, number, dumps([dict(each) for each in counts]), *messages)


def window_of(row: Sequence[Any]) -> WindowRecord:
    """Return the window of a row of ``windows``. Raises: ValueError: it is none."""
    _, episode, node, number, counts, *messages = row
    return WindowRecord(node, episode, number, tuple(json.loads(counts)), *messages)


def routing_row(run: int, routing: RoutingRecord) -> Row:
    """Return a row of ``routings``."""
    document = route.to_document(routing)
    return (
        *(run, routing.episode, routing.node, routing.number, routing.at, routing.scheduler),
        *(dumps(document["observation"]), dumps(document["routing"])),
    )


def routing_of(row: Sequence[Any]) -> RoutingRecord:
    """Return the routing of a row of ``routings``.

    Raises: ValueError, KeyError or TypeError: it is none.
    """
    _, episode, node, number, at, scheduler, observation, routing = row
    return route.from_document(
        {
            "node": node,
            "episode": episode,
            "number": number,
            "at": at,
            "scheduler": scheduler,
            "observation": json.loads(observation),
            "routing": json.loads(routing),
        }
    )
