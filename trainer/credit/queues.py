"""The credit of each decision, computed exactly from a finished simulated episode.

The credit of a decision is the difference it made: its own task's chance to succeed, plus what its
presence in the execution queue changed for the tasks behind it, all other decisions fixed. The
second part is found by taking the task out of its queue and serving the queue again with the same
failures. See docs/per-destination.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.sim.engine.compiled import (
    ABSENT,
    TRANSMISSION_FAILED,
    Batch,
    Record,
    compiled,
    link_at,
    node_at,
    task_at,
)
from testbed.sim.engine.draws import duration, extend, failure_after, task_id, to_unit
from testbed.sim.engine.threads import Threads


class Credit(NamedTuple):
    """Parts of the credit of every task [E, T * N]; NaN in ``own`` where it is not known.

    ``own`` is the chance of success of a task that was in time and 0 of one that was not; it
    is not known of tasks that failed in transit, which have no place in a queue. ``same`` is what
    the task cost those behind it that were decided with it or before (in its slot or, where nodes
    take turns, in its turn), ``later`` what it cost those decided later;
    both are at most 0, up to failures of the task itself.
    """

    own: NDArray[np.float64]
    same: NDArray[np.float64]
    later: NDArray[np.float64]


def credit_of(batch: Batch, rows: Threads) -> Credit:
    """Return the credit of all tasks of a batch of finished episodes."""
    shape = batch.tasks.shape
    credit = Credit(np.full(shape, np.nan), np.zeros(shape), np.zeros(shape))
    rows.each(_credit, batch, credit)
    return credit


@compiled
def _credit(batch: Batch, first: int, last: int, credit: Credit) -> None:
    for e in range(first, last):
        episode = batch.episodes[e]
        own = credit.own[e]
        for j in range(episode.nodes):
            _of_node(episode, j, Credit(own, credit.same[e], credit.later[e]))
        for m in range(episode.slots * episode.nodes):
            task = task_at(episode, m)
            if task.stage != ABSENT and task.ready_at < 0 and task.outcome != TRANSMISSION_FAILED:
                own[m] = 0.0  # dropped before it arrived


@compiled
def _of_node(episode: Record, j: int, credit: Credit) -> None:
    """Fill in the credit [T * N] of the tasks that entered the execution queue of node ``j``."""
    node = node_at(episode, j)
    tasks = episode.slots * episode.nodes
    count = 0
    for m in range(tasks):
        task = task_at(episode, m)
        if task.destination == j and task.ready_at >= 0:
            count += 1
    queue = np.empty(count, np.int64)
    order = np.empty(count, np.int64)
    at = 0
    for m in range(tasks):
        task = task_at(episode, m)
        if task.destination == j and task.ready_at >= 0:
            queue[at] = m
            order[at] = task.admission
            at += 1
    queue = queue[np.argsort(order)]
    work = np.empty(count, np.int64)
    busy = np.empty(count, np.int64)
    survives = np.empty(count, np.float64)
    for k in range(count):
        m = queue[k]
        task = task_at(episode, m)
        work[k] = duration(task.cycles, node.capacity)
        state = extend(extend(episode.execution_fates, task_id(episode, m)), j)
        busy[k] = min(work[k], failure_after(node.failure, to_unit(state)))
        survives[k] = math.exp(-node.failure * work[k] * 1e-6)
    free = 0
    for k in range(count):
        m = queue[k]
        in_time, after = _serve(episode, task_at(episode, m), work[k], busy[k], free)
        i = m % episode.nodes
        reach = 1.0
        if i != j:
            link = link_at(episode, i, j)
            transmission = duration(task_at(episode, m).size, link.rate)
            reach = math.exp(-link.failure * transmission * 1e-6)
        credit.own[m] = survives[k] * reach if in_time else 0.0
        with_it, without_it = after, free
        turn = m * episode.turns // episode.nodes
        b = k + 1
        while b < count and with_it != without_it:
            behind = task_at(episode, queue[b])
            now_in_time, with_it = _serve(episode, behind, work[b], busy[b], with_it)
            then_in_time, without_it = _serve(episode, behind, work[b], busy[b], without_it)
            if now_in_time != then_in_time:
                change = survives[b] if now_in_time else -survives[b]
                if queue[b] * episode.turns // episode.nodes <= turn:
                    credit.same[m] += change
                else:
                    credit.later[m] += change
            b += 1
        free = after


@compiled
def _serve(episode: Record, task: Record, work: int, busy: int, free: int) -> tuple[bool, int]:
    """Return whether a task on a server free at ``free`` ends in time, and when that is free."""
    start = max(task.ready_at, free)
    if start + work <= task.deadline_at:
        return True, start + busy
    if episode.drop_hopeless != 0 or start >= task.deadline_at:
        return False, free
    return False, min(start + busy, task.deadline_at)
