"""Learning in this process, on two threads, against RLlib's learner: equal bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from testbed.errors import PermanentError
from trainer.learning import offline, ppo
from trainer.learning.actor import NetworkSpec
from trainer.learning.checkpoint import read_checkpoint
from trainer.learning.cql import CqlConfig
from trainer.learning.lean import Adam, Beside, descend
from trainer.learning.offline import OfflineConfig, train_offline
from trainer.learning.ppo import Ppo, PpoConfig
from trainer.learning.transitions import Trajectory, transitions_of

FEATURES, ACTIONS = 11, 5
SPEC = NetworkSpec(FEATURES, ACTIONS, (16, 16))


def trajectories(seed: int = 0, count: int = 30) -> list[Trajectory]:
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        steps = int(draw.integers(3, 25))
        mask = draw.random((steps + 1, ACTIONS)) < 0.6
        mask[:, 0] = True
        found.append(
            Trajectory(
                obs=draw.random((steps + 1, FEATURES), dtype=np.float32),
                mask=mask,
                action=np.array([draw.choice(np.flatnonzero(row)) for row in mask[:-1]]),
                log_prob=draw.uniform(-2.5, -0.5, steps).astype(np.float32),
                reward=draw.normal(size=steps).astype(np.float32),
                episode=number,
            )
        )
    return found


def by_rllib(group: LearnerGroup, *, batch: dict[str, Any], size: int) -> None:
    """What ``learn_here`` does, by RLlib's own update."""
    # Without a discount what follows is not given; RLlib's way computes it and does not use it.
    rows = SampleBatch({Columns.NEXT_OBS: batch[Columns.OBS], **batch})
    whole = MultiAgentBatch({DEFAULT_MODULE_ID: rows}, env_steps=len(rows))
    group.update(batch=whole, minibatch_size=size, num_epochs=1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gamma": 0.0},
        {"gamma": 0.0, "actor_q": "online", "alpha": 0.3, "tau": 5e-3},
        {"actor_q": "online", "cql_weight": 0.0},
    ],
)
def test_offline_training_gives_the_weights_and_metrics_of_rllib(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = transitions_of(trajectories())
    cql = replace(CqlConfig(batch_size=32, learning_rate=1e-2), **changes)
    config = OfflineConfig(steps=25, report_every=10, learner=cql, hidden=(16, 16))
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name in ("rllib", "here"):
        with monkeypatch.context() as patched:
            if name == "rllib":
                patched.setattr(offline, "learn_here", by_rllib)
            result = train_offline(data, config, tmp_path / name)
            state, _ = read_checkpoint(result.checkpoint, "offline")
            found.append((dict(state), dict(result.metrics)))
    (expected, metrics), (state, measured) = found
    assert any(name.startswith("state/adam/exp_avg/") for name in expected)
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, name)
    assert measured == metrics


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gamma": 0.0, "gae_lambda": 0.0, "clip": 0.3},
        {"entropy_weight": 0.01, "value_weight": 0.5, "standardise_advantages": False},
    ],
)
def test_online_updates_give_the_weights_and_metrics_of_rllib(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(PpoConfig(kl_stop=None, minibatch_size=50, learning_rate=1e-2), **changes)
    found = []
    for name, threads in (("rllib", 1), ("one", 1), ("two", 2)):
        with monkeypatch.context() as patched, Ppo(SPEC, config) as learner:
            patched.setattr(ppo, "Beside", lambda count=threads: Beside(count))
            assert learner._here
            learner._here = name != "rllib"
            metrics = [learner.update(trajectories(seed)) for seed in (1, 2)]
            found.append((learner.state(), metrics))
    (expected, measured), *others = found
    for state, metrics in others:
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(state[name], value, name)
        assert metrics == measured


@pytest.mark.parametrize("changes", [{"kl_stop": 0.05}, {"gradient_clip": 1.0}])
def test_what_needs_both_networks_at_once_stays_with_rllib(changes: dict[str, Any]) -> None:
    with Ppo(SPEC, replace(PpoConfig(kl_stop=None), **changes)) as learner:
        assert not learner._here


@pytest.mark.parametrize("threads", [1, 2])
def test_both_jobs_are_done_and_either_may_fail(threads: int) -> None:
    done: list[str] = []

    def fail() -> None:
        raise ArithmeticError

    with Beside(threads) as beside:
        beside.both(lambda: done.append("here"), lambda: done.append("there"))
        assert sorted(done) == ["here", "there"]
        for jobs in ((fail, lambda: done.append("other")), (lambda: done.append("other"), fail)):
            with pytest.raises(ArithmeticError):
                beside.both(*jobs)


def test_the_second_job_ends_early_where_the_first_was_interrupted() -> None:
    ended: list[bool] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    with Beside(2) as beside:
        with pytest.raises(KeyboardInterrupt):
            beside.both(interrupted, lambda: ended.append(beside.given_up.wait(60)))
        assert ended == [True]
        beside.both(lambda: None, lambda: ended.append(beside.given_up.is_set()))
        assert ended == [True, False]


def test_some_parameters_are_stepped_as_all_would_be() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((7, 5), (5,), (33,))]
    gradients = [torch.randn(each.shape, generator=generator) for each in start]
    found = []
    for parts in ([slice(0, 3)], [slice(0, 1), slice(1, 3)]):
        parameters = [torch.nn.Parameter(each.clone()) for each in start]
        adam = Adam(parameters, lr=1e-2, fused=True)
        for _ in range(3):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            if len(parts) == 1:
                adam.step()
            else:
                for part in parts:
                    adam.step_some(parameters[part])
        found.append([parameter.detach().numpy() for parameter in parameters])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(PermanentError, match="diverged"):
        descend(
            (parameter * float("nan")).sum(),
            [parameter],
            Adam([parameter], lr=1.0, fused=True),
            PermanentError("diverged"),
        )
    assert parameter.tolist() == [1.0, 1.0, 1.0]
