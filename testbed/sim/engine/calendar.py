"""The pending events of an episode.

A pending event stands in the bucket of its time: a list through the tasks, which takes no room and
as long for few events as for many. When a bucket's time comes, those of its events that are not
stale go into a heap, ordered by instant, then by ``phase << 56 | node << 36 | task``. Timers are
never cancelled; stale ones are recognised by the stage of their task. The end of what would last
beyond the deadline of its task is no event: the deadline comes first.
"""

from __future__ import annotations

from typing import Final

from testbed.sim.engine.compiled import (
    ENDED,
    EVENT,
    EXECUTION,
    NUMBER,
    RECEIVING,
    TRANSMISSION,
    Record,
    compiled,
    element,
    inlined,
    task_at,
)

EXECUTION_ENDS: Final = 0
TRANSMISSION_ENDS: Final = 1
DEADLINE: Final = 2
"""Phases of pending events; all come before the decisions of their instant."""

_PHASE: Final = 56
_NODE: Final = 36
_TASK_BITS: Final = (1 << _NODE) - 1
_NODE_BITS: Final = (1 << (_PHASE - _NODE)) - 1


@compiled
def push(episode: Record, at: int, phase: int, node: int, task: int) -> None:
    """Add an event of the present bucket to the heap."""
    order = (phase << _PHASE) | (node << _NODE) | task
    index = episode.near
    episode.near = index + 1
    while index > 0:
        parent = (index - 1) >> 1
        above = element(EVENT, episode.near_at, parent)
        if above.at < at or (above.at == at and above.order <= order):
            break
        here = element(EVENT, episode.near_at, index)
        here.at = above.at
        here.order = above.order
        index = parent
    here = element(EVENT, episode.near_at, index)
    here.at = at
    here.order = order


@inlined
def pop(episode: Record) -> None:
    """Remove the first event from the heap."""
    size = episode.near - 1
    episode.near = size
    last = element(EVENT, episode.near_at, size)
    at, order = last.at, last.order
    index = 0
    while True:
        child = 2 * index + 1
        if child >= size:
            break
        below = element(EVENT, episode.near_at, child)
        if child + 1 < size:
            right = element(EVENT, episode.near_at, child + 1)
            if right.at < below.at or (right.at == below.at and right.order < below.order):
                child += 1
                below = right
        if at < below.at or (at == below.at and order <= below.order):
            break
        here = element(EVENT, episode.near_at, index)
        here.at = below.at
        here.order = below.order
        index = child
    here = element(EVENT, episode.near_at, index)
    here.at = at
    here.order = order


@inlined
def _bucket_of(episode: Record, at: int) -> Record:
    number = (at >> episode.shift) & (episode.buckets - 1)
    return element(NUMBER, episode.ring_at, number)


@inlined
def end_at(episode: Record, m: int, at: int, phase: int, node: int) -> None:
    """What task ``m`` is in ends at ``at``."""
    task = task_at(episode, m)
    if at > task.deadline_at:
        return
    task.event_at = at
    if at >> episode.shift <= episode.bucket:
        push(episode, at, phase, node, m)
    else:
        bucket = _bucket_of(episode, at)
        task.event_next = bucket.value
        bucket.value = 2 * m


@inlined
def set_deadline(episode: Record, m: int) -> None:
    """Task ``m`` has arrived at its source and will be dropped at its deadline."""
    task = task_at(episode, m)
    at = task.deadline_at
    if at >> episode.shift <= episode.bucket:
        push(episode, at, DEADLINE, m % episode.nodes, m)
    else:
        bucket = _bucket_of(episode, at)
        task.deadline_next = bucket.value
        bucket.value = 2 * m + 1


@inlined
def next_bucket(episode: Record) -> None:
    """Bring the events of the next bucket into the heap."""
    number = episode.bucket + 1
    episode.bucket = number
    bucket = element(NUMBER, episode.ring_at, number & (episode.buckets - 1))
    entry = bucket.value
    bucket.value = -1
    while entry >= 0:
        m = entry >> 1
        task = task_at(episode, m)
        stage = task.stage
        source, destination = m % episode.nodes, task.destination
        if entry & 1:
            entry = task.deadline_next
            if stage != ENDED:
                holder = destination if stage >= RECEIVING else source
                push(episode, task.deadline_at, DEADLINE, holder, m)
        else:
            entry = task.event_next
            if stage == EXECUTION:
                push(episode, task.event_at, EXECUTION_ENDS, destination, m)
            elif stage == TRANSMISSION:
                push(episode, task.event_at, TRANSMISSION_ENDS, source, m)


@inlined
def phase_of(order: int) -> int:
    """Return the phase of an event."""
    return int(order >> _PHASE)


@inlined
def node_of(order: int) -> int:
    """Return the node of an event."""
    return int((order >> _NODE) & _NODE_BITS)


@inlined
def task_of(order: int) -> int:
    """Return the task of an event."""
    return int(order & _TASK_BITS)
