"""``central``, ``oracle`` and the bound in the compiled engine, against those of the simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.model.distributions import Constant
from testbed.model.units import SECOND
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim.bound import bound
from testbed.sim.engine.arrays import pack
from testbed.sim.engine.fates import bounds
from testbed.sim.engine.placement import PLACEMENTS, run_placement, score_placement
from testbed.sim.play import player
from testbed.sim.simulator import simulate_episode
from tests.sim.plans import random_plan, small_plans
from tests.sim.test_engine import Endings, by_engine, by_simulator


def run(plan: Plan, method: str, episode: int) -> Endings:
    batch = pack([plan])
    run_placement(batch.episodes[0], PLACEMENTS[method], episode)
    return by_engine(batch, 0)


@pytest.mark.parametrize("method", PLACEMENTS)
@pytest.mark.parametrize("name", ["paper-simulation", "paper-testbed", "quickstart"])
def test_every_task_goes_where_it_goes_in_the_simulator(name: str, method: str) -> None:
    plan = resolve(load(name, ["rules.reject=true"]))
    found = run(plan, method, 3)
    assert found == by_simulator(plan, method, 3)
    assert len({destination for _, _, destination in found.values()}) >= 2


@settings(max_examples=150)
@given(small_plans(), st.sampled_from(list(PLACEMENTS)), st.integers(0, 1000))
def test_any_small_network_is_placed_as_in_the_simulator(
    plan: Plan, method: str, episode: int
) -> None:
    assert run(plan, method, episode) == by_simulator(plan, method, episode)
    expected = bound(plan, episode)
    np.testing.assert_array_equal(bounds(plan, range(episode, episode + 1)), [expected])


@pytest.mark.parametrize("method", PLACEMENTS)
def test_equal_arrivals_are_forecast_in_the_order_of_the_simulator(method: str) -> None:
    # Everything takes a multiple of the slot, so tasks of several sources arrive at one instant.
    plan = random_plan(3, size=5, slots=40)
    plan = replace(
        plan,
        topology=replace(
            plan.topology,
            capacity_hz=(16_000_000_000, 8_000_000_000, 16_000_000_000, 8_000_000_000, 10**9),
            arrival_probability=(0.9, 0.9, 0.8, 0.7, 0.9),
            link_rate=tuple(tuple(0 if i == j else 2_000_000 for j in range(5)) for i in range(5)),
        ),
        workload=replace(
            plan.workload,
            size_bytes=Constant(1e6),
            complexity=Constant(1000),
            deadline=Constant(3 * SECOND),
        ),
    )
    assert run(plan, method, 0) == by_simulator(plan, method, 0)


@pytest.mark.parametrize("method", PLACEMENTS)
def test_scores_do_not_depend_on_threads_and_are_those_of_the_simulator(method: str) -> None:
    plan = random_plan(8, size=6, slots=20)
    one, three = (score_placement(plan, method, range(24), threads) for threads in (1, 3))
    assert one.tolist() == three.tolist()
    expected = [simulate_episode(plan, n, method).success_rate for n in range(3)]
    assert one[:3].tolist() == expected
    assert bounds(plan, range(24), 3).tolist() == [bound(plan, n) for n in range(24)]


@pytest.mark.parametrize("method", PLACEMENTS)
def test_the_engine_plays_them_where_it_can(method: str) -> None:
    plan = random_plan(8, size=4, slots=10)
    assert player(plan, method).simulated == ""
    hasty = replace(plan, workload=replace(plan.workload, size_bytes=Constant(1)))
    assert "workload.size_bytes" in player(hasty, method).simulated


def test_an_unknown_placement_is_refused() -> None:
    with pytest.raises(UsageError, match="no such placement"):
        score_placement(random_plan(1, size=3), "ratc", [0])
