"""Plans of serving networks: their JSON, their hash, and the requests of their users."""

from __future__ import annotations

import dataclasses
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model.serving.bus import Bus
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import Timetable
from testbed.model.serving.users import ConstantRate, SinusoidalRate, StepRate, Trace, Users
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario import plan as plans
from testbed.scenario.plan import SchedulerSpec, Seeds, ServingPlan
from testbed.scenario.plan.serving import Horizon, identity


def made(*traces: Trace) -> ServingPlan:
    """Return a plan of two nodes with users of these rates at node 0."""
    network = ServingNetwork((Function("f", 5 * MILLISECOND, (10, 20)),), ((1,), (0,)))
    drawn = ServingPlan(
        name="two",
        scenario_hash="",
        seeds=Seeds(1, 2, 3, 4),
        scheduler=SchedulerSpec("slack"),
        episodes=1,
        network=network,
        bus=Bus(seed=2),
        timetable=Timetable(60 * SECOND, 30 * SECOND),
        users=tuple(Users(0, 0, trace) for trace in traces),
        horizon=Horizon(100 * SECOND),
    )
    return dataclasses.replace(drawn, scenario_hash=identity(drawn))


TRACES = (
    ConstantRate(30.0),
    StepRate((0, 10 * SECOND, 40 * SECOND), (10.0, 0.0, 7.5)),
    SinusoidalRate(20.0, 20.0, 25 * SECOND, 0.75),
)


def test_the_json_of_a_plan_gives_an_equal_plan_back() -> None:
    plan = made(*TRACES)
    assert plans.load(plan.to_json()) == plan
    assert plans.load(plan.to_json()).to_json() == plan.to_json()


def test_the_hash_follows_what_is_emulated_alone() -> None:
    plan = made(*TRACES)
    assert identity(dataclasses.replace(plan, name="other", log_requests="windows")) == (
        plan.scenario_hash
    )
    assert identity(dataclasses.replace(plan, bus=Bus(loss=0.5, seed=2))) != plan.scenario_hash
    assert identity(made(*TRACES[:2])) != plan.scenario_hash


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: type(trace).__name__)
def test_requests_of_every_second_follow_the_rate(trace: Trace) -> None:
    at = list(trace.instants(100 * SECOND))
    assert at == sorted(at)
    assert len(at) == pytest.approx(trace.total(100 * SECOND), abs=1)
    for second in range(100):
        asked = trace.total((second + 1) * SECOND) - trace.total(second * SECOND)
        came = sum(second * SECOND <= each < (second + 1) * SECOND for each in at)
        assert abs(came - asked) <= 1.0001


def test_requests_of_all_users_come_in_order_with_ids_of_their_own() -> None:
    arrivals = list(made(*TRACES).arrivals(3))
    assert [each.at for each in arrivals] == sorted(each.at for each in arrivals)
    ids = {each.request.id for each in arrivals}
    assert len(ids) == len(arrivals)
    assert {each.request.episode for each in arrivals} == {3}


@given(
    lengths=st.lists(st.integers(1, 20), max_size=4),
    rates=st.lists(st.integers(0, 40), min_size=5, max_size=5),
    until=st.integers(1, 60),
)
def test_steps_have_the_requests_that_have_added_up_whenever_they_end(
    lengths: list[int], rates: list[int], until: int
) -> None:
    begins = tuple(SECOND * each for each in accumulate([0, *lengths]))
    trace = StepRate(begins, tuple(map(float, rates[: len(begins)])))
    instants = list(trace.instants(until * SECOND))
    assert instants == sorted(instants)
    assert all(0 <= at < until * SECOND for at in instants)
    assert abs(len(instants) - trace.total(until * SECOND)) <= 1
