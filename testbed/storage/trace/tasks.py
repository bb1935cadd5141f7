"""The trace of a run of tasks.

Each node has a track for executions and one for each peer that it sends to; deciding, receiving and
waiting, where several tasks overlap, are asynchronous events; counters have the length of the
execution queue; arrows follow a task from the node that sent it to the node that executed it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, Final

from testbed.model.spans import EXECUTING, SENDING, WAITING, Course, courses
from testbed.model.units import Micros
from testbed.scenario.plan import Plan
from testbed.storage.tasklog.base import Run, TaskLog
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

_EXECUTION: Final = 0
"""Track of a node's executions; transmissions to a peer have that of its number plus 1."""


def events(
    task_log: TaskLog, run: Run, plan: Plan, progress: Callable[[int], None]
) -> Iterator[Event]:
    """Return the events; ``progress`` is called with the number of records read so far."""
    yield from heads(run, plan.topology.size)
    for node in range(plan.topology.size):
        yield track(node + 1, _EXECUTION, EXECUTING)
    links: set[tuple[int, int]] = set()
    offset: Micros = 0
    read = 0

    def counted() -> Iterator[Any]:
        nonlocal read
        for record in task_log.records(run.id):
            read += 1
            yield record

    for episode, told in groupby(courses(counted()), key=lambda each: each.task.episode):
        found = list(told)
        length = max(course.end for course in found)
        yield from episode_events(run, episode, offset, length, plan.workload.slot)
        for each in found:
            for span in each.spans:
                if span.stage == SENDING and (span.node, span.peer) not in links:
                    assert span.peer is not None
                    links.add((span.node, span.peer))
                    yield track(span.node + 1, span.peer + 1, f"sending to {span.peer}")
            yield from _task(each, offset)
        yield from _queues(found, offset)
        offset = next_offset(offset, length)
        progress(read)


def _task(course: Course, offset: Micros) -> Iterator[Event]:
    task, outcome = course.task, course.outcome.value
    args = {
        "task": task.id,
        "arrived at": task.source,
        "slot": task.slot,
        "bytes": task.size_bytes,
        "cycles": task.cycles,
        "deadline (us)": task.deadline,
        "outcome": outcome,
    }
    sent: Event | None = None
    for span in course.spans:
        pid, begin = span.node + 1, offset + span.begin
        if span.stage in (SENDING, EXECUTING):
            tid = _EXECUTION if span.peer is None else span.peer + 1
            made = complete(pid, tid, f"task {task.id}", begin, span.end - span.begin, args)
            yield made
            if span.stage == SENDING:
                sent = made
            elif sent is not None:
                # Only a complete arrow: not of a task that never got so far.
                yield from arrow("task", task.id, sent, made)
            continue
        if span.begin == span.end:
            continue
        # Of one process only: the same task may be received at one node and sent at another.
        event = {"pid": pid, "tid": 0, "name": span.stage, "cat": span.stage}
        event["id2"] = {"local": hex(task.id)}
        yield {"ph": "b", **event, "ts": begin, "args": args}
        yield {"ph": "e", **event, "ts": offset + span.end}
    node = course.spans[-1].node if course.spans else task.source
    if outcome != "succeeded":
        name = f"task {task.id} {outcome.replace('_', ' ')}"
        yield mark(node, name, offset + course.end, args)


def _queues(found: list[Course], offset: Micros) -> Iterator[Event]:
    """Return the number of tasks that wait for execution and are executed, at every change."""
    changes: defaultdict[tuple[int, Micros], list[int]] = defaultdict(lambda: [0, 0])
    for each in found:
        for span in each.spans:
            if span.stage in (WAITING, EXECUTING) and span.end > span.begin:
                which = int(span.stage == EXECUTING)
                changes[span.node, span.begin][which] += 1
                changes[span.node, span.end][which] -= 1
    for node, of_node in groupby(sorted(changes.items()), key=lambda item: item[0][0]):
        length = [0, 0]
        for (_, at), (waiting, executing) in of_node:
            length = [length[0] + waiting, length[1] + executing]
            values = {"waiting": length[0], "executing": length[1]}
            yield counter(node, "execution queue", offset + at, values)
