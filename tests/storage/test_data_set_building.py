"""From logs to transitions: every number, every edge of a sequence, every reason to refuse."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.model.encoders import encoder
from testbed.model.task import Outcome
from testbed.model.units import SECOND
from testbed.sim.engine.vector import VectorEnv
from testbed.sim.record import record_run
from testbed.storage.dataset import build, load, show, team_rewards
from testbed.storage.tasklog import RunState, TaskLog, open_task_log
from tests.sim.plans import random_plan
from tests.storage.logs import (
    NODES,
    SLOT,
    TEAM_REWARDS,
    full_episode,
    idle,
    log_run,
    tiny_decision,
    tiny_plan,
    tiny_row,
    tiny_task,
)

NONE = NODES


@pytest.fixture
def task_log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(tmp_path / "tasks.db") as log:
        yield log


def test_transitions_hold_what_was_recorded(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    run = log_run(task_log, decisions, rows)
    metadata = build(task_log, [run], "paper-v1", tmp_path / "set")
    data = load(tmp_path / "set")

    assert data.offsets.tolist() == [0, 4, 8]
    assert (data.run, data.episode.tolist(), data.node.tolist()) == ((run,) * 2, [0, 0], [0, 1])
    assert data.slot.tolist() == [0, 1, 2, 3] * 2
    encode = encoder("paper-v1").bind(tiny_plan())
    expected = [encode(decision.observation) for decision in decisions]
    # Node 0 ended its task of slot 3 before it decided: it could do nothing about it.
    expected[3] = encode(decisions[3].observation._replace(task=None))
    np.testing.assert_array_equal(data.obs, np.array(expected, np.float32))
    assert data.action.tolist() == [0, 1, 1, NONE, NONE, 1, NONE, 0]
    no, yes = False, True
    assert data.mask.tolist() == [
        [yes, yes, no],
        [no, yes, no],
        [yes, yes, no],  # Chosen although the peer had said that it is overloaded.
        [no, no, yes],
        [no, no, yes],
        [no, yes, no],  # From what the peer answered.
        [no, no, yes],
        [yes, yes, no],
    ]
    log_probs = [math.log(0.25), 0.0, math.nan, 0.0, 0.0, math.nan, 0.0, 0.0]
    np.testing.assert_allclose(data.log_prob, log_probs, rtol=1e-6)
    assert data.reward.tolist() == TEAM_REWARDS * 2
    # Where a task ended before the decision, the decision had no part in it.
    outcomes = [1.0, 1.0, 1.0, math.nan, math.nan, 0.0, math.nan, 1.0]
    np.testing.assert_array_equal(data.outcome, outcomes)
    assert not data.terminated.any()
    assert data.truncated.tolist() == [no, no, no, yes] * 2
    assert [data.policy[index] for index in data.policy_index] == ["random"] * 8

    np.testing.assert_array_equal(data.next_obs[:3], data.obs[1:4])
    np.testing.assert_array_equal(data.next_mask[:3], data.mask[1:4])
    # Nothing arrives after the last slot; the queues are taken to be as they were.
    assert data.next_obs[7].tolist() == pytest.approx(
        encode(decisions[7].observation._replace(task=None))
    )
    assert data.next_mask[7].tolist() == [no, no, yes]

    counts = metadata["counts"]
    assert counts == {
        "rows": 8,
        "sequences": 2,
        "episodes": 1,
        "tasks": 5,
        "dropped_rows": 0,
        "missing_sequences": 0,
        "lost_tasks": 0,
        "actions_outside_mask": 1,
        "masks_derived": 3,
        "log_probs_unknown": 2,
        "final_states_assumed": 2,
    }
    assert metadata["mean_reward"] == 0.5


def test_the_metadata_says_where_it_comes_from(task_log: TaskLog, tmp_path: Path) -> None:
    certificate = {"valid": True, "p95": 0.01}
    plan = tiny_plan()
    run = log_run(task_log, *full_episode(), certificate=certificate)
    build(task_log, [run], "extended-v1", tmp_path / "set")
    metadata = show(tmp_path / "set")
    assert metadata["encoder"] == "extended-v1"
    assert metadata["features"] == 6 * NODES + 7 == len(metadata["observation_columns"])
    assert metadata["asks"] == "bits"
    assert metadata["scenario"] == "tiny"
    assert metadata["scenario_hashes"] == [plan.scenario_hash]
    assert metadata["behaviour_policies"] == {"random": 8}
    (described,) = metadata["runs"]
    assert described["seeds"] == {"topology": 1, "workload": 2, "faults": 3, "schedulers": 4}
    assert described["certificate"] == certificate
    assert described["outcomes"]["succeeded"] == 4
    assert metadata["network"]["topology"]["cores"] == [4, 8]
    assert (metadata["nodes"], metadata["actions"], metadata["slots"]) == (2, 3, 4)


def test_endings_after_the_last_slot_are_credited_to_it(task_log: TaskLog) -> None:
    rows = [
        tiny_row(tiny_task(3, 0), Outcome.SUCCEEDED, 2 * SECOND),
        tiny_row(tiny_task(3, 1), Outcome.DROPPED, 2 * SECOND),
        tiny_row(tiny_task(2, 0), Outcome.SUCCEEDED, SLOT),
        tiny_row(tiny_task(0, 0), Outcome.LOST, None),
        tiny_row(tiny_task(0, 1), Outcome.LOST, 5),
    ]
    run = log_run(task_log, full_episode()[0], rows)
    # A lost task counts when its deadline passes, here in slot 4, which there is not.
    assert team_rewards(task_log, run, tiny_plan())[0].tolist() == [0.0, 0.0, 0.0, -1.0]


def test_a_lost_task_has_no_outcome(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    rows[0] = tiny_row(tiny_task(0, 0), Outcome.LOST, None)
    run = log_run(task_log, decisions, rows)
    build(task_log, [run], "paper-v1", tmp_path / "set")
    assert np.isnan(load(tmp_path / "set").outcome[0])


def test_a_state_recorded_after_the_last_slot_is_used(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    after = [idle(4, node)._replace(task_id=None) for node in range(NODES)]
    run = log_run(task_log, [*decisions, *after], rows)
    metadata = build(task_log, [run], "paper-v1", tmp_path / "set")
    data = load(tmp_path / "set")
    assert metadata["counts"]["final_states_assumed"] == 0
    assert data.offsets.tolist() == [0, 4, 8]
    encode = encoder("paper-v1").bind(tiny_plan())
    assert data.next_obs[3].tolist() == pytest.approx(encode(after[0].observation))
    assert data.reward.tolist() == TEAM_REWARDS * 2


def test_a_node_that_died_leaves_a_shorter_sequence(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    first, second = decisions[:4], decisions[4:]
    run = log_run(task_log, [*first[:2], *first[3:], second[0]], rows, state=RunState.DEGRADED)
    metadata = build(task_log, [run], "paper-v1", tmp_path / "set", include_untrustworthy=True)
    data = load(tmp_path / "set")
    # Of node 0 slot 0, followed by slot 1; slots 2 and 3 are beyond the gap. Of node 1 nothing.
    assert data.offsets.tolist() == [0, 1]
    np.testing.assert_array_equal(
        data.next_obs[0],
        np.array(encoder("paper-v1").encode(first[1].observation, tiny_plan()), np.float32),
    )
    assert data.truncated.tolist() == [True]
    assert metadata["counts"]["dropped_rows"] == 3


def test_nodes_that_recorded_nothing_are_counted(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    run = log_run(task_log, decisions[:4], rows, state=RunState.DEGRADED)
    metadata = build(task_log, [run], "paper-v1", tmp_path / "set", include_untrustworthy=True)
    assert metadata["counts"]["missing_sequences"] == 1
    assert load(tmp_path / "set").sequences == 1


def test_an_episode_that_broke_off_is_not_used(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    more, _ = full_episode(episode=1)
    run = log_run(task_log, [*decisions, *more], rows, state=RunState.FAILED)
    build(task_log, [run], "paper-v1", tmp_path / "set", include_untrustworthy=True)
    data = load(tmp_path / "set")
    # Of episode 1 no outcomes are known.
    assert set(data.episode.tolist()) == {0}


def test_episodes_and_runs_do_not_mix(task_log: TaskLog, tmp_path: Path) -> None:
    for id in ("one", "two"):
        decisions, rows = full_episode()
        more, more_rows = full_episode(episode=1)
        log_run(task_log, [*decisions, *more], [*rows, *more_rows], id=id)
    build(task_log, ["one", "two", "one"], "paper-v1", tmp_path / "set")
    data = load(tmp_path / "set")
    assert data.run == ("one",) * 4 + ("two",) * 4
    assert data.episode.tolist() == [0, 0, 1, 1] * 2
    assert data.node.tolist() == [0, 1] * 4
    assert data.reward.tolist() == TEAM_REWARDS * 8


def test_runs_that_cannot_be_trusted_are_left_out_and_named(
    task_log: TaskLog, tmp_path: Path
) -> None:
    log_run(task_log, *full_episode(), id="good")
    log_run(
        task_log,
        *full_episode(),
        id="bad",
        state=RunState.INVALID,
        certificate={"reasons": ["generator late by 40 ms"]},
    )
    log_run(task_log, *full_episode(), id="open", state=RunState.RUNNING)
    metadata = build(task_log, ["good", "bad", "open"], "paper-v1", tmp_path / "set")
    assert [run["id"] for run in metadata["runs"]] == ["good"]
    assert metadata["left_out"] == [
        {"id": "bad", "reason": "it is invalid: generator late by 40 ms"},
        {"id": "open", "reason": "it has not ended"},
    ]
    with pytest.raises(UsageError, match="run bad: it is invalid: generator late by 40 ms"):
        build(task_log, ["bad"], "paper-v1", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    metadata = build(
        task_log, ["good", "bad"], "paper-v1", tmp_path / "all", include_untrustworthy=True
    )
    assert [run["state"] for run in metadata["runs"]] == ["completed", "invalid"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"run_ids": []}, "none given"),
        ({"run_ids": ["nobody"]}, "no run 'nobody'"),
        ({"run_ids": ["silent"]}, "run silent: has no decisions"),
        ({"run_ids": ["gaps"]}, "did not log idle slots"),
        ({"run_ids": ["unfinished"]}, "has no outcomes"),
        ({"run_ids": ["good", "faster"]}, "run faster: has another topology than run good"),
        ({"run_ids": ["good", "shorter"]}, "has another workload than run good"),
        ({"encoder_name": "paper-v9"}, "known are paper-v1, extended-v1"),
    ],
)
def test_what_cannot_become_a_data_set_is_refused(
    task_log: TaskLog, tmp_path: Path, arguments: dict[str, Any], expected: str
) -> None:
    plan = tiny_plan()
    decisions, rows = full_episode()
    log_run(task_log, decisions, rows, id="good")
    log_run(task_log, [], rows, id="silent")
    log_run(task_log, decisions, [], id="unfinished")
    log_run(task_log, decisions, rows, id="gaps", plan=tiny_plan(log_idle_slots=False))
    faster = dataclasses.replace(plan.topology, capacity_hz=(24_000_000_000,) * 2)
    log_run(task_log, decisions, rows, id="faster", plan=tiny_plan(topology=faster))
    shorter = dataclasses.replace(plan.workload, slots=3)
    log_run(task_log, decisions, rows, id="shorter", plan=tiny_plan(workload=shorter))
    wishes: dict[str, Any] = {"run_ids": ["good"], "encoder_name": "paper-v1", **arguments}
    with pytest.raises(UsageError, match=expected):
        build(task_log, folder=tmp_path / "set", **wishes)
    assert not (tmp_path / "set").exists()


def test_other_seeds_of_the_same_network_go_together(task_log: TaskLog, tmp_path: Path) -> None:
    plan = tiny_plan()
    other = tiny_plan(seeds=dataclasses.replace(plan.seeds, workload=99), scenario_hash="other")
    log_run(task_log, *full_episode(), id="one")
    log_run(task_log, *full_episode(), id="two", plan=other)
    metadata = build(task_log, ["one", "two"], "paper-v1", tmp_path / "set")
    assert metadata["scenario_hashes"] == [plan.scenario_hash, "other"]


def test_a_policy_that_changed_is_named_row_by_row(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    decisions = [
        decision._replace(scheduler="drl:abc") if decision.slot >= 2 else decision
        for decision in decisions
    ]
    run = log_run(task_log, decisions, rows)
    metadata = build(task_log, [run], "paper-v1", tmp_path / "set")
    assert metadata["behaviour_policies"] == {"random": 4, "drl:abc": 4}
    data = load(tmp_path / "set")
    assert data.policy == ("random", "drl:abc")
    assert data.policy_index.tolist() == [0, 0, 1, 1] * 2


def test_an_impossible_probability_is_unknown(task_log: TaskLog, tmp_path: Path) -> None:
    decisions, rows = full_episode()
    decisions[0] = tiny_decision(0, 0, 0, probabilities=(0.0, 1.0))
    run = log_run(task_log, decisions, rows)
    build(task_log, [run], "paper-v1", tmp_path / "set")
    assert math.isnan(load(tmp_path / "set").log_prob[0])


@pytest.mark.parametrize("scheduler", ["random", "rda-masked"])
def test_data_sets_of_the_simulator_equal_the_training_environment(
    task_log: TaskLog, tmp_path: Path, scheduler: str
) -> None:
    plan = random_plan(7, size=5, slots=20)
    run = record_run(plan, task_log, scheduler=scheduler, episodes=2)
    build(task_log, [run], "paper-v1", tmp_path / "set")
    data = load(tmp_path / "set")
    environment = VectorEnv([plan], threads=1)
    obs = data.obs.reshape(2, 5, 20, -1)
    action = data.action.reshape(2, 5, 20)
    reward = data.reward.reshape(2, 5, 20)
    for episode in range(2):
        environment.reset([episode])
        for slot in range(20):
            seen = environment.observe()
            np.testing.assert_allclose(obs[episode, :, slot], seen.features[0], rtol=1e-6)
            stepped = environment.step(action[None, episode, :, slot])
            assert reward[episode, :, slot].tolist() == [stepped.rewards[0]] * 5
    if scheduler == "rda-masked":
        assert show(tmp_path / "set")["counts"]["actions_outside_mask"] == 0
