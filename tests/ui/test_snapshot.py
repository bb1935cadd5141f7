"""Samples, flows and episodes, from one state to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.model.run_state import RunState
from testbed.rpc.operator import EpisodeCount, LinkNow, MachineNow
from testbed.ui.live.snapshot import (
    FLOW_S,
    SAMPLES,
    Sample,
    Snapshot,
    flows,
    sample_of,
    with_episodes,
    with_sample,
)
from tests.ui.states import progress, state


def samples(*counts: tuple[float, int]) -> tuple[Sample, ...]:
    """Return samples at these instants with so much work over link 0 -> 1."""
    found: tuple[Sample, ...] = ()
    for at, work in counts:
        made = state(at, links=(LinkNow(0, 1, work, 1000 * work),))
        found = with_sample(found, sample_of(made, None))
    return found


def test_the_load_of_the_machine_is_between_two_states() -> None:
    before = state(10.0, machine=MachineNow(4, 1.0, 100.0, 20.0))
    after = state(12.0, machine=MachineNow(4, 1.0, 102.0, 21.0))

    sample = sample_of(after, before)

    assert sample.processors == pytest.approx(2.0 / (2.0 * 4))
    assert sample.pressure == pytest.approx(0.5)
    assert sample_of(after, None).processors is None


def test_a_machine_that_counts_nothing() -> None:
    unknown = MachineNow(4, 1.0, None, None)
    sample = sample_of(state(12.0, machine=unknown), state(10.0, machine=unknown))

    assert (sample.processors, sample.pressure) == (None, None)


def test_a_flow_is_over_the_last_seconds() -> None:
    (flow,) = flows(samples((0.0, 0), (10.0, 100), (11.0, 110), (10.0 + FLOW_S, 130)))

    assert flow.work_rate == pytest.approx(30 / FLOW_S)
    assert flow.byte_rate == pytest.approx(30_000 / FLOW_S)
    assert flow.total.work == 130


def test_a_link_that_carries_nothing_any_more_is_still_a_flow() -> None:
    (flow,) = flows(samples((0.0, 5), (10.0, 5), (12.0, 5)))

    assert (flow.work_rate, flow.total.work) == (0.0, 5)


def test_a_first_sample_has_no_rate() -> None:
    (flow,) = flows(samples((0.0, 5)))

    assert flow.work_rate == 0.0
    assert flows(()) == ()


def test_samples_of_another_run_are_left_out() -> None:
    found = samples((0.0, 1), (1.0, 2))
    other = sample_of(state(2.0, run=progress(run="r2")), None)

    assert with_sample(found, other) == (other,)


def test_after_the_run_its_last_slot_stands_and_nothing_more_was_played() -> None:
    over = progress(state=RunState.COMPLETED, slot=0)
    shown = Snapshot()
    for at, run in enumerate((progress(slot=19), over, over, over)):
        new = sample_of(state(float(at), run=run), None)
        shown = replace(shown, samples=with_sample(shown.samples, new))

    assert [(each.episode, each.slot) for each in shown.samples] == [(1, 19)] * 4
    assert [each.at for each in shown.played] == [0.0, 1.0]


def test_the_oldest_samples_are_left_out() -> None:
    found: tuple[Sample, ...] = ()
    for at in range(SAMPLES + 5):
        found = with_sample(found, sample_of(state(float(at)), None))

    assert len(found) == SAMPLES
    assert found[0].at == 5.0


def test_episodes_are_added_to_those_that_are_known() -> None:
    first, second = EpisodeCount(0, 20, 15), EpisodeCount(1, 20, 18)

    assert with_episodes((first,), "r1", state(episodes=(second,))) == (first, second)
    other = state(run=progress(run="r2", state=RunState.RUNNING), episodes=(second,))
    assert with_episodes((first,), "r1", other) == (second,)
