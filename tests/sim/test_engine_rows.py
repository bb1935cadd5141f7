"""The rows of ``per-destination-v1`` worked out by hand; the engine is held to the same encoder."""

from __future__ import annotations

import math

import pytest

from testbed.model.decision import Observation
from testbed.model.per_destination import COLUMNS, PerDestinationEncoder
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
