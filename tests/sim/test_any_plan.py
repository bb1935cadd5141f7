"""Hypothesis: in any network, with any tasks and rules, every history is legal and ends once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.model.history import fold_all
from testbed.model.task import Outcome
from testbed.model.topology import Overload, OverloadMeasure, Rules
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import Plan
from testbed.sim.bound import attainable
from testbed.sim.simulator import simulate_episode
from tests.sim.networks import GIGA, tiny_plan

SCHEDULERS = ("random", "ratc", "rda", "rda-masked", "local-or-reliable", "central", "oracle")

# Few distinct durations, so that instants coincide often.
durations = st.sampled_from([50, 100, 200, 1000]).map(lambda value: value * MILLISECOND)


def _link_delays(size: int) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    delay = st.sampled_from([0, 1, 20 * MILLISECOND, 50 * MILLISECOND])
    row = st.lists(delay, min_size=size, max_size=size).map(tuple)
    return st.lists(row, min_size=size, max_size=size).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 4))
    rules = Rules(
        Overload(
            draw(st.sampled_from(OverloadMeasure)),
            draw(st.sampled_from([1, 2, SECOND // 2])),
        ),
        drop_hopeless=draw(st.booleans()),
        execution_queue_limit=draw(st.sampled_from([None, 0, 1, 3])),
        control_delay=draw(st.sampled_from([0, 0, 1, 50 * MILLISECOND])),
        probe_timeout=draw(st.sampled_from([0, 50 * MILLISECOND, 250 * MILLISECOND])),
        link_delays=draw(st.none() | _link_delays(size)),
    )
    return tiny_plan(
        draw(st.lists(st.sampled_from([0.3, 0.7, 1.0]), min_size=size, max_size=size)),
        capacity_hz=draw(
            st.lists(
                st.sampled_from([8 * GIGA, 40 * GIGA, 80 * GIGA]), min_size=size, max_size=size
            )
        ),
        slots=draw(st.integers(1, 8)),
        slot=draw(durations),
        deadline=draw(durations),
        alpha=draw(st.sampled_from([0.0, 2.0])),
        beta=draw(st.sampled_from([0.0, 5.0])),
        rules=rules,
    )


@settings(max_examples=150)
@given(plan=plans(), scheduler=st.sampled_from(SCHEDULERS), episode=st.integers(0, 3))
def test_every_history_is_legal_and_ends_once(plan: Plan, scheduler: str, episode: int) -> None:
    result = simulate_episode(plan, episode, scheduler)
    possible = attainable(plan, episode)
    rows, illegal = fold_all((), result.records, result.decisions)
    assert not illegal
    assert {row.task_id: row.outcome for row in rows} == result.outcomes
    assert result.outcomes.keys() == possible.keys()
    for row in rows:
        assert row.outcome is not Outcome.LOST
        assert row.elapsed is not None
        assert row.elapsed <= row.deadline
        assert possible[row.task_id] or row.outcome is not Outcome.SUCCEEDED
    assert result == simulate_episode(plan, episode, scheduler)
