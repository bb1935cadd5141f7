"""The trace of a run of requests.

A node has tracks for requests of its users, from when they came until they were answered, and
tracks for those that it serves for neighbours; as many of each as overlap. Arrows follow a request
from the node that it came to, to the one that it was forwarded to. Requests that were not served
are marks, at the node that they came to. Counters have what became of the requests of each window;
routings are marks with their table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import groupby
from typing import Any, Final

from testbed.model.serving.record import RequestOutcome, WindowRecord
from testbed.model.serving.route import RoutingRecord
from testbed.model.units import Micros
from testbed.scenario.plan import ServingPlan
from testbed.storage.tasklog.base import Run, TaskLog
from testbed.storage.tasklog.serving import RequestRow
from testbed.storage.trace.format import (
    Event,
    arrow,
    complete,
    counter,
    episode_events,
    heads,
    mark,
    next_offset,
    track,
)

_OWN: Final = 1
_OF_NEIGHBOURS: Final = 100_001
"""The first tracks of requests of users, and of those that are served for neighbours."""

_BECAME: Final[Mapping[str, str]] = {
    "local": "served here",
    "to": "forwarded",
    "from": "served for neighbours",
    "no_peer": "refused",
    "over_limit": "refused",
    "forbidden": "refused",
}
"""What the counter calls the counts of windows; ``failed`` is among those forwarded."""


def events(
    task_log: TaskLog, run: Run, plan: ServingPlan, progress: Callable[[int], None]
) -> Iterator[Event]:
    """Return the events; ``progress`` is called with the number of requests read so far."""
    yield from heads(run, plan.size)
    for node in range(plan.size):
        yield track(node + 1, 0, "routings")
    window = plan.network.window
    named: set[tuple[int, int]] = set()
    offset: Micros = 0
    read = 0
    first = run.info.first_episode
    for episode in range(first, first + run.info.episodes):
        requests = list(task_log.requests(run.id, episode=episode))
        windows = list(task_log.windows(run.id, episode=episode))
        if not requests and not windows:
            continue
        ends = [each.at + (each.elapsed or 0) for each in requests]
        length = max([*ends, *((each.window + 1) * window for each in windows)])
        yield from episode_events(run, episode, offset, length, window)
        for event in _requests(requests, plan.bus.delay, offset, read):
            place = event["pid"], event.get("tid", 0)
            if event["ph"] == "X" and place not in named:
                named.add(place)
                yield track(*place, _track_name(place[1]))
            yield event
        yield from _counters(windows, window, offset)
        yield from map(_routing_at(offset), task_log.routings(run.id, episode=episode))
        offset = next_offset(offset, length)
        read += len(requests)
        progress(read)


def _track_name(tid: int) -> str:
    if tid < _OF_NEIGHBOURS:
        return f"requests of users {tid - _OWN + 1}"
    return f"requests of neighbours {tid - _OF_NEIGHBOURS + 1}"


def _requests(
    requests: Iterable[RequestRow], delay: Micros, offset: Micros, before: int
) -> Iterator[Event]:
    """Return slices, arrows and marks; ``before`` requests are in the episodes before this one."""
    lanes = _Lanes()
    arrows: list[tuple[Event, Event]] = []
    own: list[tuple[Micros, Event]] = []
    served: list[tuple[Micros, Event]] = []
    for row in requests:
        args = _about(row)
        node, elapsed = row.source, row.elapsed or 0
        if row.outcome is not RequestOutcome.SERVED:
            name = f"{row.function}: {row.outcome.value.replace('_', ' ')}"
            yield mark(node, name, offset + row.at + elapsed, args)
        if not elapsed:
            continue
        name = row.function if row.peer is None else f"{row.function} to node {row.peer}"
        mine = complete(node + 1, _OWN, name, offset + row.at, elapsed, args)
        own.append((row.at, mine))
        if row.peer is None or row.server != row.peer:
            continue
        # Only the node that forwarded it has logged instants; a message takes ``delay``.
        way = min(delay, elapsed // 2)
        begin, name = row.at + way, f"{row.function} of node {node}"
        there = complete(
            row.peer + 1, _OF_NEIGHBOURS, name, offset + begin, elapsed - 2 * way, args
        )
        served.append((begin, there))
        arrows.append((mine, there))
    for _, event in (*sorted(own, key=_begin), *sorted(served, key=_begin)):
        event["tid"] = lanes.free(event)
        yield event
    for number, (tail, head) in enumerate(arrows, before):
        yield from arrow("request", number, tail, head)


def _begin(timed: tuple[Micros, Event]) -> Micros:
    return timed[0]


class _Lanes:
    """Finds a track where nothing overlaps; asked in the order in which slices begin."""

    def __init__(self) -> None:
        self._busy: dict[tuple[int, int], list[tuple[Micros, int]]] = {}
        self._unused: dict[tuple[int, int], list[int]] = {}

    def free(self, event: Event) -> int:
        """Return the number of the first track of this kind that is free at its beginning."""
        kind = event["pid"], event["tid"]
        busy = self._busy.setdefault(kind, [])
        unused = self._unused.setdefault(kind, [])
        while busy and busy[0][0] <= event["ts"]:
            heappush(unused, heappop(busy)[1])
        tid: int = heappop(unused) if unused else event["tid"] + len(busy)
        heappush(busy, (event["ts"] + event["dur"], tid))
        return tid


def _about(row: RequestRow) -> dict[str, Any]:
    known = {
        "request": row.request,
        "came to": row.source,
        "outcome": row.outcome.value,
        "status": row.status,
        "forwarded to": row.peer,
        "served by": row.server,
        "sent (us)": row.sent,
        "answered after (us)": row.answered,
        "status at the client": row.client_status,
    }
    return {name: value for name, value in known.items() if value is not None}


def _counters(windows: Iterable[WindowRecord], length: Micros, offset: Micros) -> Iterator[Event]:
    """Return the requests of each window, and 0 after the last one and while there is none."""
    nothing = dict.fromkeys(dict.fromkeys(_BECAME.values()), 0)
    for node, told in groupby(windows, key=lambda each: each.node):
        expected = 0
        for each in told:
            if each.window > expected:
                yield counter(node, "requests", offset + expected * length, nothing)
            values = dict(nothing)
            for counts in each.counts:
                for name, count in counts.items():
                    became = _BECAME.get(name.partition(":")[0])
                    if became is not None:
                        values[became] += count
            yield counter(node, "requests", offset + each.window * length, values)
            expected = each.window + 1
        yield counter(node, "requests", offset + expected * length, nothing)


def _routing_at(offset: Micros) -> Callable[[RoutingRecord], Event]:
    def event(record: RoutingRecord) -> Event:
        table = record.routing.table
        args = {
            "scheduler": record.scheduler,
            "table": None if table is None else [each._asdict() for each in table],
            "said": record.routing.say,
        }
        place = {"pid": record.node + 1, "tid": 0, "ts": offset + record.at}
        name = "routing" if table is None else "new table"
        return {"ph": "i", "s": "t", "name": name, "cat": "routing", **place, "args": args}

    return event
