"""A first policy from the logs of RATC: what RATC chose between, and what is learned from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.model.decision import SchedulerContext
from testbed.model.events import DecisionRecord
from testbed.model.per_destination import COLUMNS_OF, NAME, STATE_NAME
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.play import evaluate
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log
from trainer.per_destination.cloning import CloneConfig, cloned, untrained
from trainer.per_destination.from_choices import between_which, read_choices

PLAN = plan_of(load("paper-testbed", ["seeds.topology=202", "slots.count=30"]))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLog]:
    folder = tmp_path_factory.mktemp("log")
    with open_task_log(str(folder / "tasks.db")) as log:
        record_run(PLAN, log, scheduler="ratc", episodes=20, first_episode=100, run_id="ratc")
        record_run(PLAN, log, scheduler="local", episodes=1, run_id="local")
        yield log


def drawn_by_ratc(plan: Plan, decision: DecisionRecord) -> set[int]:
    """The two nodes that RATC drew, from the run's seeds."""
    node, task = decision.node, decision.observation.task
    assert task is not None
    context = SchedulerContext(
        node, plan.topology, plan.rules, plan.workload, plan.seeds.schedulers
    )
    return set(context.sample(task, tuple(range(plan.topology.size)), 2))


def test_candidates_are_the_two_nodes_that_ratc_drew(log: TaskLog) -> None:
    for decision in log.decisions("ratc", episode=100):
        if decision.task_id is None:
            continue
        found = between_which(decision, PLAN.topology.size)
        assert {node for node, each in enumerate(found) if each} == drawn_by_ratc(PLAN, decision)


@pytest.mark.parametrize("encoder", [NAME, STATE_NAME])
def test_all_decisions_are_read_with_their_credit(log: TaskLog, encoder: str) -> None:
    logged = read_choices(log, ["ratc"], PLAN, encoder)
    choices = logged.choices
    made = sum(each.task_id is not None for each in log.decisions("ratc"))
    # All but those whose tasks failed in transit, of which no queue tells.
    assert 0.9 * made < len(choices.chosen) <= made
    assert choices.rows.shape[1:] == (PLAN.topology.size, len(COLUMNS_OF[encoder]))
    assert choices.candidates.gather(1, choices.chosen[:, None]).all()
    assert (choices.candidates.sum(dim=1) == 2).all()
    assert not logged.plain
    assert len(logged.success_rate) == 20
    assert float(choices.credit.std()) > 0.1


def test_the_clone_is_better_than_ratc_and_the_same_every_time(log: TaskLog) -> None:
    choices = read_choices(log, ["ratc"], PLAN).choices
    weights = cloned(choices)
    again = cloned(choices)
    assert all(np.array_equal(one, two) for one, two in zip(weights, again, strict=True))
    known = {"clone": weights, "untrained": untrained(len(COLUMNS_OF[STATE_NAME]))}
    plan = without_control_delay(PLAN)
    rates = evaluate(plan, ["ratc", "clone", "untrained"], range(1_000, 1_030), known)
    assert rates["clone"].mean() > rates["ratc"].mean()
    assert rates["untrained"].mean() < rates["clone"].mean()


def test_logs_without_ratc_and_senseless_settings_are_refused(log: TaskLog) -> None:
    with pytest.raises(UsageError, match="ratc decided nothing"):
        read_choices(log, ["local"], PLAN)
    with pytest.raises(UsageError, match="temperature") as refused:
        CloneConfig(temperature=0.0, imitation=-1.0)
    assert "imitation" in str(refused.value)
