"""The present state of nodes and links, as observations and estimates show it."""

from __future__ import annotations

from testbed.sim.engine.compiled import (
    LANE,
    SENDING,
    Record,
    compiled,
    element,
    inlined,
    node_at,
    task_at,
)
from testbed.sim.engine.draws import duration


@inlined
def backlog(node: Record, now: int) -> int:
    """Return the time until the execution queue would be empty."""
    left = node.until - now
    return int(node.work + (left if node.running >= 0 and left > 0 else 0))


@inlined
def queue_length(node: Record) -> int:
    """Return the number of tasks in the execution queue, waiting and running."""
    return int(node.waiting + (1 if node.running >= 0 else 0))


@inlined
def lane_at(episode: Record, i: int, k: int) -> Record:
    """Return the k-th busy link from ``i``."""
    return element(LANE, episode.lanes_at, i * episode.lanes + k)


@inlined
def lane_to(episode: Record, i: int, j: int) -> int:
    """Return the place of the link to ``j`` among the busy ones from ``i``; -1 if it is idle."""
    for k in range(node_at(episode, i).busy):
        if lane_at(episode, i, k).peer == j:
            return k
    return -1


@inlined
def send_backlog(episode: Record, i: int, j: int, now: int) -> int:
    """Return the time until the sending queue from ``i`` to ``j`` would be empty."""
    k = lane_to(episode, i, j)
    if k < 0:
        return 0
    lane = lane_at(episode, i, k)
    return int(lane.work + max(lane.until - now, 0))


@compiled
def sending_work(episode: Record, lane: Record) -> int:
    """Return the time the peer will need to execute what the sending queue of a link holds."""
    capacity = node_at(episode, lane.peer).capacity
    work = duration(task_at(episode, lane.current).cycles, capacity)
    m = lane.first
    while m >= 0:
        task = task_at(episode, m)
        if task.stage == SENDING:
            work += duration(task.cycles, capacity)
        m = task.next
    return int(work)
