"""The encoders that policies are trained with, as machine code."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.per_destination import (
    COLUMNS,
    COLUMNS_OF,
    HEARD_COLUMNS,
    STATE_COLUMNS,
    TREND_DECAY,
)
from testbed.sim.engine.compiled import (
    ANSWERS,
    BY_BACKLOG,
    DECIDING,
    PROBES,
    Record,
    compiled,
    heard_at,
    inlined,
    link_at,
    node_at,
    probe_at,
    receiving_at,
    task_at,
)
from testbed.sim.engine.draws import scheduler_draw
from testbed.sim.engine.events import advance
from testbed.sim.engine.hearing import expected_queue, hear_probed, told_overloaded
from testbed.sim.engine.looking import (
    backlog,
    lane_at,
    lane_to,
    queue_length,
    send_backlog,
    sending_work,
)
from testbed.sim.engine.messages import deliver
from testbed.sim.engine.slots import (
    answer_probes,
    nobody_answers,
    overloaded,
    tasks_arrive,
)

WIDTH: Final = len(COLUMNS)
"""F of ``per-destination-v1``, whose columns every per-destination encoder begins with."""

_AGE: Final = WIDTH + STATE_COLUMNS.index("age")
_SENT_SINCE: Final = WIDTH + len(STATE_COLUMNS) + HEARD_COLUMNS.index("sent_since")

ENCODER_OF: Final = {len(columns): name for name, columns in COLUMNS_OF.items()}
"""Per-destination encoders by F."""

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


@inlined
def _arrived(episode: Record, i: int) -> bool:
    """Return whether node ``i`` has a task to decide about; after the last slot none has."""
    if episode.slot >= episode.slots:
        return False
    return bool(task_at(episode, episode.slot * episode.nodes + i).stage == DECIDING)


@compiled
def paper(episode: Record, i: int, out: NDArray[np.float32]) -> None:
    """The features [3 N + 7] of ``paper-v1`` of node ``i`` in the slot to be decided."""
    size = episode.nodes
    node = node_at(episode, i)
    for j in range(size):
        own = j == i
        out[j] = 1.0 if own else 0.0
        out[size + 4 + j] = receiving_at(episode, i, j).value / episode.queue_scale
        rate = link_at(episode, i, j).rate / episode.max_rate
        out[2 * size + 4 + j] = 1.0 if own else rate
    out[size] = node.arrival / episode.max_arrival
    out[size + 1] = node.failure / episode.max_failure
    out[size + 2] = node.capacity / episode.max_capacity
    out[size + 3] = queue_length(node) / episode.queue_scale
    tail = out[3 * size + 4 :]
    if _arrived(episode, i):
        task = task_at(episode, episode.slot * size + i)
        tail[0] = task.size / episode.max_size
        tail[1] = task.cycles / episode.max_cycles
        tail[2] = task.deadline / episode.max_deadline
    else:
        tail[:3] = 0.0


@compiled
def extended(episode: Record, i: int, out: NDArray[np.float32]) -> None:
    """The features [6 N + 7] of ``extended-v1`` of node ``i`` in the slot to be decided."""
    size, longest, now = episode.nodes, episode.max_deadline, episode.now
    paper(episode, i, out)
    out[3 * size + 7 : 4 * size + 7] = 0.0
    for k in range(node_at(episode, i).busy):
        lane = lane_at(episode, i, k)
        sending = lane.work + max(lane.until - now, 0)
        out[3 * size + 7 + lane.peer] = sending / longest
    out[4 * size + 7 + i] = backlog(node_at(episode, i), now) / longest
    out[5 * size + 7 + i] = 0.0
    _add_heard(episode, i, out)


@compiled
def _add_heard(episode: Record, i: int, out: NDArray[np.float32]) -> None:
    size, longest = episode.nodes, episode.max_deadline
    for j in range(size):
        if j != i:
            heard = heard_at(episode, i, j)
            never = heard.at < 0
            age = 1.0 if never else min((episode.now - heard.at) / longest, 1.0)
            out[4 * size + 7 + j] = 0.0 if never else heard.backlog / longest
            out[5 * size + 7 + j] = age


@inlined
def encode(episode: Record, encoder: int, i: int, out: NDArray[np.float32]) -> None:
    """The features [D] of node ``i`` by ``encoder``, as it sees itself now."""
    if encoder == EXTENDED:
        extended(episode, i, out)
    else:
        paper(episode, i, out)


@compiled
def add_answers(episode: Record, encoder: int, features: NDArray[np.float32]) -> None:
    """Add to ``features`` [N, D] the answers that nodes got while they decided in this instant."""
    if encoder == EXTENDED:
        for i in range(episode.nodes):
            _add_heard(episode, i, features[i])


@compiled
def observe(
    episode: Record,
    encoder: int,
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
    draws: NDArray[np.float64],
) -> None:
    """Features [N, D] by ``encoder``, masks [N, N + 1] and the draws [N] to sample with.

    Each of the instant at which its node decides about the tasks of the present slot, and of the
    beginning of the slot where it has none. The slot may be the one after the last.
    """
    size, slot = episode.nodes, episode.slot
    waits = episode.offset[ANSWERS] > 0 and slot < episode.slots
    if waits and episode.looked != slot:
        deliver(episode, episode.now)
        for i in range(size):
            encode(episode, encoder, i, features[i])
    await_answers(episode)
    deliver(episode, episode.now)
    for i in range(size):
        m = slot * size + i
        arrived = _arrived(episode, i)
        if arrived or not waits:
            encode(episode, encoder, i, features[i])
        draws[i] = scheduler_draw(episode, i, m, 0)
        for j in range(size):
            mask[i, j] = arrived and (j == i or probe_at(episode, slot, 0, j).overloaded == 0)
        mask[i, size] = not arrived


@compiled
def await_answers(episode: Record) -> None:
    """Let the tasks of the present slot arrive and all overload bits be asked for, once.

    Afterwards it is the instant of the decisions.
    """
    slot = episode.slot
    if slot >= episode.slots or episode.looked == slot:
        return
    episode.looked = slot
    tasks_arrive(episode, slot)
    begins = slot * episode.slot_length
    if episode.silent != 0:
        nobody_answers(episode, slot)
    else:
        advance(episode, begins + episode.offset[PROBES])
        answer_probes(episode, slot, 0)
    advance(episode, begins + episode.offset[ANSWERS])


@compiled
def per_destination(
    episode: Record,
    turn: int,
    i: int,
    m: int,
    rows: NDArray[np.float32],
    mask: NDArray[np.bool_],
    pool: NDArray[np.int64],
) -> None:
    """The rows [N, F] and the mask [N] for task ``m`` of ``turn`` at ``i``; F tells the encoder.

    ``pool`` [N] is room to work in.
    Follows ``testbed.model.per_destination`` line by line; moves the average of node ``i``.
    """
    size, slot = episode.nodes, turn // episode.turns
    with_states = rows.shape[1] > WIDTH
    if with_states:
        deliver(episode, episode.now)
    if episode.probed > 0 and episode.silent == 0:
        hear_probed(episode, turn, i, m, pool)
    task, own = task_at(episode, m), node_at(episode, i)
    deadline = task.deadline / _SECOND
    own_backlog = backlog(own, episode.now) / _SECOND
    own_overloaded = overloaded(episode, i)
    share = 0.0
    unmasked = 0.0
    for j in range(size):
        if j == i:
            full = own_overloaded
        elif episode.gossip > 0:
            full = told_overloaded(episode, j)
        else:
            full = probe_at(episode, turn, 0, j).overloaded != 0
        mask[j] = j == i or not full
        if mask[j]:
            unmasked += 1.0
        if full:
            share += node_at(episode, j).capacity / episode.total_capacity
    kept = TREND_DECAY ** (slot - own.trend_slot)
    own.trend = kept * own.trend + (1.0 - kept) * share
    own.trend_slot = slot
    own_mean = episode.mean_cycles / own.capacity
    load = own.arrival * own_mean / (episode.slot_length / _SECOND)
    for j in range(size):
        node, out = node_at(episode, j), rows[j]
        execution = task.cycles / node.capacity
        exposure = node.failure * min(execution, deadline)
        wait, transmission, sending = own_backlog, 0.0, 0.0
        if j != i:
            link = link_at(episode, i, j)
            transmission = task.size / link.rate
            sending = send_backlog(episode, i, j, episode.now) / _SECOND
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
        out[14] = 0.0 if mask[j] else 1.0
        out[15] = share
        out[16] = 1.0 if slack > 0.0 else 0.0
        out[17] = math.log(unmasked + 1.0) / 3.0
        out[18] = own.trend
        out[19] = load / (1.0 + load)
        out[20] = min(mean_execution / deadline, 3.0)
        out[21] = min(limit / deadline, 3.0)
        if with_states:
            _add_state(episode, turn, i, m, j, sending + transmission, execution, deadline, out)
    if own_overloaded:
        rows[i, 14] = 1.0


@compiled
def _add_state(
    episode: Record,
    turn: int,
    i: int,
    m: int,
    j: int,
    arrival: float,
    execution: float,
    deadline: float,
    out: NDArray[np.float32],
) -> None:
    """The columns about the state of node ``j``, as node ``i`` knows it when it decides on ``m``.

    By ``per-destination-v2`` all answers are of this very instant, so their age is 0.
    """
    out[WIDTH:] = 0.0
    lane = lane_to(episode, i, j) if j != i else -1
    if lane >= 0:
        work = sending_work(episode, lane_at(episode, i, lane)) / _SECOND
        out[WIDTH + 4] = min(work / deadline, 2.0)
    if j == i:
        own = node_at(episode, i)
        queued = (backlog(own, episode.now) + own.inbound_work) / _SECOND
    elif len(out) > _SENT_SINCE:
        queued, age, since = expected_queue(episode, turn // episode.turns, i, m, j)
        if age < 0.0:
            return
        out[_AGE] = min(age / deadline, 2.0)
        out[_SENT_SINCE] = min(since / deadline, 2.0)
    elif episode.silent != 0:
        return
    else:
        probe = probe_at(episode, turn, 0, j)
        queued = (probe.backlog + probe.inbound_work) / _SECOND
    slack = (deadline - max(queued, arrival) - execution) / deadline
    out[WIDTH] = 1.0
    out[WIDTH + 1] = min(queued / deadline, 2.0)
    out[WIDTH + 2] = max(slack, -2.0)
    out[WIDTH + 3] = 1.0 if slack > 0.0 else 0.0
