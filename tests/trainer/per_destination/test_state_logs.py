"""Decisions by states, read back from logs: the rows that the engine and the nodes fed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings

from testbed.model.per_destination import HEARD_NAME, STATE_NAME
from testbed.policies import Policy, load_folder
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.sim.engine.arrays import problems_of_asking
from testbed.sim.engine.policies import weights_of
from testbed.sim.engine.scoring import pack_for, record_scoring
from testbed.sim.engine.threads import Threads
from testbed.sim.record import record_run
from testbed.storage.tasklog import open_task_log
from tests.sim.plans import random_plan, small_plans
from tests.sim.test_engine_vector import random_weights
from trainer.per_destination.export import write_policy
from trainer.per_destination.from_logs import DecisionCounts, read_decisions, sampled
from trainer.per_destination.tuning import TuneConfig, artifact_of, fine_tune


@pytest.fixture(
    scope="module",
    params=[
        (STATE_NAME, "state"),
        (HEARD_NAME, {"probe": 2}),
        (HEARD_NAME, {"gossip": "1 slot"}),
    ],
    ids=["state", "probe", "gossip"],
)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    encoder, asks = request.param
    folder = tmp_path_factory.mktemp("policy")
    write_policy(random_weights(encoder=encoder), folder, "states", asks=asks)
    return load_folder(folder)


def reads_as_played(plan: Plan, policy: Policy) -> None:
    """Hold the rows and choices that are read from a log to those of the engine."""
    weights = weights_of(policy)
    batch = pack_for([plan], weights, policy.card.asks)
    made = record_scoring(batch, Threads(1), weights, [0])
    spec = SchedulerSpec("drl", {"policy": policy.reference})
    with TemporaryDirectory() as folder, open_task_log(f"{folder}/tasks.db") as log:
        record_run(plan, log, scheduler=spec, episodes=1, run_id="run")
        found = {
            decision.task_id: (decision.destination, rows)
            for decision, rows in sampled(log, "run", plan, 0, policy.card, DecisionCounts())
        }
    assert set(found) == set(made.task.tolist())
    for task, chosen, rows in zip(made.task.tolist(), made.chosen, made.rows, strict=True):
        assert found[task][0] == chosen
        np.testing.assert_allclose(found[task][1], rows, rtol=1e-5, atol=1e-6)


def test_what_was_known_of_peers_is_read_as_the_policy_was_fed_with(policy: Policy) -> None:
    plan = random_plan(5, size=5, slots=25, failures=2.0)
    reads_as_played(plan, policy)
    reads_as_played(replace(plan, rules=replace(plan.rules, control_delay=40_000)), policy)


@settings(max_examples=15, deadline=None)
@given(plan=small_plans())
def test_any_small_network_is_read_as_played(policy: Policy, plan: Plan) -> None:
    assume(not problems_of_asking(plan, policy.card.asks))
    reads_as_played(plan, policy)


def test_what_is_tuned_asks_for_what_its_parent_asked(policy: Policy, tmp_path: Path) -> None:
    plan = random_plan(6, size=4, slots=10)
    spec = SchedulerSpec("drl", {"policy": policy.reference})
    with open_task_log(str(tmp_path / "tasks.db")) as log:
        record_run(plan, log, scheduler=spec, episodes=10, run_id="run")
        logged = read_decisions(log, ["run"], policy)
    result = fine_tune(weights_of(policy), logged, TuneConfig(check_episodes=2, threads=1))
    card, _ = artifact_of("tuned", result, logged, policy.card)
    assert (card.encoder, card.asks) == (policy.card.encoder, policy.card.asks)
    assert result.check is not None
