"""Refusal: what becomes of a refused task, where it is allowed, and which tasks are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.errors import UsageError
from testbed.experiment.history import reason
from testbed.model.decision import Ask, Decision, Observation, Refuse
from testbed.model.history import fold_all
from testbed.model.task import Outcome
from testbed.scenario.plan import Plan
from testbed.sim.simulator import Simulation, simulate_episode
from tests.sim.networks import tiny_plan


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


def test_what_refuses_says_so_where_it_must_not() -> None:
    with pytest.raises(UsageError, match=r"rules\.reject"):
        Simulation(tiny_plan([1.0, 1.0]), "central-reject")


def test_what_no_node_can_finish_in_time_is_refused() -> None:
    # 1 s of work and a deadline of half a second, everywhere.
    plan = allowed(tiny_plan([1.0, 1.0], slots=3, deadline=500_000))
    assert set(simulate_episode(plan, 0, "central-reject").outcomes.values()) == {Outcome.REFUSED}
    assert set(simulate_episode(plan, 0, "central").outcomes.values()) == {Outcome.DROPPED}
