"""Rows of the per-destination encoders worked out by hand; the engine is held to these encoders."""

from __future__ import annotations

import dataclasses
import math

import pytest

from testbed.model.decision import Observation, PeerState
from testbed.model.per_destination import (
    COLUMNS,
    COLUMNS_OF,
    HEARD_COLUMNS,
    HEARD_NAME,
    STATE_COLUMNS,
    STATE_NAME,
    PerDestinationEncoder,
)
from testbed.model.task import Task
from testbed.model.units import SECOND
from tests.sim.networks import tiny_plan

# 1 MB and 8 Gcycles per task; nodes of 8, 4 and 4 GHz, links of 10 MB/s, deadline 4 s.
PLAN = tiny_plan(
    [0.5, 0.5, 0.5],
    slots=9,
    capacity_hz=[8_000_000_000, 4_000_000_000, 4_000_000_000],
    alpha=0.1,
    beta=0.02,
)


def observation(slot: int, *, queue: int = 0, backlog: int = 0, episode: int = 0) -> Observation:
    nothing = (0, 0, 0)
    return Observation(
        0, slot * SECOND, episode, slot, None, queue, backlog, nothing, nothing, (0, SECOND, 0),
        (), (None, None, None), 1,
    )  # fmt: skip


def task(slot: int) -> Task:
    return Task(slot, 0, slot, 0, 1_000_000, 8_000_000_000, 4 * SECOND)


def encoder() -> PerDestinationEncoder:
    return PerDestinationEncoder(0, PLAN.topology, PLAN.rules, PLAN.workload)


def test_every_column_says_what_it_should() -> None:
    rows = encoder().rows(observation(0, queue=1, backlog=2 * SECOND), task(0), (True, True, False))
    own, peer, masked = (dict(zip(COLUMNS, row, strict=True)) for row in rows)
    # Own node: 1 s of execution after 2 s of backlog, 1 s to spare of 4.
    assert own["own"] == 1.0
    assert own["execution"] == own["slack"] == pytest.approx(0.25)
    assert own["exposure"] == pytest.approx(4 * 0.1 * 1.0)
    assert own["transmission"] == own["send_backlog"] == own["overloaded"] == 0.0
    # Peer: 1 s for the link, 0.1 s of transmission, 2 s of execution.
    assert peer["own"] == 0.0
    assert peer["transmission"] == pytest.approx(0.1 / 4)
    assert peer["send_backlog"] == pytest.approx(0.25)
    assert peer["execution"] == pytest.approx(0.5)
    assert peer["slack"] == pytest.approx((4 - 1 - 0.1 - 2) / 4)
    assert peer["exposure"] == pytest.approx(4 * (0.1 * 2 + 0.02 * 0.1))
    assert peer["in_time"] == 1.0
    assert (peer["capacity"], own["capacity"]) == (0.5, 1.0)
    assert masked["overloaded"] == 1.0
    for row in (own, peer, masked):
        assert row["size"] == row["cycles"] == row["own_capacity"] == 1.0
        assert row["failure_rate"] == row["own_failure_rate"] == pytest.approx(2.5 * 0.1 * 4)
        assert row["own_backlog"] == 0.5
        assert row["own_arrival"] == 0.5
        assert row["overloaded_share"] == pytest.approx(4 / 16)
        assert row["overloaded_trend"] == pytest.approx(0.1 * 4 / 16)
        assert row["unmasked"] == pytest.approx(math.log(3) / 3)
        assert row["own_load"] == pytest.approx(0.5 / 1.5)
    assert own["mean_execution"] == pytest.approx(0.25)
    assert own["overload_limit"] == pytest.approx(2 * 0.25)


def test_the_own_node_is_overloaded_by_its_own_state_and_stays_allowed() -> None:
    rows = encoder().rows(observation(0, queue=2), task(0), (True, True, True))
    own, peer, _ = (dict(zip(COLUMNS, row, strict=True)) for row in rows)
    assert (own["overloaded"], peer["overloaded"]) == (1.0, 0.0)
    assert own["overloaded_share"] == pytest.approx(0.5)
    assert own["unmasked"] == pytest.approx(math.log(4) / 3)


