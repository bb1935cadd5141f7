"""Events of the Trace Event Format, and those that traces of all families have.

The network is process 0; node n is process n + 1. Episodes follow each other in the time of the
trace: ``offset`` is where one begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from testbed.model.units import SECOND, Micros
from testbed.storage.tasklog.base import Run

Event: TypeAlias = dict[str, Any]
"""One event of the format; times in microseconds."""

NETWORK: Final = 0
"""Process of what concerns the whole network; nodes are the processes from 1."""
_GAP: Final = SECOND


def heads(run: Run, nodes: int) -> Iterator[Event]:
    """Return the names of the processes of the network and of its nodes."""
    yield from _named(NETWORK, f"{run.info.name} · {run.info.scheduler}")
    yield track(NETWORK, 0, "episodes")
    for node in range(nodes):
        yield from _named(node + 1, f"node {node}")


def _named(pid: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}


def track(pid: int, tid: int, name: str) -> Event:
    """Return the name of a track."""
    return {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}


def complete(
    pid: int, tid: int, name: str, begin: Micros, length: Micros, args: Mapping[str, Any]
) -> Event:
    """Return a slice on a track, where slices do not overlap."""
    event = {"ph": "X", "pid": pid, "tid": tid, "name": name, "cat": "task"}
    return {**event, "ts": begin, "dur": length, "args": args}


def mark(node: int, name: str, at: Micros, args: Mapping[str, Any]) -> Event:
    """Return the mark of a task or request that failed at a node."""
    place = {"pid": node + 1, "tid": 0, "ts": at}
    return {"ph": "i", "s": "p", "name": name, "cat": "failure", **place, "args": args}


def arrow(what: str, number: int, tail: Event, head: Event) -> Iterator[Event]:
    """Return an arrow from the beginning of one slice to that of another."""
    same = {"name": what, "cat": what, "id": number}
    for phase, aim in (({"ph": "s"}, tail), ({"ph": "f", "bp": "e"}, head)):
        yield {**phase, **same, "pid": aim["pid"], "tid": aim["tid"], "ts": aim["ts"]}


def counter(node: int, name: str, at: Micros, values: Mapping[str, int]) -> Event:
    """Return the values of a counter of a node from ``at`` on."""
    return {"ph": "C", "pid": node + 1, "name": name, "ts": at, "args": values}


def episode_events(
    run: Run, episode: int, offset: Micros, length: Micros, slot: Micros
) -> Iterator[Event]:
    """Return the episode as a slice, and the faults and changes of the scheduler in it.

    ``slot`` is the length of a slot, or of a window.
    """
    name = f"episode {episode}"
    yield complete(NETWORK, 0, name, offset, length, {"episode": episode})
    for number, fault in enumerate(run.faults):
        if fault["episode"] != episode or fault["begin"] > length:
            continue
        event = {"pid": NETWORK, "tid": 0, "name": str(fault["what"]), "cat": "fault"}
        event["id2"] = {"local": hex(number)}
        yield {"ph": "b", **event, "ts": offset + fault["begin"], "args": {**fault}}
        yield {"ph": "e", **event, "ts": offset + min(fault["end"], length)}
    for change in run.changes:
        if change["episode"] == episode:
            event = {"ph": "i", "s": "g", "pid": NETWORK, "tid": 0, "cat": "change"}
            event["name"] = f"scheduler {change['scheduler']}"
            yield {**event, "ts": offset + change["slot"] * slot, "args": {**change}}


def next_offset(offset: Micros, length: Micros) -> Micros:
    """Return where the episode after one of ``length`` begins: at a whole second, after a gap."""
    return offset - (-length // SECOND) * SECOND + _GAP
