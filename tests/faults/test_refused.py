"""A hand-over that a peer refuses because a fault has taken it down a moment before."""

from __future__ import annotations

from testbed.model.events import (
    AnnounceTransfer,
    ChangeTransmission,
    ConditionsChanged,
    Record,
    RecordKind,
    TaskArrived,
    TransmissionRefused,
)
from testbed.model.faulted import FaultedNode
from testbed.model.faults import Conditions, LinkConditions, State
from testbed.model.units import NEVER
from tests.model.network import always, rules, task, topology

SENT = 1_000
"""Microseconds that a task of 1000 bytes takes on a link of 1 MB/s."""


def offering(deadline: int = 10_000_000) -> FaultedNode:
    """Node 0 has sent task 7 to node 1 and waits for its answer."""
    node = FaultedNode(0, topology([1000] * 2), rules(), 0, 0, always(1))
    node.handle(TaskArrived(task(7, deadline=deadline)), 0)
    assert node.hand_over(1, 7, SENT) is not None
    return node


def test_it_is_sent_again_from_its_beginning() -> None:
    effects = offering().handle(TransmissionRefused(1, 7), SENT)
    announced, changed = effects
    assert isinstance(announced, AnnounceTransfer)
    assert isinstance(changed, ChangeTransmission)
    assert (changed.duration, changed.sent_bytes, changed.restart) == (SENT, 0, True)


def test_it_waits_for_the_peer_where_that_is_known_to_be_down() -> None:
    node = offering()
    down = Conditions(links={1: LinkConditions(0, restart=True)})
    assert node.handle(ConditionsChanged(down), SENT) == []
    (changed,) = node.handle(TransmissionRefused(1, 7), SENT)
    assert isinstance(changed, ChangeTransmission)
    assert changed.duration == NEVER
    announced, changed = node.handle(ConditionsChanged(Conditions()), 5 * SENT)
    assert isinstance(announced, AnnounceTransfer)
    assert isinstance(changed, ChangeTransmission)
    assert changed.duration == SENT


def test_a_deadline_that_passed_meanwhile_counts() -> None:
    effects = offering(deadline=2 * SENT).handle(TransmissionRefused(1, 7), 2 * SENT)
    (end,) = [e for e in effects if isinstance(e, Record) and e.kind is RecordKind.ENDED]
    assert end.data["outcome"] == "dropped"


def test_a_sender_that_was_killed_meanwhile_loses_it() -> None:
    node = offering()
    assert node.handle(ConditionsChanged(Conditions(State.KILLED)), SENT) == []
    effects = node.handle(TransmissionRefused(1, 7), SENT)
    (end,) = [e for e in effects if isinstance(e, Record) and e.kind is RecordKind.ENDED]
    assert (end.data["outcome"], end.data["fault"]) == ("lost", "node-down")
    assert not node.held
