"""A run as a trace for viewers of time lines: Perfetto (ui.perfetto.dev) and chrome://tracing.

The file is JSON of the Trace Event Format. Each node is a process with a track for executions and
one for each peer that it sends to; deciding, receiving and waiting, where several tasks overlap,
are asynchronous events; counters have the length of the execution queue; arrows follow a task from
the node that sent it to the node that executed it. Episodes follow each other.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeAlias

from testbed.errors import UsageError
from testbed.model.spans import EXECUTING, SENDING, WAITING, Course, courses
from testbed.model.units import SECOND, Micros
from testbed.scenario.plan import Plan
from testbed.storage.tasklog.base import Run, TaskLog
from testbed.version import __version__

Event: TypeAlias = dict[str, Any]
"""One event of the format; times in microseconds."""

_GAP: Final = SECOND
_NETWORK: Final = 0
"""Process of what concerns the whole network; nodes are the processes from 1."""
_EXECUTION: Final = 0
"""Thread of a node's executions; transmissions to a peer have the thread of its number plus 1."""


def write_trace(
    task_log: TaskLog,
    run: Run,
    path: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write the trace of a run of tasks to ``path``; return the number of events in it.

    ``progress`` is called with the number of records read so far. At no time more than one episode
    is in memory.

    Raises: UsageError: it is no run of tasks, or its plan cannot be read.
    """
    try:
        plan = run.plan
    except ValueError as error:
        raise UsageError(f"no trace can be made of run {run.id}: {error}") from None
    about = {
        "run": run.id,
        "scenario": run.info.name,
        "scheduler": run.info.scheduler,
        "driver": run.info.driver,
        "edge_testbed": __version__,
    }
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}')
        file.write(', "traceEvents": [\n')
        for event in _events(task_log, run, plan, progress):
            file.write(",\n" if count else "")
            file.write(json.dumps(event, separators=(",", ":")))
            count += 1
        file.write("\n]}\n")
    return count


def _events(
    task_log: TaskLog, run: Run, plan: Plan, progress: Callable[[int], None]
) -> Iterator[Event]:
    yield from _named(_NETWORK, f"{run.info.name} · {run.info.scheduler}")
    yield _thread_named(_NETWORK, 0, "episodes")
    for node in range(plan.topology.size):
        yield from _named(node + 1, f"node {node}")
        yield _thread_named(node + 1, _EXECUTION, EXECUTING)
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
        yield _complete(_NETWORK, 0, f"episode {episode}", offset, length, {"episode": episode})
        yield from _incidents(run, episode, offset, length, plan.workload.slot)
        for each in found:
            for span in each.spans:
                if span.stage == SENDING and (span.node, span.peer) not in links:
                    assert span.peer is not None
                    links.add((span.node, span.peer))
                    name = f"sending to {span.peer}"
                    yield _thread_named(span.node + 1, span.peer + 1, name)
            yield from _task(each, offset)
        yield from _queues(found, offset)
        offset += -(-length // SECOND) * SECOND + _GAP
        progress(read)


def _named(pid: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}


def _thread_named(pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}


def _complete(
    pid: int, tid: int, name: str, begin: Micros, length: Micros, args: dict[str, Any]
) -> Event:
    event = {"ph": "X", "pid": pid, "tid": tid, "name": name, "cat": "task"}
    return {**event, "ts": begin, "dur": length, "args": args}


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
            name = f"task {task.id}"
            yield _complete(pid, tid, name, begin, span.end - span.begin, args)
            arrow = {"name": "task", "cat": "task", "id": task.id}
            place = {"pid": pid, "tid": tid, "ts": begin}
            if span.stage == SENDING:
                sent = {"ph": "s", **arrow, **place}
            elif sent is not None:
                # Only a complete arrow: not of a task that never got so far.
                yield sent
                yield {"ph": "f", "bp": "e", **arrow, **place}
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
        place = {"pid": node + 1, "tid": _EXECUTION, "ts": offset + course.end}
        yield {"ph": "i", "s": "p", "name": name, "cat": "failure", **place, "args": args}


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
            args = {"waiting": length[0], "executing": length[1]}
            event = {"ph": "C", "pid": node + 1, "name": "execution queue"}
            yield {**event, "ts": offset + at, "args": args}


def _incidents(
    run: Run, episode: int, offset: Micros, length: Micros, slot: Micros
) -> Iterator[Event]:
    for number, fault in enumerate(run.faults):
        if fault["episode"] != episode or fault["begin"] > length:
            continue
        event = {"pid": _NETWORK, "tid": 0, "name": str(fault["what"]), "cat": "fault"}
        event["id2"] = {"local": hex(number)}
        yield {"ph": "b", **event, "ts": offset + fault["begin"], "args": {**fault}}
        yield {"ph": "e", **event, "ts": offset + min(fault["end"], length)}
    for change in run.changes:
        if change["episode"] == episode:
            event = {"ph": "i", "s": "g", "pid": _NETWORK, "tid": 0, "cat": "change"}
            event["name"] = f"scheduler {change['scheduler']}"
            yield {**event, "ts": offset + change["slot"] * slot, "args": {**change}}
