"""The baseline schedulers as machine code, for thousands of episodes a minute.

Each follows the class of the same name in ``testbed.schedulers`` draw by draw, with answers that
take no time: questions of a round are all answered before the first node decides on them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from testbed.model.units import NEVER
from testbed.sim.engine.compiled import BY_BACKLOG, DECIDING, Record, Row, compiled
from testbed.sim.engine.events import (
    advance,
    answer_probes,
    backlog,
    duration,
    open_episode,
    place,
    scheduler_draw,
    send_backlog,
)

LOCAL: Final = 0
RANDOM: Final = 1
RATC: Final = 2
RDA: Final = 3
RATC_MASKED: Final = 4
RDA_MASKED: Final = 5
LOCAL_OR_RELIABLE: Final = 6
TWO_CHOICE: Final = 7
LEAST_COMPLETION: Final = 8

METHODS: Final[dict[str, int]] = {
    "local": LOCAL,
    "random": RANDOM,
    "ratc": RATC,
    "rda": RDA,
    "ratc-masked": RATC_MASKED,
    "rda-masked": RDA_MASKED,
    "local-or-reliable": LOCAL_OR_RELIABLE,
    "two-choice": TWO_CHOICE,
    "least-completion": LEAST_COMPLETION,
}
"""Schedulers the engine knows, by their registered names."""

_NEVER: Final = int(NEVER)
_SECOND: Final = 1000000.0
_LATER: Final = -1


@compiled
def run_heuristic(row: Row, method: int, number: int) -> None:
    """Run episode ``number`` from the first task to the end of the last."""
    episode, rewards = row.episode, row.rewards
    rewards[:] = np.float32(0.0)
    open_episode(row, number)
    pool = np.empty(episode.nodes, np.int64)
    waits = np.empty(episode.nodes, np.bool_)
    for slot in range(episode.slots):
        advance(row, slot * episode.slot_length)
        decide_slot(row, method, pool, waits)
        episode.slot = slot + 1
    advance(row, _NEVER)


@compiled
def decide_slot(row: Row, method: int, pool: NDArray[np.int64], waits: NDArray[np.bool_]) -> None:
    """Decide and place the tasks of the present slot; ``pool`` and ``waits`` [N] to work in."""
    episode, tasks = row.episode, row.tasks
    size = episode.nodes
    asking = 0
    for i in range(size):
        m = episode.slot * size + i
        waits[i] = False
        if tasks[m].stage != DECIDING:
            continue
        destination = _at_once(row, method, i, m)
        if destination >= 0:
            place(row, m, destination)
            # A failure less than a microsecond after the start comes before the next decision.
            advance(row, episode.now)
        else:
            waits[i] = True
            asking += 1
    for question in range(2):
        if asking == 0:
            return
        answer_probes(row)
        for i in range(size):
            if not waits[i]:
                continue
            m = episode.slot * size + i
            destination = _answered(row, method, i, m, question, pool)
            if destination >= 0:
                waits[i] = False
                asking -= 1
                place(row, m, destination)
                advance(row, episode.now)


@compiled
def _at_once(row: Row, method: int, i: int, m: int) -> int:
    """Return the destination if no peer has to be asked, else ``_LATER``."""
    episode, nodes, tasks = row.episode, row.nodes, row.tasks
    if method == RANDOM:
        return int(scheduler_draw(episode, i, m, 0) * episode.nodes)
    if method == LOCAL or episode.nodes == 1:
        return i
    if method in (RDA, RDA_MASKED, LOCAL_OR_RELIABLE):
        node = nodes[i]
        pending = backlog(node, episode.now)
        length = node.waiting + (1 if node.running >= 0 else 0)
        measured = pending if episode.measure == BY_BACKLOG else length
        if measured < node.limit:
            execution = duration(tasks[m].cycles, node.capacity)
            if method != LOCAL_OR_RELIABLE or pending + execution <= tasks[m].deadline:
                return i
    return _LATER


@compiled
def _answered(row: Row, method: int, i: int, m: int, question: int, pool: NDArray[np.int64]) -> int:
    """Return the destination after the answers to ``question``, ``_LATER`` to ask once more."""
    episode = row.episode
    size = episode.nodes
    if method == LEAST_COMPLETION:
        best, least = i, _completion(row, i, m, i)
        for j in range(size):
            if j != i:
                _hear(row, i, j)
                completion = _completion(row, i, m, j)
                if completion < least:
                    best, least = j, completion
        return best
    if method in (RATC, TWO_CHOICE):
        for j in range(size):
            pool[j] = j
        return _of_two(row, method, i, m, pool, size)
    # The others restrict themselves to unmasked peers, and RATC to the own node too; the bits are
    # those of the first question, of which nothing but the mask is kept.
    count = 0
    for j in range(size):
        if (method == RATC_MASKED and j == i) or (
            j != i and (method == RDA or _bit(row, i, j, question) == 0)
        ):
            pool[count] = j
            count += 1
    if method == LOCAL_OR_RELIABLE:
        return _most_reliable(row, i, m, pool, count)
    if method == RDA or (method == RDA_MASKED and question == 1):
        return _of_two(row, method, i, m, pool, count)
    if method == RDA_MASKED:
        return i if count == 0 else _LATER
    if question == 1 or (count == 1 and pool[0] == i):
        return _of_two(row, method, i, m, pool, count)
    return _LATER


@compiled
def _bit(row: Row, i: int, j: int, question: int) -> int:
    """Return the overload bit of ``j`` in the answer to the first question of ``i``."""
    nodes, links = row.nodes, row.links
    if question == 0:
        links[i, j].bit = nodes[j].overloaded
    return int(links[i, j].bit)


@compiled
def _hear(row: Row, i: int, j: int) -> None:
    """Note the backlog that node ``j`` answers to ``i``."""
    if i != j:
        link = row.links[i, j]
        link.heard_backlog = row.nodes[j].backlog
        link.heard_at = row.episode.now


@compiled
def _sample(
    episode: Record, i: int, m: int, pool: NDArray[np.int64], count: int, counter: int
) -> int:
    """``SchedulerContext.sample``: draw number ``counter`` from the first ``count`` of ``pool``."""
    index = int(scheduler_draw(episode, i, m, counter) * count)
    chosen = pool[index]
    pool[index] = pool[count - 1]
    return int(chosen)


@compiled
def _of_two(row: Row, method: int, i: int, m: int, pool: NDArray[np.int64], count: int) -> int:
    """Draw two of ``pool`` and choose between them by the rule of ``method``."""
    episode, nodes, tasks = row.episode, row.nodes, row.tasks
    first = _sample(episode, i, m, pool, count, 0)
    _hear(row, i, first)
    if count == 1:
        return first
    second = _sample(episode, i, m, pool, count - 1, 1)
    _hear(row, i, second)
    if method == TWO_CHOICE:
        return second if nodes[second].backlog < nodes[first].backlog else first
    one = _completion(row, i, m, first)
    two = _completion(row, i, m, second)
    if method in (RDA, RDA_MASKED):
        return second if two < one else first
    if one > tasks[m].deadline or two > tasks[m].deadline:
        return second if two < one else first
    exposed_one = _exposure(row, i, m, first)
    exposed_two = _exposure(row, i, m, second)
    if exposed_two < exposed_one or (exposed_two == exposed_one and two < one):
        return second
    return first


@compiled
def _most_reliable(row: Row, i: int, m: int, pool: NDArray[np.int64], count: int) -> int:
    episode = row.episode
    best, least = i, np.inf
    for counter in range(min(3, count)):
        chosen = _sample(episode, i, m, pool, count - counter, counter)
        exposure = _exposure(row, i, m, chosen)
        if exposure < least:
            best, least = chosen, exposure
    return best


@compiled
def _completion(row: Row, i: int, m: int, j: int) -> int:
    """``Estimator.candidate(...).completion`` with the backlog that ``j`` answered."""
    episode, nodes, links, tasks = row.episode, row.nodes, row.links, row.tasks
    completion = nodes[j].backlog + duration(tasks[m].cycles, nodes[j].capacity)
    if j != i:
        link = links[i, j]
        completion += send_backlog(link, episode.now) + duration(tasks[m].size, link.rate)
    return int(completion)


@compiled
def _exposure(row: Row, i: int, m: int, j: int) -> float:
    """``Estimator.candidate(...).exposure``."""
    nodes, links, tasks = row.nodes, row.links, row.tasks
    exposure = nodes[j].failure * duration(tasks[m].cycles, nodes[j].capacity)
    if j != i:
        exposure += links[i, j].failure * duration(tasks[m].size, links[i, j].rate)
    return float(exposure / _SECOND)
