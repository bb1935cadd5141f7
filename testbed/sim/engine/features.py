"""What the nodes observe, as machine code: the encoders that policies are trained with.

``answer_probes`` must have been called at this instant: it is what the peers answered.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from testbed.model.per_destination import COLUMNS, TREND_DECAY
from testbed.sim.engine.compiled import BY_BACKLOG, DECIDING, Row, compiled
from testbed.sim.engine.events import answer_probes, scheduler_draw, send_backlog

WIDTH: Final = len(COLUMNS)
_SECOND: Final = 1000000.0


@compiled
def _arrived(row: Row, i: int) -> bool:
    """Whether node ``i`` has a task to decide about; after the last slot nobody has."""
    episode, tasks = row.episode, row.tasks
    if episode.slot >= episode.slots:
        return False
    return bool(tasks[episode.slot * episode.nodes + i].stage == DECIDING)


@compiled
def paper(row: Row, i: int, out: NDArray[np.float32]) -> None:
    """The features [3 N + 7] of ``paper-v1`` of node ``i`` in the slot to be decided."""
    episode, nodes, links, tasks = row.episode, row.nodes, row.links, row.tasks
    size = episode.nodes
    node = nodes[i]
    for j in range(size):
        out[j] = 1.0 if j == i else 0.0
        out[size + 4 + j] = links[j, i].receiving / episode.queue_scale
        out[2 * size + 4 + j] = 1.0 if j == i else links[i, j].rate / episode.max_rate
    out[size] = node.arrival / episode.max_arrival
    out[size + 1] = node.failure / episode.max_failure
    out[size + 2] = node.capacity / episode.max_capacity
    out[size + 3] = (node.waiting + (1 if node.running >= 0 else 0)) / episode.queue_scale
    tail = out[3 * size + 4 :]
    if _arrived(row, i):
        task = tasks[episode.slot * size + i]
        tail[0] = task.size / episode.max_size
        tail[1] = task.cycles / episode.max_cycles
        tail[2] = task.deadline / episode.max_deadline
    else:
        tail[:] = 0.0


@compiled
def observe(
    row: Row, features: NDArray[np.float32], mask: NDArray[np.bool_], draws: NDArray[np.float64]
) -> None:
    """``paper-v1`` features [N, 3 N + 7], masks [N, N + 1] and the draws [N] to sample with."""
    episode, nodes = row.episode, row.nodes
    size = episode.nodes
    answer_probes(row)
    for i in range(size):
        m = episode.slot * size + i
        arrived = _arrived(row, i)
        paper(row, i, features[i])
        draws[i] = scheduler_draw(episode, i, m, 0)
        for j in range(size):
            mask[i, j] = arrived and (j == i or nodes[j].overloaded == 0)
        mask[i, size] = not arrived


@compiled
def per_destination(
    row: Row, i: int, m: int, rows: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    """The rows [N, WIDTH] and the mask [N] of ``per-destination-v1`` for task ``m`` at ``i``.

    Follows ``testbed.model.per_destination`` line by line; moves the average of node ``i``.
    """
    episode, nodes, links, tasks = row.episode, row.nodes, row.links, row.tasks
    size = episode.nodes
    task, own = tasks[m], nodes[i]
    deadline = task.deadline / _SECOND
    backlog = own.backlog / _SECOND
    share = 0.0
    unmasked = 0.0
    for j in range(size):
        mask[j] = j == i or nodes[j].overloaded == 0
        if mask[j]:
            unmasked += 1.0
        if nodes[j].overloaded != 0:
            share += nodes[j].capacity / episode.total_capacity
    kept = TREND_DECAY ** (episode.slot - own.trend_slot)
    own.trend = kept * own.trend + (1.0 - kept) * share
    own.trend_slot = episode.slot
    own_mean = episode.mean_cycles / own.capacity
    load = own.arrival * own_mean / (episode.slot_length / _SECOND)
    for j in range(size):
        node, out = nodes[j], rows[j]
        execution = task.cycles / node.capacity
        exposure = node.failure * min(execution, deadline)
        wait, transmission, sending = backlog, 0.0, 0.0
        if j != i:
            link = links[i, j]
            transmission = task.size / link.rate
            sending = send_backlog(link, episode.now) / _SECOND
            wait = sending
            exposure += link.failure * transmission
        slack = (deadline - wait - transmission - execution) / deadline
        mean_execution = episode.mean_cycles / node.capacity
        limit = float(node.limit)
        if episode.measure == BY_BACKLOG:
            limit = limit / _SECOND
        else:
            limit = limit * mean_execution
        out[0] = 1.0 if j == i else 0.0
        out[1] = task.size / episode.max_size
        out[2] = task.cycles / episode.max_cycles
        out[3] = min(transmission / deadline, 3.0)
        out[4] = min(sending / deadline, 3.0)
        out[5] = min(execution / deadline, 3.0)
        out[6] = max(slack, -2.0)
        out[7] = min(4.0 * exposure, 4.0)
        out[8] = min(2.5 * node.failure * deadline, 4.0)
        out[9] = node.capacity / episode.max_capacity
        out[10] = min(backlog / deadline, 1.5)
        out[11] = own.capacity / episode.max_capacity
        out[12] = min(2.5 * own.failure * deadline, 4.0)
        out[13] = own.arrival
        out[14] = 1.0 if node.overloaded != 0 else 0.0
        out[15] = share
        out[16] = 1.0 if slack > 0.0 else 0.0
        out[17] = math.log(unmasked + 1.0) / 3.0
        out[18] = own.trend
        out[19] = load / (1.0 + load)
        out[20] = min(mean_execution / deadline, 3.0)
        out[21] = min(limit / deadline, 3.0)
