"""Steps in the lives of tasks and decisions with what they were made from, where they are kept.

They are in the order in which the heap simulator makes its records, and as little of them as they
can be rebuilt from: ``testbed.sim.compiled`` does.
"""

from __future__ import annotations

from typing import Final

from testbed.model.events import RecordKind
from testbed.sim.engine.compiled import (
    DECIDING,
    DECISION,
    PEER,
    STEP,
    Record,
    compiled,
    element,
    inlined,
    node_at,
    receiving_at,
    task_at,
)
from testbed.sim.engine.looking import backlog, lane_at, queue_length, sending_work
from testbed.sim.engine.messages import deliver

KINDS: Final = tuple(RecordKind)
"""Kinds of steps, by their code."""
GENERATED: Final = KINDS.index(RecordKind.GENERATED)
DECIDED: Final = KINDS.index(RecordKind.DECIDED)
"""``value`` is the destination."""
TRANSMISSION_STARTED: Final = KINDS.index(RecordKind.TRANSMISSION_STARTED)
"""``value`` is the nominal time."""
SENT: Final = KINDS.index(RecordKind.SENT)
RECEIVED: Final = KINDS.index(RecordKind.RECEIVED)
ADMITTED: Final = KINDS.index(RecordKind.ADMITTED)
EXECUTION_STARTED: Final = KINDS.index(RecordKind.EXECUTION_STARTED)
"""``value`` is the nominal time."""
TASK_ENDED: Final = KINDS.index(RecordKind.ENDED)
"""``value`` is ``16 * outcome + stage``."""


@inlined
def note(episode: Record, kind: int, m: int, node: int, at: int, value: int) -> None:
    """Keep a step of task ``m``."""
    if episode.steps_at != 0:
        _note(episode, kind, m, node, at, value)


@compiled
def _note(episode: Record, kind: int, m: int, node: int, at: int, value: int) -> None:
    step = element(STEP, episode.steps_at, episode.steps)
    episode.steps += 1
    step.at = at
    step.value = value
    step.task = m
    step.node = node
    step.kind = kind


@inlined
def keeps_journal(episode: Record) -> bool:
    """Return whether steps and decisions are kept."""
    return bool(episode.steps_at != 0)


@compiled
def note_decision(
    episode: Record, slot: int, i: int, arrived: bool, destination: int, asked: int
) -> None:
    """Keep what node ``i`` sees now and does in ``slot``; call it before it is done."""
    now = episode.now
    deliver(episode, now)
    node, decision = node_at(episode, i), element(DECISION, episode.decisions_at, episode.decisions)
    episode.decisions += 1
    decision.at = now
    decision.backlog = backlog(node, now)
    decision.inbound_work = node.inbound_work
    decision.slot = slot
    decision.node = i
    decision.arrived = 1 if arrived else 0
    decision.destination = destination
    decision.queue_length = queue_length(node)
    decision.asked = asked
    decision.first = episode.first_drawn
    decision.second = episode.second_drawn
    episode.first_drawn = -1
    episode.second_drawn = -1
    if node.inbound != 0:
        for j in range(episode.nodes):
            receiving = receiving_at(episode, i, j).value
            if receiving != 0:
                peer = _next_peer(episode, j)
                peer.receiving = receiving
    for k in range(node.busy):
        lane = lane_at(episode, i, k)
        peer = _next_peer(episode, lane.peer)
        peer.sending = lane.length
        peer.send_backlog = lane.work + max(lane.until - now, 0)
        peer.sending_work = sending_work(episode, lane)
    decision.peers = episode.peers


@compiled
def note_idle(episode: Record, slot: int, first: int, last: int) -> None:
    """Keep that nodes ``first`` to ``last`` have no task in ``slot``, if that is to be kept."""
    if episode.idle_slots != 0:
        for i in range(first, last):
            note_decision(episode, slot, i, False, -1, 0)


@compiled
def note_waiting(episode: Record, slot: int, first: int) -> None:
    """Keep that the nodes from ``first`` on wait for their turn in ``slot``, or have no task."""
    for i in range(first, episode.nodes):
        m = slot * episode.nodes + i
        if episode.stagger > 0 and task_at(episode, m).stage == DECIDING:
            note(episode, GENERATED, m, i, episode.now, 0)
        else:
            note_idle(episode, slot, i, i + 1)


@inlined
def _next_peer(episode: Record, j: int) -> Record:
    peer = element(PEER, episode.peers_at, episode.peers)
    episode.peers += 1
    peer.node = j
    peer.receiving = 0
    peer.sending = 0
    peer.send_backlog = 0
    peer.sending_work = 0
    return peer
