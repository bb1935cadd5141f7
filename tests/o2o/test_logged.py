"""Logs of the engine and of a task log are the same to a learner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.play import evaluate
from testbed.sim.record import record_run
from testbed.storage import dataset
from testbed.storage.tasklog import open_task_log
from trainer.credit.weight import later_weight
from trainer.o2o.feedback import logged_of
from trainer.o2o.logged import LoggedSequences, joined
from trainer.o2o.simulated import log_episodes

EPISODES = 6


def _plan(failure_rate: str) -> Plan:
    overrides = ["links.controlDelay=0s", "slots.count=30", f"nodes.failureRate={failure_rate}"]
    return plan_of(load("quickstart", overrides))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return _plan("{uniform: [0, 2]}")


@pytest.fixture(scope="module")
def of_engine(plan: Plan) -> LoggedSequences:
    return log_episodes(plan, "ratc", range(EPISODES), threads=1)


@pytest.fixture(scope="module")
def of_log(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> LoggedSequences:
    return _of_log(plan, tmp_path_factory.mktemp("log"))


def _of_log(plan: Plan, folder: Path) -> LoggedSequences:
    with open_task_log(str(folder / "log.sqlite")) as log:
        run = record_run(plan, log, scheduler="ratc", episodes=EPISODES)
        dataset.build(log, [run], "paper-v1", folder / "data")
        return logged_of(log, dataset.load(folder / "data"), plan)


def test_engine_and_task_log_give_the_same_transitions(
    of_engine: LoggedSequences, of_log: LoggedSequences
) -> None:
    assert of_log.sequences == EPISODES * 5
    mine, theirs = of_engine.transitions("team"), of_log.transitions("team")
    for name in ("mask", "action", "reward", "next_mask", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)
    # The engine knows the state after the last slot; a log takes it to be as in that slot.
    known = ~mine.truncated
    np.testing.assert_allclose(mine.obs, theirs.obs, atol=1e-6)
    np.testing.assert_allclose(mine.next_obs[known], theirs.next_obs[known], atol=1e-6)
    np.testing.assert_allclose(of_engine.success_rate, of_log.success_rate)


def test_engine_and_task_log_give_the_same_feedback(
    of_engine: LoggedSequences, of_log: LoggedSequences
) -> None:
    np.testing.assert_array_equal(of_engine.own, of_log.own)
    mine, theirs = of_engine.transitions("own"), of_log.transitions("own")
    np.testing.assert_allclose(mine.obs, theirs.obs, atol=1e-6)
    np.testing.assert_array_equal(mine.reward, theirs.reward)
    assert len(mine) == int(of_engine.with_task.sum())
    assert set(np.unique(mine.reward)) == {-1.0, 1.0}


def test_credit_of_a_log_is_the_engines(
    of_engine: LoggedSequences, of_log: LoggedSequences
) -> None:
    np.testing.assert_allclose(of_engine.credit, of_log.credit, atol=1e-6)
    assert np.nanmin(of_log.credit) < 0 < np.nanmax(of_log.credit)
    assert not of_log.incomplete


def test_the_weight_of_later_decisions_is_one_for_the_engine_and_the_log(tmp_path: Path) -> None:
    """Where the overload bit comes too late to react to, both count the whole effect."""
    overrides = ["links.controlDelay=0s", "slots.count=30", "nodes.count=4"]
    plan = plan_of(load("paper-testbed", overrides))
    assert later_weight(plan) == 1.0 > later_weight(_plan("0"))

    logged = _of_log(plan, tmp_path)

    assert np.nansum(np.abs(logged.credit)) > 0
    np.testing.assert_allclose(
        log_episodes(plan, "ratc", range(EPISODES), threads=1).credit, logged.credit, atol=1e-6
    )


def test_episodes_without_a_complete_log_are_scored_by_outcome(plan: Plan, tmp_path: Path) -> None:
    with open_task_log(str(tmp_path / "log.sqlite")) as log:
        run = record_run(plan, log, scheduler="ratc", episodes=2)
        dataset.build(log, [run], "paper-v1", tmp_path / "data")
        other = replace(plan, seeds=replace(plan.seeds, workload=plan.seeds.workload + 1))

        logged = logged_of(log, dataset.load(tmp_path / "data"), other)

    assert set(logged.incomplete) == {(run, 0), (run, 1)}
    told = np.isfinite(logged.own)
    np.testing.assert_array_equal(logged.credit[told], logged.own[told] > 0)


def test_trajectories_hold_the_decisions_that_have_a_reward(of_engine: LoggedSequences) -> None:
    with pytest.raises(UsageError, match="log_prob"):
        of_engine.trajectories("own")
    known = _with_log_prob(of_engine)
    whole, single = known.trajectories("team"), known.trajectories("own")
    assert sum(map(len, whole)) == len(known)
    assert sum(map(len, single)) == int(known.with_task.sum())
    first = next(t for t in single if (t.episode, t.node) == (whole[0].episode, whole[0].node))
    chosen = whole[0].action < 5
    np.testing.assert_array_equal(first.action, whole[0].action[chosen])
    np.testing.assert_array_equal(first.obs[:-1], whole[0].obs[:-1][chosen])
    for each in (*whole, *single):
        replace(each)  # is checked once more, alone


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("states", np.nan, "obs: 1 values are NaN"),
        ("log_prob", 0.5, "1 values are not log-probabilities"),
        ("action", -1, "action -1"),
        ("team", np.inf, "reward: 1 values are NaN or infinite"),
    ],
)
def test_a_trajectory_that_cannot_be_learned_from_is_refused(
    of_engine: LoggedSequences, name: str, value: float, message: str
) -> None:
    known = _with_log_prob(of_engine)
    array = getattr(known, name).copy()
    array.reshape(-1)[7] = value
    with pytest.raises(UsageError, match=message):
        replace(known, **{name: array}).trajectories("team")


def test_logs_are_joined_in_order(of_engine: LoggedSequences) -> None:
    twice = joined([of_engine, of_engine])
    assert len(twice) == 2 * len(of_engine)
    half = twice.transitions("team")
    np.testing.assert_array_equal(
        half.next_obs[: len(of_engine)], of_engine.transitions("team").next_obs
    )
    with pytest.raises(UsageError, match="different networks or encoders"):
        joined([])


def _with_log_prob(logged: LoggedSequences) -> LoggedSequences:
    return replace(logged, log_prob=np.full(len(logged), -0.5, np.float32))


def test_a_experiment_can_begin_with_the_policy_that_ships(plan: Plan) -> None:
    numbers = [0, 1, 7]
    said: list[tuple[int, int]] = []
    logged = log_episodes(
        plan, "drl", numbers, progress=lambda done, total: said.append((done, total))
    )
    expected = evaluate(plan, ["per-destination"], numbers)["per-destination"]
    np.testing.assert_allclose(logged.success_rate, expected)
    assert sorted(set(logged.episode.tolist())) == numbers
    # A learned policy says how probable its choice was, and keeps to its mask.
    decided = logged.action < plan.topology.size
    assert decided.sum() > 100
    assert np.isfinite(logged.log_prob[decided]).all()
    assert len(logged.transitions("own")) == (decided & np.isfinite(logged.own)).sum()
