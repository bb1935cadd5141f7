"""States of peers that were heard and may be old: what ``per-destination-v3`` looks at."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from testbed.model.information import FIRST_PROBED
from testbed.model.per_destination import OLDEST
from testbed.sim.engine.compiled import (
    ANSWERS,
    Record,
    compiled,
    heard_at,
    inlined,
    node_at,
    probe_at,
    task_at,
    told_at,
)
from testbed.sim.engine.draws import extend, scheduler_stream, to_unit
from testbed.sim.engine.events import advance
from testbed.sim.engine.looking import backlog
from testbed.sim.engine.messages import deliver
from testbed.sim.engine.slots import overloaded

_SECOND: Final = 1000000.0
_OLDEST: Final = OLDEST
_FIRST_PROBED: Final = FIRST_PROBED


@compiled
def hear_probed(episode: Record, turn: int, i: int, m: int, pool: NDArray[np.int64]) -> None:
    """Note the states that node ``i`` is told about task ``m``, by peers drawn at random.

    Draws as ``SchedulerContext.sample``; ``pool`` [N] is room to work in.
    """
    left = episode.nodes - 1
    for k in range(left):
        pool[k] = k + (1 if k >= i else 0)
    stream = scheduler_stream(episode, i, m)
    for counter in range(min(episode.probed, left)):
        drawn = int(to_unit(extend(stream, _FIRST_PROBED + counter)) * left)
        j = pool[drawn]
        left -= 1
        pool[drawn] = pool[left]
        heard, probe = heard_at(episode, i, j), probe_at(episode, turn, 0, j)
        heard.backlog = probe.backlog
        heard.inbound_work = probe.inbound_work
        heard.at = episode.now


@compiled
def tell_states(episode: Record, until: int) -> None:
    """Let nodes tell their states at the instants before ``until``, if they do so unasked.

    They come last in their instant, after what is decided and announced then.
    """
    while episode.gossip > 0 and episode.told_next < until:
        now = episode.told_next
        advance(episode, now)
        deliver(episode, now + 1)
        for j in range(episode.nodes):
            node, before, newest = (
                node_at(episode, j),
                told_at(episode, 0, j),
                told_at(episode, 1, j),
            )
            before.backlog = newest.backlog
            before.inbound_work = newest.inbound_work
            before.at = newest.at
            before.overloaded = newest.overloaded
            newest.backlog = backlog(node, now)
            newest.inbound_work = node.inbound_work
            newest.at = now
            newest.overloaded = 1 if overloaded(episode, j) else 0
        episode.told_next += episode.gossip


@inlined
def _told(episode: Record, j: int) -> Record:
    """Return the newest state of ``j`` that the others have heard."""
    newest = told_at(episode, 1, j)
    # What is heard at this very instant comes after the decisions.
    if newest.at + episode.control_delay < episode.now:
        return newest
    return told_at(episode, 0, j)


@compiled
def told_overloaded(episode: Record, j: int) -> bool:
    """Return whether ``j`` was overloaded when it last told its state; not if it never has."""
    told = _told(episode, j)
    return bool(told.at >= 0 and told.overloaded != 0)


@compiled
def _heard(episode: Record, i: int, j: int) -> tuple[int, int]:
    """The queue of ``j`` that ``i`` heard of last, with the work announced, and when, -1: never."""
    if episode.gossip > 0:
        told = _told(episode, j)
        at = told.at + episode.control_delay if told.at >= 0 else -1
        return told.backlog + told.inbound_work, at
    heard = heard_at(episode, i, j)
    return heard.backlog + heard.inbound_work, heard.at


@compiled
def expected_queue(
    episode: Record, slot: int, i: int, m: int, j: int
) -> tuple[float, float, float]:
    """The queue of ``j`` that ``i`` expects now, the age of what it heard, and its work since.

    All are in seconds; an age below 0 says that nothing is known. As
    ``PerDestinationEncoder._expected``.
    """
    now = episode.now
    work_heard, heard = _heard(episode, i, j)
    if heard < 0 or now - heard > _OLDEST * task_at(episode, m).deadline:
        return 0.0, -1.0, 0.0
    queued, then, since = work_heard / _SECOND, heard, 0.0
    # This node decides so long after a slot begins.
    decided = i * episode.stagger + (0 if episode.gossip > 0 else episode.offset[ANSWERS])
    unheard = heard - 2 * episode.control_delay - decided
    capacity = node_at(episode, j).capacity
    for earlier in range(max(unheard // episode.slot_length + 1, 0), slot):
        task = task_at(episode, earlier * episode.nodes + i)
        if task.destination == j:
            work = task.cycles / capacity
            later = max(earlier * episode.slot_length + decided, then)
            queued = max(queued - (later - then) / _SECOND, 0.0) + work
            then = later
            since += work
    queued = max(queued - (now - then) / _SECOND, 0.0)
    return queued, (now - heard) / _SECOND, since