def test_the_average_moves_at_own_decisions_decays_by_slots_and_begins_anew() -> None:
    moving = encoder()
    column = COLUMNS.index("overloaded_trend")

    def after(slot: int, mask: tuple[bool, ...], episode: int = 0) -> float:
        return moving.rows(observation(slot, episode=episode), task(slot), mask)[0][column]

    assert after(1, (True, False, False)) == pytest.approx(0.19 * 0.5)
    assert after(4, (True, True, True)) == pytest.approx(0.19 * 0.5 * 0.9**3)
    assert after(4, (True, True, True), episode=1) == 0.0


def test_an_answer_that_comes_after_a_later_slot_was_decided_turns_nothing_back() -> None:
    moving = encoder()
    column = COLUMNS.index("overloaded_trend")
    free, full = (True, True, True), (True, False, False)
    moved = moving.rows(observation(4), task(4), full)[0][column]
    assert moving.rows(observation(2), task(2), free)[0][column] == moved
    assert moving.rows(observation(5), task(5), free)[0][column] == pytest.approx(0.9 * moved)


def test_numbers_stay_in_bounds_whatever_the_state() -> None:
    late = Task(0, 0, 0, 0, 1_000_000, 8_000_000_000, 1)
    rows = encoder().rows(observation(0, queue=9, backlog=10**12), late, (True, False, True))
    for row in rows:
        assert all(-2.0 <= value <= 4.0 for value in row)


def by_states(seen: Observation, about: Task, mask: tuple[bool, ...]) -> list[dict[str, float]]:
    of_states = PerDestinationEncoder(0, PLAN.topology, PLAN.rules, PLAN.workload, STATE_NAME)
    rows = of_states.rows(seen, about, mask)
    assert [row[: len(COLUMNS)] for row in rows] == encoder().rows(seen, about, mask)
    return [dict(zip(COLUMNS_OF[STATE_NAME], row, strict=True)) for row in rows]


