"""The encoders that policies are trained with, as machine code.

``answer_probes`` must have been called at this instant: it is what the peers answered.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.per_destination import COLUMNS, TREND_DECAY
from testbed.sim.engine.compiled import BY_BACKLOG, DECIDING, Row, compiled
from testbed.sim.engine.events import answer_probes, backlog, scheduler_draw, send_backlog

WIDTH: Final = len(COLUMNS)

PAPER: Final = 0
EXTENDED: Final = 1
KERNELS: Final[dict[str, int]] = {"paper-v1": PAPER, "extended-v1": EXTENDED}
"""Encoders of ``testbed.model.encoders`` that ``observe`` can compute, by their names."""

_SECOND: Final = 1000000.0


def kernel_of(encoder: str) -> int:
    """Return the number of an encoder for ``observe``.

    Raises:
        UsageError: the engine cannot compute this encoder.
    """
    if encoder not in KERNELS:
        raise UsageError(
            "the compiled engine cannot compute this encoder",
            [Problem("encoder", repr(encoder), f"one of {', '.join(KERNELS)}")],
        )
    return KERNELS[encoder]


@compiled
def _arrived(row: Row, i: int) -> bool:
    """Return whether node ``i`` has a task to decide about; after the last slot none has."""
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
def extended(row: Row, i: int, out: NDArray[np.float32]) -> None:
    """The features [6 N + 7] of ``extended-v1`` of node ``i`` in the slot to be decided."""
    episode = row.episode
    size, longest = episode.nodes, episode.max_deadline
    paper(row, i, out)
    for j in range(size):
        sending = 0 if j == i else send_backlog(row.links[i, j], episode.now)
        out[3 * size + 7 + j] = sending / longest
    out[4 * size + 7 + i] = backlog(row.nodes[i], episode.now) / longest
    out[5 * size + 7 + i] = 0.0
    _add_heard(row, i, out)


@compiled
def _add_heard(row: Row, i: int, out: NDArray[np.float32]) -> None:
    episode = row.episode
    size, longest = episode.nodes, episode.max_deadline
    for j in range(size):
        if j != i:
            link = row.links[i, j]
            never = link.heard_at < 0
            age = 1.0 if never else min((episode.now - link.heard_at) / longest, 1.0)
            out[4 * size + 7 + j] = 0.0 if never else link.heard_backlog / longest
            out[5 * size + 7 + j] = age


@compiled
def add_answers(row: Row, encoder: int, features: NDArray[np.float32]) -> None:
    """Add to ``features`` [N, D] the answers that nodes got while they decided in this instant."""
    if encoder == EXTENDED:
        for i in range(row.episode.nodes):
            _add_heard(row, i, features[i])


@compiled
def observe(
    row: Row,
    encoder: int,
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
    draws: NDArray[np.float64],
) -> None:
    """Features [N, D] by ``encoder``, masks [N, N + 1] and the draws [N] to sample with."""
    episode, nodes = row.episode, row.nodes
    size = episode.nodes
    answer_probes(row)
    for i in range(size):
        m = episode.slot * size + i
        arrived = _arrived(row, i)
        if encoder == EXTENDED:
            extended(row, i, features[i])
        else:
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
    own_backlog = own.backlog / _SECOND
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
        wait, transmission, sending = own_backlog, 0.0, 0.0
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
        out[10] = min(own_backlog / deadline, 1.5)
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
