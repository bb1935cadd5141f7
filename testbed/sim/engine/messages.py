"""Announcements of transfers and the lengths of receiving queues, where they are kept.

No baseline looks at receiving queues: they are kept for observations and probes that show them.
Messages take the control delay, the same for all, so they arrive in the order they were sent. They
come last in their instant, so they are delivered when the next event that could notice is due.

A task's ``announced`` says what its receiver knows.
"""

from __future__ import annotations

from typing import Final

from testbed.sim.engine.compiled import (
    MESSAGE,
    Record,
    compiled,
    element,
    inlined,
    node_at,
    receiving_at,
    task_at,
)
from testbed.sim.engine.draws import duration

_UNKNOWN: Final = 0
_ANNOUNCED: Final = 1
_RECEIVED: Final = 2
_UNANNOUNCED: Final = 3
"""It was faster than its announcement, which then counts no more."""


@inlined
def announce(episode: Record, m: int) -> None:
    """Announce task ``m``, whose transmission begins, to its receiver."""
    if episode.receiving_at != 0:
        _send(episode, m, 1)


@inlined
def withdraw(episode: Record, m: int) -> None:
    """Tell the receiver of task ``m`` that it will not come."""
    if episode.receiving_at != 0:
        _send(episode, m, -1)


@inlined
def deliver(episode: Record, now: int) -> None:
    """Deliver the messages that have arrived before ``now``."""
    if episode.delivered < episode.sent:
        _deliver(episode, now)


@compiled
def _deliver(episode: Record, now: int) -> None:
    while episode.delivered < episode.sent:
        message = element(MESSAGE, episode.messages_at, episode.delivered)
        if message.at >= now:
            break
        episode.delivered += 1
        m = message.task
        task = task_at(episode, m)
        if message.change > 0:
            if task.announced == _UNANNOUNCED:
                task.announced = _RECEIVED
            else:
                task.announced = _ANNOUNCED
                _count(episode, task.destination, m, 1)
        elif task.announced == _ANNOUNCED:
            task.announced = _UNKNOWN
            _count(episode, task.destination, m, -1)


@inlined
def receive(episode: Record, j: int, m: int) -> None:
    """Task ``m`` was handed over to node ``j``."""
    if episode.receiving_at != 0:
        task = task_at(episode, m)
        if task.announced == _ANNOUNCED:
            task.announced = _RECEIVED
        else:
            task.announced = _UNANNOUNCED
            _count(episode, j, m, 1)


@inlined
def admit_received(episode: Record, j: int, m: int) -> None:
    """Task ``m`` leaves the receiving queue of node ``j`` if it was sent there."""
    if episode.receiving_at != 0:
        leave_received(episode, j, m)


@compiled
def leave_received(episode: Record, j: int, m: int) -> None:
    """As ``admit_received``."""
    if episode.receiving_at != 0 and m % episode.nodes != j:
        _count(episode, j, m, -1)


@compiled
def _send(episode: Record, m: int, change: int) -> None:
    message = element(MESSAGE, episode.messages_at, episode.sent)
    message.at = episode.now + episode.control_delay
    message.task = m
    message.change = change
    episode.sent += 1


@inlined
def _count(episode: Record, j: int, m: int, change: int) -> None:
    node = node_at(episode, j)
    receiving_at(episode, j, m % episode.nodes).value += change
    node.inbound += change
    node.inbound_work += change * duration(task_at(episode, m).cycles, node.capacity)
