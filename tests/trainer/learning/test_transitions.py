from __future__ import annotations

from copy import copy
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from testbed.errors import UsageError
from tests.trainer.learning.problems import episodes_with, logged
from trainer.learning.transitions import RewardScale, Trajectory, Transitions, transitions_of


def changed(data: Transitions, **arrays: Any) -> Transitions:
    values = {field.name: copy(getattr(data, field.name)) for field in fields(data)}
    return Transitions(**{**values, **arrays})


def test_trajectories_become_transitions_in_order() -> None:
    first, second = episodes_with(None, 2, seed=3)
    ended = replace(second, terminated=True)
    data = transitions_of([first, ended])
    steps = len(first)
    assert len(data) == 2 * steps
    np.testing.assert_array_equal(data.next_obs[: steps - 1], data.obs[1:steps])
    np.testing.assert_array_equal(data.next_obs[steps - 1], first.obs[-1])
    assert np.flatnonzero(data.truncated).tolist() == [steps - 1]
    assert np.flatnonzero(data.terminated).tolist() == [2 * steps - 1]


def test_rewards_are_normalised_over_the_whole_data_set() -> None:
    scale = RewardScale.of(np.array([1.0, 3.0]))
    assert (scale.mean, scale.std) == (2.0, 1.0)
    assert scale.apply(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]
    assert RewardScale.of(np.full(4, 5.0)).apply(np.full(4, 5.0)).tolist() == [0.0] * 4
    normalised = logged().reward_scale().apply(logged().reward)
    assert abs(float(normalised.mean())) < 1e-6
    assert abs(float(normalised.std()) - 1) < 1e-5


def test_an_unknown_behaviour_is_fine_for_transitions_only() -> None:
    data = logged(2)
    unknown = np.full(len(data), np.nan, dtype=np.float32)
    assert np.isnan(changed(data, log_prob=unknown).log_prob).all()
    trajectory = episodes_with(None, 1, seed=0)[0]
    with pytest.raises(UsageError, match="finite and at most 0"):
        replace(trajectory, log_prob=np.full(len(trajectory), np.nan, dtype=np.float32))


def test_after_the_end_nothing_need_be_allowed() -> None:
    data = logged(1)
    terminated = np.ones(len(data), dtype=np.bool_)
    nothing = np.zeros_like(data.next_mask)
    changed(data, terminated=terminated, truncated=~terminated, next_mask=nothing)
    with pytest.raises(UsageError, match=r"next_mask\[0\]: \d+ rows allow nothing"):
        changed(data, next_mask=nothing)


def test_all_problems_are_named_at_once() -> None:
    data = logged(2)
    with pytest.raises(UsageError) as caught:
        changed(
            data,
            obs=data.obs.astype(np.float64),
            next_obs=data.next_obs[:, :1],
            reward=data.reward[:-1],
        )
    assert [problem.path for problem in caught.value.problems] == ["obs", "reward", "next_obs"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("obs", np.nan, "obs: 1 values are NaN"),
        ("reward", np.inf, "reward: 1 values are NaN or infinite"),
        ("next_obs", np.nan, "next_obs: 1 values"),
        ("log_prob", 0.5, "log_prob: 1 values"),
        ("action", 2, r"action\[0\]: 1 actions are outside their mask, first 2"),
        ("action", 3, r"action\[0\]: action 3; 0..2"),
        ("action", -1, r"action\[0\]: action -1"),
    ],
)
def test_a_single_bad_value_is_refused(name: str, value: float, message: str) -> None:
    data = logged(1)
    array = getattr(data, name).copy()
    array.reshape(-1)[0] = value
    with pytest.raises(UsageError, match=message):
        changed(data, **{name: array})


def test_empty_data_is_refused() -> None:
    data = logged(1)
    empty = {field.name: getattr(data, field.name)[:0] for field in fields(data)}
    with pytest.raises(UsageError, match="no rows"):
        Transitions(**empty)
    trajectory = episodes_with(None, 1, seed=0)[0]
    with pytest.raises(UsageError, match="episode 0, node 0"):
        Trajectory(
            trajectory.obs[:1],
            trajectory.mask[:1],
            trajectory.action[:0],
            trajectory.log_prob[:0],
            trajectory.reward[:0],
        )


def test_a_row_that_is_terminated_and_truncated_is_refused() -> None:
    data = logged(1)
    with pytest.raises(UsageError, match="1 rows are terminated and truncated"):
        changed(data, terminated=data.truncated.copy())


def test_trajectories_of_two_encoders_do_not_mix() -> None:
    one = episodes_with(None, 1, seed=0)[0]
    wide = replace(one, obs=np.concatenate([one.obs, one.obs], axis=1))
    with pytest.raises(UsageError, match="2 features x 3 actions, 4 features x 3 actions"):
        transitions_of([one, wide])
    with pytest.raises(UsageError, match="found none"):
        transitions_of([])
