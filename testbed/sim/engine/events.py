"""The compiled engine: the model of one episode as machine code, equal to ``NodeState``.

Guarantees, to the microsecond, what ``testbed.sim.simulator`` gives for plans without control
delay: the same draws, and the same order of events at equal instants (execution ends, transmissions
end with the hand-over, deadlines, arrivals and decisions, announcements). Here are the events; how
decisions are made is in ``heuristics``, ``features`` and ``vector``.

A pending event is ordered by instant, then by ``phase << 56 | node << 36 | task``. Timers are never
cancelled; stale ones are recognised by the stage of their task.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from testbed.model.draws import GOLDEN, MIX_1, MIX_2, Purpose
from testbed.model.units import NEVER
from testbed.sim.engine.compiled import (
    ABSENT,
    BY_BACKLOG,
    DECIDING,
    DROPPED,
    ENDED,
    EXECUTION,
    EXECUTION_FAILED,
    OPEN,
    SENDING,
    SUCCEEDED,
    TRANSMISSION,
    TRANSMISSION_FAILED,
    WAITING,
    Record,
    Row,
    compiled,
)

EXECUTION_ENDS: Final = 0
TRANSMISSION_ENDS: Final = 1
DEADLINE: Final = 2
ANNOUNCEMENT: Final = 3
WITHDRAWAL: Final = 4
"""Phases of pending events. The last two come after the decisions of their instant."""

_PHASE: Final = 56
_NODE: Final = 36
_TASK_BITS: Final = (1 << _NODE) - 1
_NODE_BITS: Final = (1 << (_PHASE - _NODE)) - 1

_GOLDEN: Final = np.uint64(GOLDEN)
_MIX_1: Final = np.uint64(MIX_1)
_MIX_2: Final = np.uint64(MIX_2)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ARRIVAL: Final = int(Purpose.ARRIVAL)
_SIZE: Final = int(Purpose.SIZE)
_COMPLEXITY: Final = int(Purpose.COMPLEXITY)
_DEADLINE: Final = int(Purpose.DEADLINE)
_EXECUTION_FATE: Final = int(Purpose.EXECUTION_FATE)
_TRANSMISSION_FATE: Final = int(Purpose.TRANSMISSION_FATE)
_SCHEDULER: Final = int(Purpose.SCHEDULER)
_NEVER: Final = int(NEVER)


# --- draws ----------------------------------------------------------------------------------


@compiled
def extend(state: np.uint64, word: int | np.uint64) -> np.uint64:
    """``testbed.model.draws.extend`` by one word."""
    state = (state ^ np.uint64(word)) + _GOLDEN
    state = (state ^ (state >> _S30)) * _MIX_1
    state = (state ^ (state >> _S27)) * _MIX_2
    return state ^ (state >> _S31)


@compiled
def to_unit(state: np.uint64) -> float:
    """``testbed.model.draws.to_unit``."""
    return (float(state >> _S11) + 0.5) * 2.0**-53


@compiled
def key(seed: np.uint64, purpose: int, episode: int) -> np.uint64:
    """``testbed.model.draws.key(seed, purpose, episode)``."""
    return extend(extend(extend(np.uint64(0), seed), purpose), episode)


@compiled
def failure_after(rate: float, u: float) -> int:
    """``testbed.model.draws.failure_after``."""
    if rate <= 0.0:
        return _NEVER
    after = -math.log(u) / rate * 1000000.0
    if after >= float(_NEVER):
        return _NEVER
    return int(after)


@compiled
def duration(amount: int, per_second: int) -> int:
    """``testbed.model.units.duration``."""
    return (2 * amount * 1000000 + per_second) // (2 * per_second)


@compiled
def task_id(episode: Record, task: int) -> int:
    """Return the id, unique in the run, of task number ``task`` of this episode."""
    return int(episode.episode * episode.slots * episode.nodes + task)


@compiled
def scheduler_draw(episode: Record, node: int, task: int, counter: int) -> float:
    """``SchedulerContext.uniform`` of ``node`` for ``task``."""
    state = extend(episode.scheduler_draws, task_id(episode, task))
    return to_unit(extend(extend(state, node), counter))


# --- pending events -------------------------------------------------------------------------


@compiled
def push(row: Row, at: int, phase: int, node: int, task: int) -> None:
    """Add an event to the heap."""
    episode, events = row.episode, row.events
    order = (phase << _PHASE) | (node << _NODE) | task
    index = episode.pending
    episode.pending = index + 1
    while index > 0:
        parent = (index - 1) >> 1
        above = events[parent]
        if above.at < at or (above.at == at and above.order <= order):
            break
        events[index].at = above.at
        events[index].order = above.order
        index = parent
    events[index].at = at
    events[index].order = order


@compiled
def pop(row: Row) -> None:
    """Remove the first event from the heap."""
    episode, events = row.episode, row.events
    size = episode.pending - 1
    episode.pending = size
    at = events[size].at
    order = events[size].order
    index = 0
    while True:
        child = 2 * index + 1
        if child >= size:
            break
        if child + 1 < size:
            left, right = events[child], events[child + 1]
            if right.at < left.at or (right.at == left.at and right.order < left.order):
                child += 1
        below = events[child]
        if at < below.at or (at == below.at and order <= below.order):
            break
        events[index].at = below.at
        events[index].order = below.order
        index = child
    events[index].at = at
    events[index].order = order


# --- arrivals -------------------------------------------------------------------------------


@compiled
def open_episode(row: Row, number: int) -> None:
    """Forget everything that moved and draw the tasks of episode ``number``."""
    episode, nodes, links, tasks = row.episode, row.nodes, row.links, row.tasks
    size, slots = episode.nodes, episode.slots
    episode.episode = number
    episode.now = 0
    episode.slot = 0
    episode.pending = 0
    episode.tasks = 0
    episode.admissions = 0
    episode.ended = 0
    episode.succeeded = 0
    episode.execution_fates = key(episode.faults_seed, _EXECUTION_FATE, number)
    episode.transmission_fates = key(episode.faults_seed, _TRANSMISSION_FATE, number)
    episode.scheduler_draws = key(episode.schedulers_seed, _SCHEDULER, number)
    for i in range(size):
        node = nodes[i]
        node.running = -1
        node.until = 0
        node.first = -1
        node.last = -1
        node.waiting = 0
        node.work = 0
        node.trend = 0.0
        node.trend_slot = -1
        for j in range(size):
            link = links[i, j]
            link.current = -1
            link.until = 0
            link.first = -1
            link.last = -1
            link.length = 0
            link.work = 0
            link.receiving = 0
            link.bit = 0
            link.heard_at = -1
    arrival = key(episode.workload_seed, _ARRIVAL, number)
    keys = (
        key(episode.workload_seed, _SIZE, number),
        key(episode.workload_seed, _COMPLEXITY, number),
        key(episode.workload_seed, _DEADLINE, number),
    )
    for i in range(size):
        arrives = extend(arrival, i)
        of_node = (extend(keys[0], i), extend(keys[1], i), extend(keys[2], i))
        for slot in range(slots):
            task = tasks[slot * size + i]
            task.outcome = OPEN
            task.destination = -1
            task.ready_at = -1
            task.started_at = -1
            task.ended_at = -1
            task.failing = 0
            task.next = -1
            if to_unit(extend(arrives, slot)) >= nodes[i].arrival:
                task.stage = ABSENT
                continue
            task.stage = DECIDING
            episode.tasks += 1
            task.size = _draw(row, 0, to_unit(extend(of_node[0], slot)))
            per_bit = _value(row, 1, to_unit(extend(of_node[1], slot)))
            task.cycles = int(np.rint(float(8 * task.size) * per_bit))
            task.deadline = _draw(row, 2, to_unit(extend(of_node[2], slot)))
            task.deadline_at = slot * episode.slot_length + task.deadline


@compiled
def _value(row: Row, which: int, u: float) -> float:
    episode, choices = row.episode, row.choices
    count = episode.distribution[which]
    if count > 0:
        return float(choices[which, int(u * count)])
    return float(episode.low[which] + episode.span[which] * u)


@compiled
def _draw(row: Row, which: int, u: float) -> int:
    return int(np.rint(_value(row, which, u)))


# --- looking --------------------------------------------------------------------------------


@compiled
def backlog(node: Record, now: int) -> int:
    """Return the time until the execution queue would be empty."""
    if node.running >= 0 and node.until > now:
        return int(node.work + node.until - now)
    return int(node.work)


@compiled
def send_backlog(link: Record, now: int) -> int:
    """Return the time until the sending queue of this link would be empty."""
    if link.until > now:
        return int(link.work + link.until - now)
    return int(link.work)


@compiled
def answer_probes(row: Row) -> None:
    """Write down what every node answers to a probe now."""
    episode, nodes, links = row.episode, row.nodes, row.links
    now = episode.now
    for i in range(episode.nodes):
        node = nodes[i]
        node.queue_length = node.waiting + (1 if node.running >= 0 else 0)
        node.backlog = backlog(node, now)
        measured = node.backlog if episode.measure == BY_BACKLOG else node.queue_length
        node.overloaded = 1 if measured >= node.limit else 0
        inbound = 0
        for j in range(episode.nodes):
            inbound += links[j, i].receiving
        node.inbound = inbound


# --- the life of a task ---------------------------------------------------------------------


@compiled
def _end(row: Row, task: Record, outcome: int, now: int) -> None:
    episode, rewards = row.episode, row.rewards
    task.stage = ENDED
    task.outcome = outcome
    task.ended_at = now
    episode.ended += 1
    slot = min(now // episode.slot_length, episode.slots - 1)
    if outcome == SUCCEEDED:
        episode.succeeded += 1
        rewards[slot] += np.float32(1.0)
    else:
        rewards[slot] -= np.float32(1.0)


@compiled
def _start_next(row: Row, i: int, now: int) -> None:
    """Start the first task in the queue of node ``i`` that can still finish."""
    episode, nodes, tasks = row.episode, row.nodes, row.tasks
    node = nodes[i]
    while node.first >= 0 and node.running < 0:
        m = node.first
        task = tasks[m]
        node.first = task.next
        if node.first < 0:
            node.last = -1
        if task.stage != WAITING:
            continue  # dropped while it waited; it was left in the queue
        node.waiting -= 1
        node.work -= task.work
        if episode.drop_hopeless != 0 and now + task.work > task.deadline_at:
            _end(row, task, DROPPED, now)
            continue
        task.stage = EXECUTION
        task.started_at = now
        node.running = m
        node.until = now + task.work
        state = extend(extend(episode.execution_fates, task_id(episode, m)), i)
        fate = failure_after(node.failure, to_unit(state))
        task.failing = 1 if fate < task.work else 0
        push(row, now + min(fate, task.work), EXECUTION_ENDS, i, m)


@compiled
def _admit(row: Row, i: int, m: int, now: int) -> None:
    """Task ``m`` enters the execution queue of node ``i``."""
    episode, nodes, tasks = row.episode, row.nodes, row.tasks
    node, task = nodes[i], tasks[m]
    task.stage = WAITING
    task.ready_at = now
    task.admission = episode.admissions
    episode.admissions += 1
    task.work = duration(task.cycles, node.capacity)
    task.next = -1
    if node.last >= 0:
        tasks[node.last].next = m
    else:
        node.first = m
    node.last = m
    node.waiting += 1
    node.work += task.work
    if node.running < 0:
        _start_next(row, i, now)


@compiled
def _tell(row: Row, i: int, j: int, change: int, now: int) -> None:
    """Announce a transfer from ``i`` to ``j`` (``change`` 1) or withdraw it (-1)."""
    episode, links = row.episode, row.links
    if now == episode.slot * episode.slot_length and episode.slot < episode.slots:
        # Not to be seen by the decisions of this instant.
        phase = ANNOUNCEMENT if change > 0 else WITHDRAWAL
        push(row, now, phase, j, i)
    else:
        links[i, j].receiving += change


@compiled
def _start_transmission(row: Row, i: int, j: int, m: int) -> None:
    episode, links, tasks = row.episode, row.links, row.tasks
    link, task, now = links[i, j], tasks[m], episode.now
    task.stage = TRANSMISSION
    link.current = m
    link.until = now + task.work
    state = extend(episode.transmission_fates, task_id(episode, m))
    fate = failure_after(link.failure, to_unit(extend(state, i * episode.nodes + j)))
    task.failing = 1 if fate < task.work else 0
    _tell(row, i, j, 1, now)
    push(row, now + min(fate, task.work), TRANSMISSION_ENDS, i, m)


@compiled
def _free_link(row: Row, i: int, j: int) -> None:
    links, tasks = row.links, row.tasks
    link = links[i, j]
    link.current = -1
    link.until = 0
    link.length -= 1
    while link.first >= 0:
        m = link.first
        task = tasks[m]
        link.first = task.next
        if link.first < 0:
            link.last = -1
        if task.stage == SENDING:
            link.work -= task.work
            _start_transmission(row, i, j, m)
            return


@compiled
def place(row: Row, m: int, destination: int) -> None:
    """Carry out the decision of the source of task ``m``."""
    episode, links, tasks = row.episode, row.links, row.tasks
    i = m % episode.nodes
    task, now = tasks[m], episode.now
    task.destination = destination
    push(row, task.deadline_at, DEADLINE, i, m)
    if destination == i:
        _admit(row, i, m, now)
        return
    link = links[i, destination]
    task.stage = SENDING
    task.work = duration(task.size, link.rate)
    task.next = -1
    link.length += 1
    if link.current < 0:
        _start_transmission(row, i, destination, m)
        return
    link.work += task.work
    if link.last >= 0:
        tasks[link.last].next = m
    else:
        link.first = m
    link.last = m


@compiled
def advance(row: Row, until: int) -> None:
    """Process all events that come before the decisions of instant ``until``."""
    episode, nodes, links, tasks, events = row.episode, row.nodes, row.links, row.tasks, row.events
    while episode.pending > 0:
        now = events[0].at
        order = events[0].order
        phase = order >> _PHASE
        if now > until or (now == until and phase >= ANNOUNCEMENT):
            break
        pop(row)
        episode.now = now
        i = (order >> _NODE) & _NODE_BITS
        m = order & _TASK_BITS
        if phase >= ANNOUNCEMENT:
            links[m, i].receiving += 1 if phase == ANNOUNCEMENT else -1
            continue
        task = tasks[m]
        if task.stage == ENDED:
            continue
        j = task.destination
        if phase == EXECUTION_ENDS:
            _end(row, task, EXECUTION_FAILED if task.failing else SUCCEEDED, now)
            nodes[i].running = -1
            _start_next(row, i, now)
        elif phase == TRANSMISSION_ENDS:
            if task.failing:
                _end(row, task, TRANSMISSION_FAILED, now)
                _tell(row, i, j, -1, now)
                _free_link(row, i, j)
            else:
                links[i, j].receiving -= 1
                _admit(row, j, m, now)
                _free_link(row, i, j)
        else:
            _drop(row, m, now)
    if until < _NEVER:
        episode.now = until


@compiled
def _drop(row: Row, m: int, now: int) -> None:
    """The deadline of task ``m`` passed: it ends where it is and frees what it held."""
    episode, nodes, links, tasks = row.episode, row.nodes, row.links, row.tasks
    task = tasks[m]
    stage, i, j = task.stage, m % episode.nodes, task.destination
    _end(row, task, DROPPED, now)
    if stage == EXECUTION:
        nodes[j].running = -1
        _start_next(row, j, now)
    elif stage == WAITING:
        nodes[j].waiting -= 1
        nodes[j].work -= task.work
    elif stage == SENDING:
        links[i, j].work -= task.work
        links[i, j].length -= 1
    elif stage == TRANSMISSION:
        _tell(row, i, j, -1, now)
        _free_link(row, i, j)
