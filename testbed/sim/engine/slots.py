"""The instants at which is decided, as the heap simulator has them.

The tasks of a slot arrive at its beginning, and are decided in turns: one for all nodes, or one for
each node where they decide in an order. Turns are numbered through all slots; without an order
their numbers are those of the slots. A turn begins with stage 0. Whoever asks peers has its
questions answered there one control delay later (stage 1) and hears of it after one more (stage 2);
those who ask a second time go on at once (stages 3 and 4). Without a delay all of that is one
instant, and with a long one the stages of several turns interleave.
"""

from __future__ import annotations

from typing import Final

from testbed.model.units import NEVER
from testbed.sim.engine.calendar import set_deadline
from testbed.sim.engine.compiled import (
    ANSWERS,
    ANSWERS_AGAIN,
    ARRIVAL,
    BY_BACKLOG,
    DECIDING,
    PROBES,
    PROBES_AGAIN,
    STAGES,
    Record,
    asking_at,
    compiled,
    inlined,
    node_at,
    probe_at,
    task_at,
)
from testbed.sim.engine.events import advance
from testbed.sim.engine.looking import backlog, queue_length
from testbed.sim.engine.messages import deliver

AT_ONCE: Final = 1 << ARRIVAL
ONE_QUESTION: Final = AT_ONCE | 1 << PROBES | 1 << ANSWERS
TWO_QUESTIONS: Final = ONE_QUESTION | 1 << PROBES_AGAIN | 1 << ANSWERS_AGAIN
"""Sets of stages, by what a scheduler asks."""

_NEVER: Final = int(NEVER)


@compiled
def next_stage(episode: Record, stages: int) -> int:
    """Go on to the next of ``stages``; returns it, and -1 when all slots are decided.

    ``turn_of`` is the turn it is of. All events before it are processed.
    """
    best = -1
    at = _NEVER
    for stage in range(STAGES):
        turn = episode.cursor[stage]
        if stages >> stage & 1 and turn < episode.slots * episode.turns:
            begins = begins_at(episode, turn) + episode.offset[stage]
            if begins < at:
                best = stage
                at = begins
    if best >= 0:
        episode.cursor[best] += 1
        advance(episode, at)
    return best


@inlined
def begins_at(episode: Record, turn: int) -> int:
    """Return the instant at which ``turn`` begins."""
    slot = turn // episode.turns
    return int(slot * episode.slot_length + (turn - slot * episode.turns) * episode.stagger)


@inlined
def turn_of(episode: Record, stage: int) -> int:
    """Return the turn that ``stage``, as ``next_stage`` returned it, is of."""
    return int(episode.cursor[stage] - 1)


@inlined
def opens_slot(episode: Record, turn: int) -> bool:
    """Return whether ``turn`` is the first of its slot, at whose beginning its tasks arrive."""
    return bool(turn % episode.turns == 0)


@inlined
def stages_of(episode: Record, stages: int) -> int:
    """Return those of ``stages`` that come to pass: where nobody can answer, one wait in vain."""
    return stages & (AT_ONCE | 1 << ANSWERS) if episode.silent != 0 else stages


@compiled
def tasks_arrive(episode: Record, turn: int) -> int:
    """Begin ``turn``: its tasks are to be decided. Returns their number.

    With the first turn of a slot all tasks of the slot have arrived.
    """
    size, slot = episode.nodes, turn // episode.turns
    if opens_slot(episode, turn):
        for i in range(size):
            if task_at(episode, slot * size + i).stage == DECIDING:
                set_deadline(episode, slot * size + i)
    first, last = 0, size
    if episode.turns > 1:
        first = turn % episode.turns
        last = first + 1
    count = 0
    for i in range(first, last):
        asking_at(episode, turn, count).value = i
        count += 1 if task_at(episode, slot * size + i).stage == DECIDING else 0
    asking_at(episode, turn, size).value = count
    return count


@compiled
def answer_probes(episode: Record, turn: int, question: int) -> None:
    """Write down what every node answers now to a question about the tasks of ``turn``."""
    size = episode.nodes
    if asking_at(episode, turn, size).value == 0:
        return
    now = episode.now
    deliver(episode, now)
    by_backlog = episode.measure == BY_BACKLOG
    free = 0
    for j in range(size):
        node, probe = node_at(episode, j), probe_at(episode, turn, question, j)
        length, until_empty = queue_length(node), backlog(node, now)
        probe.queue_length = length
        probe.backlog = until_empty
        probe.inbound = node.inbound
        probe.inbound_work = node.inbound_work
        overloaded = (until_empty if by_backlog else length) >= node.limit
        probe.overloaded = 1 if overloaded else 0
        probe.below = free
        probe_at(episode, turn, question, free).free = j
        free += 0 if overloaded else 1
    probe_at(episode, turn, question, size).below = free


@compiled
def nobody_answers(episode: Record, turn: int) -> None:
    """Write down that no node has answered a question about the tasks of ``turn``."""
    size = episode.nodes
    for j in range(size):
        probe = probe_at(episode, turn, 0, j)
        probe.overloaded = 1
        probe.below = 0
    probe_at(episode, turn, 0, size).below = 0


@inlined
def overloaded(episode: Record, i: int) -> bool:
    """Return whether node ``i`` is overloaded now."""
    node = node_at(episode, i)
    measured = backlog(node, episode.now) if episode.measure == BY_BACKLOG else queue_length(node)
    return bool(measured >= node.limit)
