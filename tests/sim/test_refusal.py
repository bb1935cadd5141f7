"""Refusal: what becomes of a refused task, where it is allowed, and which tasks are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbed import policies
from testbed.errors import UsageError
from testbed.experiment.history import reason
from testbed.model.decision import Ask, Decision, Observation, Refuse
from testbed.model.distributions import Uniform
from testbed.model.history import fold_all
from testbed.model.per_destination import HEARD_NAME
from testbed.model.scarcity import offered_load
from testbed.model.task import Outcome
from testbed.model.units import MILLISECOND, SECOND
from testbed.policies import write_folder
from testbed.scenario.plan import Plan
from testbed.sim.play import evaluate
from testbed.sim.simulator import Simulation, simulate_episode
from tests.policies import tiny
from tests.sim.networks import tiny_plan
from tests.sim.plans import random_plan

STATES: dict[str, object] = {"policy": "shipped/per-destination-v2", "refuse": True}


class Fussy:
    """Refuses every other task."""

    name = "fussy"

    def decide(self, observation: Observation) -> Decision | Ask | Refuse:
        assert observation.task is not None
        return Refuse() if observation.task.slot % 2 else Decision(observation.node)


def allowed(plan: Plan) -> Plan:
    return replace(plan, rules=replace(plan.rules, reject=True))


def test_a_refused_task_ends_at_once_without_a_destination() -> None:
    plan = allowed(tiny_plan([1.0, 1.0], slots=4))
    result = simulate_episode(plan, 0, lambda context: Fussy())
    rows = fold_all((), result.records, result.decisions).rows
    for row in rows:
        assert (row.outcome is Outcome.REFUSED) == (row.slot % 2 == 1)
    refused = rows[2]
    assert (refused.destination, refused.stage, refused.elapsed) == (None, "deciding", 0)
    assert refused.scheduler == "fussy"
    assert reason(refused, plan.topology) == "refused by fussy"
    assert result.success_rate == 0.5


def test_a_refusal_that_is_not_allowed_loses_the_task_and_says_why() -> None:
    result = simulate_episode(tiny_plan([1.0], slots=2), 0, lambda context: Fussy())
    assert result.outcomes[1] is Outcome.LOST
    (ended,) = result.failed
    assert "refused a task" in str(ended.data["reason"])
    assert "rules.reject" in str(ended.data["reason"])


@pytest.mark.parametrize(("scheduler", "options"), [("central-reject", {}), ("drl", STATES)])
def test_what_refuses_says_so_where_it_must_not(scheduler: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"rules\.reject"):
        Simulation(tiny_plan([1.0, 1.0]), scheduler, options)


def test_what_no_node_can_finish_in_time_is_refused() -> None:
    # 1 s of work and a deadline of half a second, everywhere.
    plan = allowed(tiny_plan([1.0, 1.0], slots=3, deadline=500_000))
    for scheduler, options in (("central-reject", {}), ("drl", STATES)):
        result = Simulation(plan, scheduler, options).episode(0)
        assert set(result.outcomes.values()) == {Outcome.REFUSED}
    assert set(simulate_episode(plan, 0, "central").outcomes.values()) == {Outcome.DROPPED}


def at_load(plan: Plan, load: float) -> Plan:
    factor = load / offered_load(plan.topology, plan.workload)
    complexity = Uniform(800 * factor, 2400 * factor)
    return replace(plan, workload=replace(plan.workload, complexity=complexity))


def test_refusing_pays_under_overload_and_costs_nothing_without() -> None:
    plan = random_plan(5, size=8, slots=60)
    heavy, light = at_load(plan, 1.4), at_load(plan, 0.5)
    rates = evaluate(heavy, ["central", "central-reject"], 8)
    assert rates["central-reject"].mean() > rates["central"].mean()
    rates = evaluate(light, ["central", "central-reject"], 8)
    assert rates["central-reject"].mean() == pytest.approx(rates["central"].mean(), abs=1e-3)


@pytest.mark.parametrize("stagger", [0, 2001])
@pytest.mark.parametrize("load", [0.5, 1.4])
def test_a_policy_refuses_alike_in_engine_and_simulator(load: float, stagger: int) -> None:
    network = random_plan(5, size=6, slots=25, delay=(MILLISECOND, SECOND), stagger=stagger)
    plan = at_load(network, load)
    policy = policies.shipped("per-destination-v2")
    found = evaluate(plan, ["mine"], 2, {"mine": policy}, refusing=True)["mine"]
    simulation = Simulation(plan, "drl", STATES, keep=False)
    expected = [simulation.episode(number) for number in range(2)]
    assert found.tolist() == [each.success_rate for each in expected]
    refused = sum(each.counts[Outcome.REFUSED] for each in expected)
    assert refused > 5 if load > 1.0 else refused < 5


def test_only_a_policy_that_asks_for_states_refuses() -> None:
    plan = random_plan(5, size=3, slots=5)
    with pytest.raises(UsageError, match="a policy that asks for states"):
        Simulation(plan, "drl", {"refuse": True})
    with pytest.raises(UsageError, match="a policy that asks for states"):
        evaluate(plan, ["mine"], 1, {"mine": policies.shipped()}, refusing=True)


@pytest.mark.parametrize("asks", [{"probe": 2}, {"gossip": "1 slot"}])
def test_a_policy_that_knows_old_states_only_does_not_refuse(
    tmp_path: Path, asks: dict[str, object]
) -> None:
    write_folder(tmp_path, *tiny.per_destination(encoder=HEARD_NAME, asks=asks))
    plan = random_plan(5, size=3, slots=5)
    with pytest.raises(UsageError, match="a policy that asks for states"):
        Simulation(plan, "drl", {"policy": str(tmp_path), "refuse": True})
