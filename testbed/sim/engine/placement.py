"""``central`` and ``oracle`` as machine code: placement with the whole network in view.

Follows ``testbed.sim.network.GreedyPlacement`` with the expectations of ``testbed.sim.central`` and
``testbed.sim.oracle``, sum by sum, so that every placement is the same. Tasks of a slot are placed
one after another, in the order of the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.refusal import allow_refusal
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import pack
from testbed.sim.engine.compiled import (
    SENDING,
    WAITING,
    Batch,
    Record,
    asking_at,
    compiled,
    link_at,
    node_at,
    task_at,
)
from testbed.sim.engine.draws import draw_slot
from testbed.sim.engine.events import begin_episode, finish, place, refuse, settle
from testbed.sim.engine.fates import (
    arrives,
    execution_fails_after,
    execution_time,
    transmission_time,
)
from testbed.sim.engine.journal import (
    GENERATED,
    keeps_journal,
    note,
    note_decision,
    note_idle,
    note_waiting,
)
from testbed.sim.engine.looking import backlog, lane_at, send_backlog
from testbed.sim.engine.slots import AT_ONCE, next_stage, opens_slot, tasks_arrive, turn_of
from testbed.sim.engine.threads import Threads, success_rates

CENTRAL: Final = 0
ORACLE: Final = 1
CENTRAL_REJECT: Final = 2

PLACEMENTS: Final[dict[str, int]] = {
    "central": CENTRAL,
    "oracle": ORACLE,
    "central-reject": CENTRAL_REJECT,
}
"""Schedulers of the simulator that the engine knows, by their names."""

_SECOND: Final = 1000000.0
_NONE: Final = -1


class Prospects(NamedTuple):
    """The expectations of each task at the node it was sent to [T * N], and what is on its way.

    The tasks on their way to a node are a list in order of arrival: ``first`` [N] and ``behind``
    [T * N] link it, ``at`` is when each will be there if nothing fails.
    """

    worth: NDArray[np.float64]
    occupied: NDArray[np.int64]
    execution: NDArray[np.int64]
    at: NDArray[np.int64]
    behind: NDArray[np.int64]
    first: NDArray[np.int64]


def score_placement(
    plan: Plan, method: str, numbers: Sequence[int], threads: int | None = None
) -> NDArray[np.float64]:
    """Play episodes ``numbers`` with ``central`` or ``oracle``; the success rates [E].

    Raises:
        UsageError: a plan or a method that the engine does not cover.
    """
    if method not in PLACEMENTS:
        raise UsageError(
            "the compiled engine has no such placement",
            [Problem("method", method, f"one of {', '.join(PLACEMENTS)}")],
        )
    if method == "central-reject":
        allow_refusal(plan.rules, method)
    batch = pack([plan] * len(numbers))
    Threads(len(numbers), threads).each(
        _score, batch, PLACEMENTS[method], np.asarray(numbers, np.int64)
    )
    return success_rates(batch)


@compiled
def _score(batch: Batch, first: int, last: int, method: int, numbers: NDArray[np.int64]) -> None:
    for e in range(first, last):
        run_placement(batch.episodes[e], method, numbers[e])


@compiled
def run_placement(episode: Record, method: int, number: int) -> None:
    """Run episode ``number`` from the first task to the end of the last."""
    begin_episode(episode, number)
    prospects = prospects_of(episode)
    while play_slot(episode, method, prospects) >= 0:
        pass


@compiled
def prospects_of(episode: Record) -> Prospects:
    """Return room for the prospects of an episode."""
    count = episode.slots * episode.nodes
    return Prospects(
        np.zeros(count),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.zeros(episode.nodes, np.int64),
    )


@compiled
def play_slot(episode: Record, method: int, prospects: Prospects) -> int:
    """Go on to the next turn of a slot and place its tasks; returns -1 after the end."""
    stage = next_stage(episode, AT_ONCE)
    if stage < 0:
        finish(episode)
        return stage
    turn = turn_of(episode, stage)
    if opens_slot(episode, turn):
        draw_slot(episode, turn // episode.turns)
    tasks_arrive(episode, turn)
    place_turn(episode, method, turn, prospects)
    return stage


@compiled
def place_turn(episode: Record, method: int, turn: int, prospects: Prospects) -> None:
    """Decide and place the tasks of ``turn``, which have arrived."""
    size, slot = episode.nodes, turn // episode.turns
    ended = _NONE
    arriving = keeps_journal(episode) and opens_slot(episode, turn)
    idle = 0
    for k in range(asking_at(episode, turn, size).value):
        i = asking_at(episode, turn, k).value
        m = slot * size + i
        if arriving:
            note_idle(episode, slot, idle, i)
            idle = i + 1
            note(episode, GENERATED, m, i, episode.now, 0)
        # Within an instant only a task that ends changes what is on its way, besides a placement.
        if episode.ended != ended:
            _look(episode, prospects)
        destination, gain = _best(episode, method, m, prospects)
        if method == CENTRAL_REJECT and gain <= _cost(episode, m, prospects):
            if keeps_journal(episode):
                note_decision(episode, slot, i, True, _NONE, 0)
            refuse(episode, m)
            ended = episode.ended
            continue
        _, execution, worth, occupied = _expected(episode, method, m, destination)
        prospects.worth[m], prospects.occupied[m] = worth, occupied
        prospects.execution[m] = execution
        if destination != i:
            at = episode.now + send_backlog(episode, i, destination, episode.now)
            at += transmission_time(episode, m, destination)
            _insert(prospects, destination, m, at, size)
        ended = episode.ended
        if keeps_journal(episode):
            note_decision(episode, slot, i, True, destination, 0)
        place(episode, m, destination)
        settle(episode)
    if arriving:
        note_waiting(episode, slot, idle)


@compiled
def _look(episode: Record, prospects: Prospects) -> None:
    """Find all tasks that are on their way now, and when they will be there."""
    size, now = episode.nodes, episode.now
    prospects.first[:] = _NONE
    for i in range(size):
        for k in range(node_at(episode, i).busy):
            lane = lane_at(episode, i, k)
            at = max(now, lane.until)
            _insert(prospects, lane.peer, lane.current, at, size)
            m = lane.first
            while m >= 0:
                task = task_at(episode, m)
                if task.stage == SENDING:
                    at += task.work
                    _insert(prospects, lane.peer, m, at, size)
                m = task.next


@compiled
def _insert(prospects: Prospects, j: int, m: int, at: int, size: int) -> None:
    """Put task ``m`` among those on their way to ``j``; of equal instants by source, then age."""
    before, behind = _NONE, prospects.first[j]
    while behind >= 0 and not _precedes(prospects, m, at, behind, size):
        before, behind = behind, prospects.behind[behind]
    prospects.at[m] = at
    prospects.behind[m] = behind
    if before >= 0:
        prospects.behind[before] = m
    else:
        prospects.first[j] = m


@compiled
def _precedes(prospects: Prospects, m: int, at: int, other: int, size: int) -> bool:
    """Return whether task ``m``, there at ``at``, comes before ``other``."""
    if at != prospects.at[other]:
        return bool(at < prospects.at[other])
    if m % size != other % size:
        return bool(m % size < other % size)
    return m < other


@compiled
def _best(episode: Record, method: int, m: int, prospects: Prospects) -> tuple[int, float]:
    """``GreedyPlacement.best``."""
    size, now = episode.nodes, episode.now
    i = m % size
    best, least, shortest, earliest = i, np.inf, 0, 0
    for j in range(size):
        transmission, execution, worth, occupied = _expected(episode, method, m, j)
        at = now + transmission
        if j != i:
            at += send_backlog(episode, i, j, now)
        free = _free_at(episode, method, j, prospects)
        ahead = prospects.first[j]
        while ahead >= 0 and not _precedes(prospects, m, at, ahead, size):
            _, free = _serve(episode, ahead, prospects.at[ahead], free, prospects)
            ahead = prospects.behind[ahead]
        prospects.worth[m], prospects.occupied[m] = worth, occupied
        prospects.execution[m] = execution
        alone, after = _serve(episode, m, at, free, prospects)
        without, with_it, one, other = 0.0, 0.0, free, after
        while ahead >= 0:
            gain, one = _serve(episode, ahead, prospects.at[ahead], one, prospects)
            without += gain
            gain, other = _serve(episode, ahead, prospects.at[ahead], other, prospects)
            with_it += gain
            ahead = prospects.behind[ahead]
        used = after - max(free, at) if after > free else 0
        loss = without - alone - with_it
        if loss < least or (
            loss == least and (used < shortest or (used == shortest and at < earliest))
        ):
            best, least, shortest, earliest = j, loss, used, at
    return int(best), -least


@compiled
def _cost(episode: Record, m: int, prospects: Prospects) -> float:
    """``CentralReject.cost``."""
    work = 0.0
    for j in range(episode.nodes):
        node = node_at(episode, j)
        work += float(backlog(node, episode.now)) * node.capacity / _SECOND
        k = prospects.first[j]
        while k >= 0:
            work += float(task_at(episode, k).cycles)
            k = prospects.behind[k]
    task = task_at(episode, m)
    fill = work / (episode.total_capacity * (task.deadline / _SECOND))
    return float(episode.central_price * fill * fill * task.cycles)


@compiled
def _serve(episode: Record, m: int, at: int, free: int, prospects: Prospects) -> tuple[float, int]:
    """Expected successes of task ``m``, and when the server will be free after it."""
    start = max(free, at)
    deadline = task_at(episode, m).deadline_at
    if start + prospects.execution[m] <= deadline:
        return float(prospects.worth[m]), int(start + prospects.occupied[m])
    if episode.drop_hopeless == 0 and start < deadline:
        return 0.0, int(min(start + prospects.occupied[m], deadline))
    return 0.0, free


@compiled
def _expected(episode: Record, method: int, m: int, j: int) -> tuple[int, int, float, int]:
    """Transmission and execution time of task ``m`` at ``j``, ``worth`` and ``occupied``."""
    transmission, execution = transmission_time(episode, m, j), execution_time(episode, m, j)
    if method == ORACLE:
        if not arrives(episode, m, j):
            return transmission, execution, 0.0, 0
        fails_after = execution_fails_after(episode, m, j)
        worth = 1.0 if fails_after >= execution else 0.0
        return transmission, execution, worth, min(execution, fails_after)
    exposure = node_at(episode, j).failure * execution
    i = m % episode.nodes
    if j != i:
        exposure += link_at(episode, i, j).failure * transmission
    return transmission, execution, math.exp(-exposure / _SECOND), execution


@compiled
def _free_at(episode: Record, method: int, j: int, prospects: Prospects) -> int:
    """``Expectation.free_at`` or ``Foresight.free_at``."""
    node = node_at(episode, j)
    now = episode.now
    if method != ORACLE:
        return int(now + backlog(node, now))
    free = now
    if node.running >= 0:
        task = task_at(episode, node.running)
        began = node.until - task.work
        free = min(began + prospects.occupied[node.running], task.deadline_at)
    m = node.first
    while m >= 0:
        task = task_at(episode, m)
        if task.stage == WAITING:
            occupied = prospects.occupied[m]
            if free + task.work <= task.deadline_at:
                free += occupied
            elif episode.drop_hopeless == 0:
                free = max(free, min(free + occupied, task.deadline_at))
        m = task.next
    return int(free)
