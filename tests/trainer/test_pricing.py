"""Learning of the price of work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.model.scarcity import offered_load, workload_at
from testbed.model.work_price import LEARNED, WorkPrice
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim.engine.episodes import score_baseline, score_prices
from testbed.sim.simulator import Simulation
from trainer.pricing import (
    NOTHING,
    PricingConfig,
    PricingIteration,
    learn_price,
    random_networks,
)


@pytest.fixture(scope="module")
def crowded() -> Plan:
    """Five nodes in turns with more work than they can do, which they may refuse."""
    rules = ["links.controlDelay=1ms", "rules.stagger=true", "rules.reject=true"]
    plan = resolve(load("quickstart", rules))
    return dataclasses.replace(plan, workload=workload_at(1.4, plan.topology, plan.workload))


@pytest.mark.parametrize("price", [NOTHING, LEARNED, WorkPrice(0.7, 0.4, -0.3)])
def test_a_price_in_the_engine_is_that_of_the_scheduler(crowded: Plan, price: WorkPrice) -> None:
    numbers = [3, 4]
    simulation = Simulation(crowded, "priced", price._asdict(), keep=False)
    expected = [simulation.episode(number).success_rate for number in numbers]
    ((*found,),) = score_prices(crowded, [price], numbers)
    assert found == expected
    if price == LEARNED:
        assert list(score_baseline(crowded, "priced", numbers)) == expected


def test_prices_side_by_side_are_as_one_by_one(crowded: Plan) -> None:
    prices = [NOTHING, LEARNED]
    both = score_prices(crowded, prices, range(3))
    assert both.shape == (2, 3)
    for price, rates in zip(prices, both, strict=True):
        assert list(score_prices(crowded, [price], range(3), threads=1)[0]) == list(rates)


def test_it_learns_from_nothing_what_more_tasks_succeed_with(crowded: Plan) -> None:
    def network(_: np.random.Generator) -> Iterator[Plan]:
        yield crowded

    told: list[PricingIteration] = []
    config = PricingConfig(iterations=12, pairs=8, episodes=4)
    learned = learn_price(config, told.append, network)

    assert [each.number for each in told] == list(range(12))
    # Episodes that were not learned from.
    before, after = score_prices(crowded, [NOTHING, learned], range(1000, 1020)).mean(axis=1)
    assert after > before + 0.01


def test_the_price_does_not_depend_on_the_processors(crowded: Plan) -> None:
    def network(_: np.random.Generator) -> Iterator[Plan]:
        yield crowded

    one, two = (
        learn_price(PricingConfig(iterations=2, pairs=2, threads=threads), None, network)
        for threads in (1, 2)
    )
    assert one == two != NOTHING


def test_the_networks_are_in_turns_with_refusal_at_any_load() -> None:
    plans = list(random_networks(np.random.default_rng(0)))
    assert {plan.topology.size for plan in plans} == {10, 20, 50}
    for plan in plans:
        assert plan.rules.reject
        assert plan.rules.stagger > 2 * plan.rules.control_delay > 0
        assert 0.5 <= offered_load(plan.topology, plan.workload) <= 1.5


@pytest.mark.parametrize("setting", ["iterations", "pairs", "episodes"])
def test_settings_that_make_no_sense_are_refused(setting: str) -> None:
    none: dict[str, Any] = {setting: 0}
    with pytest.raises(UsageError, match=setting):
        PricingConfig(**none)
