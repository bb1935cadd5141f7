"""The baseline schedulers as machine code, for thousands of episodes a minute.

Each follows the class of the same name in ``testbed.schedulers`` draw by draw.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from testbed.model.work_price import WorkPrice, work_price
from testbed.sim.engine.compiled import (
    ANSWERS,
    ARRIVAL,
    DECIDING,
    PROBES,
    PROBES_AGAIN,
    Record,
    asking_at,
    compiled,
    heard_at,
    inlined,
    link_at,
    node_at,
    probe_at,
    task_at,
)
from testbed.sim.engine.draws import (
    draw_slot,
    duration,
    extend,
    scheduler_draw,
    scheduler_stream,
    to_unit,
)
from testbed.sim.engine.events import begin_episode, finish, place, refuse, settle
from testbed.sim.engine.journal import (
    GENERATED,
    keeps_journal,
    note,
    note_decision,
    note_idle,
    note_waiting,
)
from testbed.sim.engine.looking import backlog, send_backlog
from testbed.sim.engine.messages import deliver
from testbed.sim.engine.slots import (
    AT_ONCE,
    ONE_QUESTION,
    TWO_QUESTIONS,
    answer_probes,
    next_stage,
    opens_slot,
    overloaded,
    stages_of,
    tasks_arrive,
    turn_of,
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
PRICED: Final = 9

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
    "priced": PRICED,
}
"""Schedulers the engine knows, by their registered names."""

ASKS_STATES: Final = (LEAST_COMPLETION, PRICED)
"""Those that ask all peers for their state."""

LOOKS_AT_INBOUND: Final = frozenset({"priced"})
"""Those that look at the work on its way to nodes, which batches have to be packed for."""

_SECOND: Final = 1000000.0
_LATER: Final = -1
_REFUSED: Final = -2

_work_price: Final = inlined(work_price)


@inlined
def stages_asked(method: int) -> int:
    """Return the stages at which ``method`` decides."""
    if method in (LOCAL, RANDOM):
        return AT_ONCE
    return TWO_QUESTIONS if method in (RATC_MASKED, RDA_MASKED) else ONE_QUESTION


@compiled
def run_heuristic(episode: Record, method: int, number: int) -> None:
    """Run episode ``number`` from the first task to the end of the last."""
    begin_episode(episode, number)
    while play_stage(episode, method) >= 0:
        pass


@compiled
def play_stage(episode: Record, method: int) -> int:
    """Go on to the next stage of a slot and decide there; returns it, and -1 after the end."""
    stage = next_stage(episode, stages_of(episode, stages_asked(method)))
    if stage < 0:
        finish(episode)
        return stage
    turn = turn_of(episode, stage)
    if stage == ARRIVAL:
        if opens_slot(episode, turn):
            draw_slot(episode, turn // episode.turns)
        tasks_arrive(episode, turn)
    decide(episode, method, stage, turn)
    return stage


@compiled
def decide(episode: Record, method: int, stage: int, turn: int) -> None:
    """Do what ``method`` does at ``stage`` of ``turn``, whose tasks have arrived."""
    if stage in (PROBES, PROBES_AGAIN):
        answer_probes(episode, turn, 0 if stage == PROBES else 1)
        return
    size, slot = episode.nodes, turn // episode.turns
    count = asking_at(episode, turn, size).value
    waiting = 0
    arriving = keeps_journal(episode) and stage == ARRIVAL and opens_slot(episode, turn)
    idle = 0
    for k in range(count):
        i = asking_at(episode, turn, k).value
        m = slot * size + i
        if task_at(episode, m).stage != DECIDING:
            continue  # its deadline has passed
        if arriving:
            note_idle(episode, slot, idle, i)
            idle = i + 1
            note(episode, GENERATED, m, i, episode.now, 0)
        if stage == ARRIVAL:
            destination = _at_once(episode, method, i, m)
        elif episode.silent != 0 and method != PRICED:
            destination = i
        else:
            destination = _answered(episode, method, turn, i, m, 0 if stage == ANSWERS else 1)
        if destination >= 0:
            if keeps_journal(episode):
                note_decision(episode, slot, i, True, destination, (stage + 1) // 2)
            place(episode, m, destination)
            settle(episode)
        elif destination == _REFUSED:
            if keeps_journal(episode):
                note_decision(episode, slot, i, True, -1, (stage + 1) // 2)
            refuse(episode, m)
        else:
            asking_at(episode, turn, waiting).value = i
            waiting += 1
    asking_at(episode, turn, size).value = waiting
    if arriving:
        note_waiting(episode, slot, idle)


@inlined
def _at_once(episode: Record, method: int, i: int, m: int) -> int:
    """Return the destination if no peer has to be asked, ``_REFUSED``, or else ``_LATER``."""
    if method == RANDOM:
        return int(scheduler_draw(episode, i, m, 0) * episode.nodes)
    if method == PRICED and episode.nodes == 1:
        return _priced(episode, 0, i, m)
    if method == LOCAL or episode.nodes == 1:
        return i
    if method in (RDA, RDA_MASKED, LOCAL_OR_RELIABLE) and not overloaded(episode, i):
        task, node = task_at(episode, m), node_at(episode, i)
        pending = backlog(node, episode.now) + duration(task.cycles, node.capacity)
        if method != LOCAL_OR_RELIABLE or pending <= task.deadline_at - episode.now:
            return i
    return _LATER


@inlined
def _answered(episode: Record, method: int, turn: int, i: int, m: int, question: int) -> int:
    """Return the destination after the answers to ``question``, ``_LATER`` to ask once more.

    ``_REFUSED`` refuses the task.
    """
    if method == PRICED:
        return _priced(episode, turn, i, m)
    if method == LEAST_COMPLETION:
        return _least_completion(episode, turn, i, m)
    count = _choices(episode, method, turn, i)
    if method == LOCAL_OR_RELIABLE:
        return _most_reliable(episode, method, turn, i, m, count)
    if question == 0 and method in (RATC_MASKED, RDA_MASKED):
        if count == 0 or (method == RATC_MASKED and count == 1):
            # Only the own node is left: there is nobody to ask. It may be the one node of RATC.
            return i
        return _LATER
    return _of_two(episode, method, turn, i, m, question, count)


# --- whom to choose from --------------------------------------------------------------------


@inlined
def _choices(episode: Record, method: int, turn: int, i: int) -> int:
    """Return the number of nodes that ``method`` draws from at node ``i``."""
    size = episode.nodes
    if method in (RATC, TWO_CHOICE):
        return int(size)
    if method == RDA:
        return int(size - 1)
    # Unmasked peers, by the bits of the first question, and with RATC the own node too.
    free = int(probe_at(episode, turn, 0, size).below)
    own = 1 - int(probe_at(episode, turn, 0, i).overloaded)
    return free - own + (1 if method == RATC_MASKED else 0)


@inlined
def _choice(episode: Record, method: int, turn: int, i: int, k: int) -> int:
    """Return the k-th of them, in order of the nodes."""
    if method in (RATC, TWO_CHOICE):
        return k
    if method == RDA:
        return k + (1 if k >= i else 0)
    own = probe_at(episode, turn, 0, i)
    if method == RATC_MASKED:
        if k == own.below:
            return i
        if own.overloaded != 0 and k > own.below:
            k -= 1
    elif own.overloaded == 0 and k >= own.below:
        k += 1
    return int(probe_at(episode, turn, 0, k).free)


@inlined
def _of_two(
    episode: Record, method: int, turn: int, i: int, m: int, question: int, count: int
) -> int:
    """Draw two of ``count`` nodes, as ``SchedulerContext.sample``, and take one of them."""
    stream = scheduler_stream(episode, i, m)
    one = int(to_unit(extend(stream, 0)) * count)
    first = _choice(episode, method, turn, i, one)
    episode.first_drawn = first
    _hear(episode, turn, question, i, first)
    if count == 1:
        return first
    two = int(to_unit(extend(stream, 1)) * (count - 1))
    # What was drawn is replaced by the last.
    second = _choice(episode, method, turn, i, count - 1 if two == one else two)
    episode.second_drawn = second
    _hear(episode, turn, question, i, second)
    if method == TWO_CHOICE:
        a = _backlog_of(episode, turn, question, i, first)
        b = _backlog_of(episode, turn, question, i, second)
        return second if b < a else first
    task = task_at(episode, m)
    a, exposed_a = _estimate(episode, turn, question, i, m, first)
    b, exposed_b = _estimate(episode, turn, question, i, m, second)
    left = task.deadline_at - episode.now
    if method in (RDA, RDA_MASKED) or a > left or b > left:
        return second if b < a else first
    if exposed_b < exposed_a or (exposed_b == exposed_a and b < a):
        return second
    return first


@compiled
def _most_reliable(episode: Record, method: int, turn: int, i: int, m: int, count: int) -> int:
    """Draw three of ``count`` nodes, as ``SchedulerContext.sample``, and take the most reliable."""
    stream = scheduler_stream(episode, i, m)
    best, least = i, np.inf
    # Where was drawn, and what stands there instead: the last of those left.
    moved = (-1, -1)
    instead = (-1, -1)
    for counter in range(min(3, count)):
        left = count - counter
        drawn = int(to_unit(extend(stream, counter)) * left)
        place_of = instead[1] if drawn == moved[1] else instead[0] if drawn == moved[0] else drawn
        last = left - 1
        last_of = instead[1] if last == moved[1] else instead[0] if last == moved[0] else last
        moved, instead = (moved[1], drawn), (instead[1], last_of)
        chosen = _choice(episode, method, turn, i, place_of)
        exposure = _estimate(episode, turn, 0, i, m, chosen)[1]
        if exposure < least:
            best, least = chosen, exposure
    return best


@compiled
def _least_completion(episode: Record, turn: int, i: int, m: int) -> int:
    best, least = i, _estimate(episode, turn, 0, i, m, i)[0]
    for j in range(episode.nodes):
        if j != i:
            _hear(episode, turn, 0, i, j)
            completion = _estimate(episode, turn, 0, i, m, j)[0]
            if completion < least:
                best, least = j, completion
    return best


@compiled
def _priced(episode: Record, turn: int, i: int, m: int) -> int:
    """``Priced.decide`` after the answers."""
    size, task = episode.nodes, task_at(episode, m)
    deliver(episode, episode.now)
    others = 0 if episode.silent != 0 else size
    own = _queue_of(episode, turn, i, i)
    hertz = node_at(episode, i).capacity
    work, capacity = float(own) * hertz, float(hertz)
    for j in range(others):
        if j != i:
            _hear(episode, turn, 0, i, j)
            hertz = node_at(episode, j).capacity
            work += float(_queue_of(episode, turn, i, j)) * hertz
            capacity += hertz
    fill = work / capacity / task.deadline
    numbers = WorkPrice(episode.price[0], episode.price[1], episode.price[2])
    best, most, fastest, least = -1, -np.inf, i, np.inf
    # The own node comes first.
    for k in range(-1, others):
        if k == i:
            continue
        j = i if k < 0 else k
        queue = _queue_of(episode, turn, i, j)
        alone, exposure = _estimate_behind(episode, i, m, j, 0)
        execution = duration(task.cycles, node_at(episode, j).capacity)
        completion = max(queue + execution, alone)
        if completion < least:
            fastest, least = j, completion
        if completion <= task.deadline_at - episode.now:
            price = _work_price(queue / task.deadline, execution / task.deadline, fill, numbers)
            value = math.exp(-exposure) - price * (task.cycles / episode.mean_cycles)
            if value > most:
                best, most = j, value
    if episode.reject != 0 and most <= 0.0:
        return _REFUSED
    return best if best >= 0 else fastest


@inlined
def _queue_of(episode: Record, turn: int, i: int, j: int) -> int:
    """Return the work before a task that comes to ``j`` now, as far as node ``i`` knows."""
    if i == j:
        node = node_at(episode, i)
        return int(backlog(node, episode.now) + node.inbound_work)
    probe = probe_at(episode, turn, 0, j)
    return int(probe.backlog + probe.inbound_work)


# --- estimates ------------------------------------------------------------------------------


@inlined
def _hear(episode: Record, turn: int, question: int, i: int, j: int) -> None:
    """Note the backlog that node ``j`` answers to ``i``."""
    if i != j and episode.heard_at != 0:
        heard = heard_at(episode, i, j)
        heard.backlog = probe_at(episode, turn, question, j).backlog
        heard.at = episode.now


@inlined
def _backlog_of(episode: Record, turn: int, question: int, i: int, j: int) -> int:
    """Return the backlog that node ``j`` answered to ``i``; the own one is that of now."""
    if i == j:
        return backlog(node_at(episode, i), episode.now)
    return int(probe_at(episode, turn, question, j).backlog)


@inlined
def _estimate(
    episode: Record, turn: int, question: int, i: int, m: int, j: int
) -> tuple[int, float]:
    """``Estimator.candidate`` with the backlog that ``j`` answered."""
    return _estimate_behind(episode, i, m, j, _backlog_of(episode, turn, question, i, j))


@inlined
def _estimate_behind(episode: Record, i: int, m: int, j: int, queue: int) -> tuple[int, float]:
    """``Estimator.candidate``: completion and exposure at ``j`` with the backlog ``queue``."""
    node, task = node_at(episode, j), task_at(episode, m)
    execution = duration(task.cycles, node.capacity)
    completion = queue + execution
    exposure = node.failure * execution
    if j != i:
        link = link_at(episode, i, j)
        transmission = duration(task.size, link.rate)
        exposure += link.failure * transmission
        completion += send_backlog(episode, i, j, episode.now) + transmission
    return completion, exposure / _SECOND
