"""Turns of the nodes in a slot: when they decide, what they see, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.errors import UsageError
from testbed.model.distributions import Constant
from testbed.model.faults import FaultSpec
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.engine.episodes import record_baseline
from testbed.sim.engine.vector import VectorEnv
from testbed.sim.play import evaluate
from testbed.sim.simulator import simulate_episode
from tests.sim.networks import tiny_plan
from tests.sim.plans import random_plan

STEP = 7 * MILLISECOND


def staggered(plan: Plan, step: int, delay: int = 0) -> Plan:
    return replace(plan, rules=replace(plan.rules, stagger=step, control_delay=delay))


# A task at every node in every slot; the first node is so fast that all want it.
CROWD = tiny_plan(
    [1.0, 1.0, 1.0, 1.0], slots=3, capacity_hz=[64_000_000_000, *[4_000_000_000] * 3], alpha=0.0
)


def test_each_node_decides_at_its_turn() -> None:
    delay = MILLISECOND
    result = simulate_episode(staggered(CROWD, STEP, delay), 0, "least-completion")
    for decision in result.decisions:
        begins = decision.slot * SECOND + decision.node * STEP
        assert decision.at == begins + 2 * delay
        assert {answer.asked for answer in decision.observation.answers} == {begins}
    generated = {r.task.id: r.at for r in result.records if r.kind == "generated"}
    assert set(generated.values()) == {0, SECOND, 2 * SECOND}


@pytest.mark.parametrize(("step", "delay"), [(1, 0), (2001, MILLISECOND)])
def test_a_node_sees_what_those_before_it_did(step: int, delay: int) -> None:
    """Also what its predecessor has only just announced: the default step is long enough."""
    result = simulate_episode(staggered(CROWD, step, delay), 0, "least-completion")
    inbound = {}
    for decision in result.decisions:
        if decision.slot == 0 and decision.node > 0:
            (about,) = [a.state for a in decision.observation.answers if a.peer == 0]
            assert about is not None
            inbound[decision.node] = about.queue_length + about.inbound
    sent = [d.destination for d in result.decisions if d.slot == 0]
    assert [inbound[node] for node in (1, 2, 3)] == [
        sum(destination == 0 for destination in sent[:node]) for node in (1, 2, 3)
    ]


def test_a_herd_is_broken_up_by_turns() -> None:
    plan = random_plan(11, size=12, slots=40, delay=(MILLISECOND, SECOND))
    rates = [
        evaluate(each, ["least-completion"], 6)["least-completion"].mean()
        for each in (plan, staggered(plan, 2 * MILLISECOND + 1, MILLISECOND))
    ]
    assert rates[1] > rates[0] + 0.01


def test_a_task_that_ends_before_its_turn_is_not_decided() -> None:
    hasty = replace(CROWD.workload, deadline=Constant(STEP))
    result = simulate_episode(staggered(replace(CROWD, workload=hasty), STEP), 0, "local")
    for decision in result.decisions:
        # The deadline comes before the turn of the same instant.
        assert (decision.destination is None) == (decision.node >= 1)
    assert {outcome.value for outcome in result.outcomes.values()} == {"dropped"}


def test_a_node_that_hangs_at_its_turn_decides_when_it_is_back() -> None:
    hang = FaultSpec("node-down", Constant(100_000), at=Constant(0), nodes=(1, 2), mode="hung")
    plan = replace(staggered(CROWD, 90 * MILLISECOND), faults=(hang,))
    result = simulate_episode(plan, 0, "local")
    at = {d.node: d.at for d in result.decisions if d.slot == 0}
    assert at == {0: 0, 1: 100_000, 2: 180_000, 3: 270_000}


def test_what_decides_whole_slots_refuses_turns() -> None:
    plan = staggered(random_plan(3, size=3, slots=5), STEP)
    with pytest.raises(UsageError, match=r"rules\.stagger"):
        VectorEnv([plan])
    with pytest.raises(UsageError, match=r"rules\.stagger"):
        record_baseline(plan, "ratc", [0])
    VectorEnv([without_control_delay(plan)])
    # A node alone has nobody to wait for.
    VectorEnv([staggered(random_plan(3, size=1, slots=5), STEP)])
