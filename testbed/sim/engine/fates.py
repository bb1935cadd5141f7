"""Fates of tasks at units, from the same draws that the events make: known before they happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import pack, without_control_delay
from testbed.sim.engine.compiled import (
    DECIDING,
    Batch,
    Record,
    compiled,
    link_at,
    node_at,
    task_at,
)
from testbed.sim.engine.draws import duration, extend, failure_after, task_id, to_unit
from testbed.sim.engine.events import open_episode
from testbed.sim.engine.threads import Threads

_AT_ONCE: Final = 64


@compiled
def execution_fails_after(episode: Record, m: int, j: int) -> int:
    """Return the time that node ``j`` could work on task ``m`` before it fails."""
    state = extend(extend(episode.execution_fates, task_id(episode, m)), j)
    return failure_after(node_at(episode, j).failure, to_unit(state))


@compiled
def transmission_fails_after(episode: Record, m: int, j: int) -> int:
    """Return the time that the link from its source to ``j`` could send ``m`` before it fails."""
    i = m % episode.nodes
    state = extend(episode.transmission_fates, task_id(episode, m))
    state = extend(state, i * episode.nodes + j)
    return failure_after(link_at(episode, i, j).failure, to_unit(state))


@compiled
def execution_time(episode: Record, m: int, j: int) -> int:
    """``Topology.execution_time``."""
    return duration(task_at(episode, m).cycles, node_at(episode, j).capacity)


@compiled
def transmission_time(episode: Record, m: int, j: int) -> int:
    """``Topology.transmission_time`` from the source of task ``m``."""
    i = m % episode.nodes
    if i == j:
        return 0
    return duration(task_at(episode, m).size, link_at(episode, i, j).rate)


@compiled
def arrives(episode: Record, m: int, j: int) -> bool:
    """Return whether task ``m`` gets to node ``j`` without a failure of the link."""
    if m % episode.nodes == j:
        return True
    return transmission_fails_after(episode, m, j) >= transmission_time(episode, m, j)


def bounds(plan: Plan, numbers: Sequence[int], threads: int | None = None) -> NDArray[np.float64]:
    """``testbed.sim.bound.bound`` of episodes ``numbers`` [E]; NaN in one without a task.

    Raises:
        UsageError: a plan that the compiled engine does not cover.
    """
    plan = without_control_delay(plan)
    episodes = np.asarray(numbers, np.int64)
    found = np.empty(len(episodes))
    for start in range(0, len(episodes), _AT_ONCE):
        part = episodes[start : start + _AT_ONCE]
        out = found[start : start + _AT_ONCE]
        Threads(len(part), threads).each(_bounds, pack([plan] * len(part)), part, out)
    return found


@compiled
def _bounds(
    batch: Batch, first: int, last: int, numbers: NDArray[np.int64], out: NDArray[np.float64]
) -> None:
    for e in range(first, last):
        episode = batch.episodes[e]
        open_episode(episode, numbers[e])
        attainable = 0
        for m in range(episode.slots * episode.nodes):
            if task_at(episode, m).stage == DECIDING and _attainable(episode, m):
                attainable += 1
        tasks = episode.tasks
        out[e] = attainable / tasks if tasks > 0 else np.nan


@compiled
def _attainable(episode: Record, m: int) -> bool:
    """Return whether task ``m`` would succeed at some node with the network to itself."""
    for j in range(episode.nodes):
        execution = execution_time(episode, m, j)
        in_time = transmission_time(episode, m, j) + execution <= task_at(episode, m).deadline
        if in_time and execution_fails_after(episode, m, j) >= execution and arrives(episode, m, j):
            return True
    return False
