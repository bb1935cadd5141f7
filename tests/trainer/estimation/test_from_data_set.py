"""Estimates from files: a data set of simulated runs, a policy's artifact, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.policies import Policy, shipped
from testbed.scenario.load import load as load_scenario
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.record import record_run
from testbed.storage.dataset import DataSet, build, load
from testbed.storage.tasklog import open_task_log
from tests.cli.conftest import Command, home, testbed
from tests.policies import tiny
from trainer.estimation.estimate import EstimateConfig, estimate
from trainer.estimation.fqe import FqeConfig
from trainer.estimation.from_data_set import logged_of, probabilities_of, without_bits
from trainer.o2o.simulated import log_episodes

__all__ = ["home", "testbed"]

EPISODES = 4


@pytest.fixture(scope="module")
def plan() -> Plan:
    scenario = load_scenario("quickstart", ["slots.count=12"])
    return replace(without_control_delay(plan_of(scenario)), log_idle_slots=True)


@pytest.fixture(scope="module")
def data(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("logs")
    with open_task_log(folder / "log.sqlite") as log:
        run = record_run(plan, log, scheduler="rda-masked", episodes=EPISODES)
        build(log, [run], "paper-v1", folder / "set")
    return load(folder / "set")


def flat(nodes: int) -> Policy:
    card, actor = tiny.perceptron(nodes)
    return Policy(card, actor, "here")


def test_a_data_set_has_the_outcomes_that_the_engine_has(plan: Plan, data: DataSet) -> None:
    logged = logged_of(data)
    expected = log_episodes(plan, "rda-masked", range(EPISODES), threads=1)
    np.testing.assert_array_equal(logged.action, expected.action)
    # Of a task that ended before it was decided there is no decision.
    told = np.isfinite(logged.own)
    np.testing.assert_array_equal(logged.own[told], expected.own[told])
    np.testing.assert_allclose(logged.success_rate, expected.success_rate, atol=0.02)


def test_the_policy_decides_as_its_artifact_does(data: DataSet) -> None:
    policy = probabilities_of(flat(data.nodes), data)
    found = policy(data.obs[:200], data.mask[:200])
    assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (found[~data.mask[:200]] == 0.0).all()
    idle = data.action[:200] == data.nodes
    assert (found[idle, -1] == 1.0).all()
    assert (found[~idle, -1] == 0.0).all()


def test_without_probabilities_a_data_set_gives_values(data: DataSet) -> None:
    config = EstimateConfig(FqeConfig(steps=200))
    found = estimate(probabilities_of(flat(data.nodes), data), logged_of(data), config)
    assert found.estimates.keys() == {"fqe"}
    assert 0.0 < found.estimates["fqe"].rate < 1.0
    assert without_bits(data) == ()


def test_what_does_not_fit_is_refused(data: DataSet) -> None:
    with pytest.raises(UsageError, match="per-destination-v1 of the policy, paper-v1 of the data"):
        probabilities_of(shipped(), data)
    with pytest.raises(UsageError, match=f"9 of the policy, {data.nodes} of the data set"):
        probabilities_of(flat(9), data)
    old = replace(data, outcome=np.full_like(data.outcome, np.nan))
    with pytest.raises(UsageError, match="build it again"):
        logged_of(old)


def test_the_command_estimates_a_policy_from_logs_of_others(
    testbed: Command, tmp_path: Path
) -> None:
    small = ("--set", "slots.count=12", "--set", "links.controlDelay=0s")
    sizes = ("--log-episodes", 4, "--offline-steps", 40, "--online-episodes", 10)
    said = testbed("o2o", "quickstart", "--simulate", *small, *sizes, "--evaluation-episodes", 2,
                   "--out", tmp_path / "out", "--json")  # fmt: skip
    assert said.code == 0, said.err
    offline, better = (said.document["policies"][name] for name in ("offline", "o2o"))
    assert testbed("sim", "quickstart", *small, "-s", "drl", "--option", f"policy={offline}",
                   "-e", 6).code == 0  # fmt: skip
    assert testbed("dataset", "build", "--out", "logs").code == 0

    said = testbed("policy", "estimate", better, "--data", "logs", "--steps", 200, "--json")

    assert said.code == 0, said.err
    document = said.document
    assert set(document["estimates"]) == {"fqe", "doubly-robust", "importance"}
    for each in document["estimates"].values():
        assert 0.0 < each["low"] <= each["rate"] <= each["high"] < 1.2
    assert document["episodes"] == 6
    assert 0 < document["effective_decisions"] <= document["decisions"]
    shown = testbed("policy", "estimate", better, "--data", "logs", "--steps", 200)
    assert "doubly-robust" in shown.out
    assert f"drl:{offline}" in shown.out
    refused = testbed("policy", "estimate", "shipped/per-destination-v1", "--data", "logs")
    assert refused.code == 2