def test_columns_of_states_say_what_they_should() -> None:
    state = PeerState(False, 1, SECOND // 2, 1, 77, SECOND)
    seen = observation(1, queue=1, backlog=2 * SECOND)._replace(
        known=(None, (state, SECOND // 2), None),
        inbound_work=SECOND // 2,
        sending_work=(0, 3 * SECOND, SECOND),
    )
    own, peer, unknown = by_states(seen, task(1), (True, True, True))
    # Own node: 2 s of backlog, half a second on its way, 1 s of execution, of 4 s.
    assert (own["known"], own["age"], own["sending_work"]) == (1.0, 0.0, 0.0)
    assert own["backlog"] == pytest.approx(2.5 / 4)
    assert own["known_slack"] == pytest.approx((4 - 2.5 - 1) / 4)
    # Peer: 1.5 s of backlog, longer than the 1.1 s on the way; 2 s of execution; heard 0.5 s ago.
    assert (peer["known"], peer["known_in_time"]) == (1.0, 1.0)
    assert peer["backlog"] == pytest.approx(1.5 / 4)
    assert peer["known_slack"] == pytest.approx((4 - 1.5 - 2) / 4)
    assert peer["sending_work"] == pytest.approx(3 / 4)
    assert peer["age"] == pytest.approx(0.5 / 4)
    assert unknown["sending_work"] == pytest.approx(1 / 4)
    assert all(unknown[name] == 0.0 for name in STATE_COLUMNS if name != "sending_work")


def test_the_way_counts_where_it_is_longer_than_the_queue() -> None:
    state = PeerState(False, 0, 0, 0, 0)
    seen = observation(1)._replace(known=(None, (state, SECOND), None))
    _, peer, _ = by_states(seen, task(1), (True, True, True))
    assert peer["known_slack"] == pytest.approx((4 - 1.1 - 2) / 4)
    assert peer["backlog"] == peer["age"] == peer["sending_work"] == 0.0


def heard_rows(
    encoder: PerDestinationEncoder, seen: Observation, about: Task
) -> list[dict[str, float]]:
    rows = encoder.rows(seen, about, (True, True, True))
    return [dict(zip(COLUMNS_OF[HEARD_NAME], row, strict=True)) for row in rows]


def test_what_was_heard_is_worked_off_and_work_sent_since_is_added() -> None:
    about = task(1)
    state = PeerState(False, 1, 3 * SECOND, 1, 77, SECOND)
    seen = observation(1)._replace(known=(None, (state, SECOND), None))
    of_heard = PerDestinationEncoder(0, PLAN.topology, PLAN.rules, PLAN.workload, HEARD_NAME)
    # At that very instant, sent before the state was heard: it is part of it.
    of_heard.decided(1, about, seen)
    _, peer, unknown = heard_rows(of_heard, seen, about)
    assert peer["backlog"] == pytest.approx(4 / 4)
    assert peer["age"] == peer["sent_since"] == 0.0
    of_heard.decided(1, about, seen._replace(now=2 * SECOND))
    of_heard.decided(2, about, seen._replace(now=2 * SECOND))
    later = seen._replace(now=4 * SECOND, slot=4)
    own, peer, unknown = heard_rows(of_heard, later, task(4))
    # 4 s are 3 s after a second, 2 s of work come, and 2 s later 3 s are left.
    assert peer["backlog"] == pytest.approx(3 / 4)
    assert peer["known_slack"] == pytest.approx((4 - 3 - 2) / 4)
    assert peer["age"] == pytest.approx(3 / 4)
    assert peer["sent_since"] == pytest.approx(2 / 4)
    assert (own["age"], own["sent_since"]) == (0.0, 0.0)
    # Of a node of which nothing was heard nothing is known, whatever was sent there.
    assert [unknown[name] for name in (*STATE_COLUMNS, *HEARD_COLUMNS)] == [0.0] * 7
    # An idle node does not work ahead.
    idle = later._replace(now=9 * SECOND, slot=9)
    assert heard_rows(of_heard, idle, task(9))[1]["backlog"] == 0.0
    # After two deadlines a state says nothing, and neither does one of another episode.
    old = later._replace(now=9 * SECOND + 1, slot=9)
    assert heard_rows(of_heard, old, task(9))[1]["known"] == 0.0
    anew = seen._replace(episode=1, known=(None, (state, 0), None))
    assert heard_rows(of_heard, anew, about)[1]["sent_since"] == 0.0


def test_a_decision_that_a_state_cannot_know_of_yet_is_added() -> None:
    slow = dataclasses.replace(PLAN.rules, control_delay=SECOND // 2)
    of_heard = PerDestinationEncoder(0, PLAN.topology, slow, PLAN.workload, HEARD_NAME)
    state = PeerState(False, 0, 0, 0, 77)
    seen = observation(3)._replace(known=(None, (state, 3 * SECOND), None))
    for instant in (2 * SECOND, 2 * SECOND + 1):
        of_heard.decided(1, task(2), seen._replace(now=instant))
    _, peer, _ = heard_rows(of_heard, seen, task(3))
    # The announcement of the first came as the state was told, that of the second after it.
    assert peer["sent_since"] == peer["backlog"] == pytest.approx(2 / 4)


def test_what_a_state_can_know_of_depends_on_the_links_both_ways() -> None:
    delays = ((0, SECOND // 4, 0), (3 * SECOND // 4, 0, 0), (0, 0, 0))
    slow = dataclasses.replace(PLAN.rules, control_delay=3 * SECOND // 4, link_delays=delays)
    of_heard = PerDestinationEncoder(0, PLAN.topology, slow, PLAN.workload, HEARD_NAME)
    state = PeerState(False, 0, 0, 0, 77)
    seen = observation(3)._replace(known=(None, (state, 3 * SECOND), (state, 3 * SECOND)))
    for peer in (1, 2):
        for instant in (2 * SECOND, 2 * SECOND + 1, 3 * SECOND):
            of_heard.decided(peer, task(2), seen._replace(now=instant))
    _, behind_slow_links, near = heard_rows(of_heard, seen, task(3))
    assert near["sent_since"] == 0.0
    assert behind_slow_links["sent_since"] == pytest.approx(2 * 2 / 4)


def test_columns_of_states_stay_in_bounds() -> None:
    state = PeerState(True, 9, 10**12, 9, 0, 10**12)
    late = Task(9, 0, 9, 0, 1_000_000, 8_000_000_000, 1)
    seen = observation(9)._replace(known=(None, (state, 0), None), sending_work=(0, 10**12, 0))
    _, peer, _ = by_states(seen, late, (True, True, True))
    assert [peer[name] for name in STATE_COLUMNS] == [1.0, 2.0, -2.0, 0.0, 2.0, 2.0]
