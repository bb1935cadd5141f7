"""Estimates of a policy from logs of another, where the truth can be computed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from testbed.errors import UsageError
from trainer.estimation.estimate import EstimateConfig, estimate
from trainer.estimation.fqe import FqeConfig
from trainer.learning.transitions import BoolArray, FloatArray
from trainer.o2o.logged import LoggedSequences

EPISODES, NODES, SLOTS, ACTIONS = 60, 4, 25, 3
QUICK = EstimateConfig(FqeConfig(steps=600, batch_size=256, learning_rate=3e-3, hidden=(32,)))
FAST = replace(QUICK, fqe=replace(QUICK.fqe, steps=100))

Matrix = NDArray[np.float64]


def success(state: Matrix) -> Matrix:
    """Probability of success [B, A]: action 0 suits states below 0, action 1 those above."""
    x = state[:, :1]
    return np.concatenate([1 / (1 + np.exp(3 * x)), 1 / (1 + np.exp(-3 * x)), 0 * x + 0.5], axis=1)


def behaviour(obs: FloatArray, mask: BoolArray) -> FloatArray:
    """Mostly the wrong action, but all of them."""
    return _softmax(-1.0 * success(obs.astype(np.float64)), mask)


def wiser(obs: FloatArray, mask: BoolArray) -> FloatArray:
    """Mostly the right action."""
    return _softmax(4.0 * success(obs.astype(np.float64)), mask)


def _softmax(scores: Matrix, mask: BoolArray) -> FloatArray:
    found = np.zeros(mask.shape)
    found[:, :ACTIONS] = np.where(mask[:, :ACTIONS], np.exp(scores), 0.0)
    found[mask[:, -1], -1] = 1.0
    shares: FloatArray = (found / found.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def logs(seed: int = 0, held: float = 0.0) -> LoggedSequences:
    """Logs of ``behaviour``; every fifth slot has no task.

    With ``held`` action 2 is certain to succeed, and takes this much from the next task's chance.
    """
    rng = np.random.default_rng(seed)
    sequences = EPISODES * NODES
    states = np.zeros((sequences, SLOTS + 1, 2), np.float32)
    states[:, :, 0] = rng.normal(0.0, 1.0, (sequences, SLOTS + 1))
    masks = np.ones((sequences, SLOTS + 1, ACTIONS + 1), np.bool_)
    masks[..., -1] = False
    masks[:, ::5] = [False] * ACTIONS + [True]
    action = np.full((sequences, SLOTS), ACTIONS)
    log_prob = np.zeros((sequences, SLOTS), np.float32)
    own = np.full((sequences, SLOTS), np.nan, np.float32)
    rows = np.arange(sequences)
    for slot in range(SLOTS):
        obs, mask = states[:, slot], masks[:, slot]
        given = behaviour(obs, mask)
        chosen = (given.cumsum(axis=1) < rng.random((sequences, 1))).sum(axis=1).clip(0, ACTIONS)
        action[:, slot], log_prob[:, slot] = chosen, np.log(given[rows, chosen])
        if mask[0, -1]:
            continue
        chance = chances(obs, held)[rows, chosen]
        own[:, slot] = np.where(rng.random(sequences) < chance, 1.0, -1.0)
        states[:, slot + 1, 1] = (chosen == 2) & (held > 0.0)
    numbers = np.repeat(np.arange(EPISODES), NODES)
    flat = own.reshape(-1)
    return LoggedSequences(
        states=states.reshape(-1, 2),
        masks=masks.reshape(-1, ACTIONS + 1),
        action=action.reshape(-1),
        log_prob=log_prob.reshape(-1),
        team=np.zeros(flat.shape, np.float32),
        own=flat,
        credit=np.full(flat.shape, np.nan, np.float32),
        lengths=np.full(sequences, SLOTS),
        run=("run",) * sequences,
        episode=numbers,
        node=np.tile(np.arange(NODES), EPISODES),
        success_rate=np.nanmean(own.reshape(EPISODES, -1) > 0, axis=1),
    )


def chances(obs: FloatArray, held: float) -> Matrix:
    found = success(obs.astype(np.float64))
    if held:
        found[:, 2] = 1.0
    return np.clip(found - held * obs[:, 1:].astype(np.float64), 0.0, 1.0)


def truth() -> float:
    """The rate of ``wiser`` in states as they come."""
    obs = np.random.default_rng(99).normal(0.0, 1.0, (20_000, 2)).astype(np.float32)
    mask = np.tile([True] * ACTIONS + [False], (len(obs), 1))
    return float((wiser(obs, mask)[:, :ACTIONS] * chances(obs, 0.0)).sum(axis=1).mean())


def test_a_policy_is_known_before_it_decides() -> None:
    found = estimate(wiser, logs(), QUICK)

    assert found.logged.rate < truth() - 0.1
    for name, each in found.estimates.items():
        assert each.rate == pytest.approx(truth(), abs=0.03), name
        assert each.low < each.rate < each.high
    assert found.estimates.keys() == {"fqe", "doubly-robust", "importance"}
    assert (found.episodes, found.decisions) == (EPISODES, EPISODES * NODES * SLOTS * 4 // 5)
    assert 0 < found.effective < found.decisions
    assert found.cut == 0.0


def test_the_policy_of_the_logs_has_the_rate_of_the_logs() -> None:
    found = estimate(behaviour, logs(), FAST)

    assert found.effective == pytest.approx(found.decisions)
    assert found.estimates["importance"].rate == pytest.approx(found.logged.rate, abs=1e-6)
    assert found.estimates["doubly-robust"].rate == pytest.approx(found.logged.rate, abs=0.02)


def test_probabilities_mend_values_that_are_wrong() -> None:
    unfitted = replace(QUICK, fqe=replace(QUICK.fqe, steps=1))
    found = estimate(wiser, logs(), unfitted)

    assert abs(found.estimates["fqe"].rate - truth()) > 0.1
    assert found.estimates["doubly-robust"].rate == pytest.approx(truth(), abs=0.03)


def test_values_mend_probabilities_that_are_wrong() -> None:
    logged = logs()
    wrong = np.where(logged.with_task, np.float32(math.log(0.5)), 0.0).astype(np.float32)
    found = estimate(wiser, replace(logged, log_prob=wrong), QUICK)

    assert found.estimates["doubly-robust"].rate == pytest.approx(truth(), abs=0.03)


def test_without_probabilities_there_are_values_only() -> None:
    logged = logs()
    silent = replace(logged, log_prob=np.full_like(logged.log_prob, np.nan))
    found = estimate(wiser, silent, QUICK)

    assert found.estimates.keys() == {"fqe"}
    assert math.isnan(found.effective)


def test_the_same_logs_give_the_same_estimate() -> None:
    one, two = (estimate(wiser, logs(), FAST) for _ in range(2))
    assert one == two
    other = estimate(wiser, logs(), replace(FAST, fqe=replace(FAST.fqe, seed=1)))
    assert other.estimates["fqe"] != one.estimates["fqe"]


def test_intervals_cover_the_truth() -> None:
    covered = 0
    for seed in range(6):
        each = estimate(wiser, logs(seed), FAST).estimates["doubly-robust"]
        covered += each.low <= truth() <= each.high
    assert covered >= 4


def test_a_discount_counts_what_a_choice_does_to_later_tasks() -> None:
    held = logs(held=0.6)

    def holder(obs: FloatArray, mask: BoolArray) -> FloatArray:
        found = np.zeros(mask.shape, np.float32)
        found[:, 2] = ~mask[:, -1]
        found[:, -1] = mask[:, -1]
        return found

    # Of four tasks in a row the first is certain and each later one has lost 0.6.
    true = (1.0 + 3 * 0.4) / 4
    blind = estimate(holder, held, QUICK).estimates["fqe"].rate
    config = replace(QUICK, fqe=replace(QUICK.fqe, gamma=0.8, steps=1_000, tau=0.05))
    seeing = estimate(holder, held, config).estimates

    assert blind > true + 0.15
    assert seeing["fqe"].rate == pytest.approx(true, abs=0.1)
    assert abs(seeing["fqe"].rate - true) < abs(blind - true) / 2


def test_lost_tasks_do_not_count() -> None:
    logged = logs()
    own = logged.own.copy()
    placed = np.flatnonzero(logged.with_task)
    own[placed[::7]] = np.nan
    found = estimate(wiser, replace(logged, own=own), QUICK)

    assert found.decisions == len(placed) - len(placed[::7])
    assert found.estimates["doubly-robust"].rate == pytest.approx(truth(), abs=0.04)


def test_logs_that_tell_nothing_are_refused() -> None:
    logged = logs()
    silent = replace(logged, own=np.full_like(logged.own, np.nan))
    with pytest.raises(UsageError, match="outcomes: the logs have none"):
        estimate(wiser, silent, QUICK)
    few = replace(logged, episode=np.zeros_like(logged.episode))
    with pytest.raises(UsageError, match="episodes: 1; at least 4"):
        estimate(wiser, few, QUICK)
    with pytest.raises(UsageError, match=r"fqe\.gamma: 1\.0; 0 to below 1"):
        FqeConfig(gamma=1.0)
