"""Offline learners beside the paper's: each by a file of its own, trained and handed over alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from torch import Tensor

from testbed.errors import UsageError
from tests.trainer.learning.problems import BEST, SPEC, TwoStates, logged, masks, observations
from trainer.learning.checkpoint import Arrays, read_checkpoint
from trainer.learning.cloning import CloningConfig, cloning_losses
from trainer.learning.cql import CqlConfig
from trainer.learning.dqn import DqnConfig, dqn_losses
from trainer.learning.iql import IqlConfig, iql_losses
from trainer.learning.learners import LEARNERS, learner_like
from trainer.learning.module import OffloadingModule, masked
from trainer.learning.offline import OfflineConfig, OfflineResult, train_offline
from trainer.learning.online import OnlineConfig, Start, fine_tune
from trainer.learning.ppo import PpoConfig
from trainer.learning.shared_target import SharedTargetConfig
from trainer.learning.stepping import (
    Settings,
    StepLearner,
    actor_and_critic,
    check_learner,
    described,
)
from trainer.learning.transitions import Transitions

STATES = np.array([0, 1])


@pytest.fixture(scope="module")
def data() -> Transitions:
    return logged()


def trained(data: Transitions, settings: Settings, out: Path, steps: int = 500) -> OfflineResult:
    return train_offline(data, OfflineConfig(steps=steps, learner=settings, hidden=(16, 16)), out)


def chances(result: OfflineResult) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found = np.exp(result.actor.log_probabilities(observations(STATES), masks(2)))
    assert (found[:, 2] == 0).all()
    return found


@pytest.mark.parametrize(
    "settings",
    [
        IqlConfig(learning_rate=3e-3, gamma=0.9, tau=0.05, batch_size=64),
        DqnConfig(learning_rate=3e-3, gamma=0.9, tau=0.05, batch_size=64),
        SharedTargetConfig(learning_rate=3e-3, gamma=0.9, tau=0.05, batch_size=64),
    ],
    ids=lambda settings: settings.name,
)
def test_the_best_policy_is_found_from_random_logs(
    data: Transitions, tmp_path: Path, settings: Settings
) -> None:
    assert (chances(trained(data, settings, tmp_path, 800))[STATES, BEST] > 0.8).all()


def test_a_shared_target_follows_the_first_q_network_alone(
    data: Transitions, tmp_path: Path
) -> None:
    settings = SharedTargetConfig(gamma=0.9, tau=0.05, batch_size=32)
    trained(data, settings, tmp_path, 3)
    state, _ = read_checkpoint(tmp_path / "offline.npz", "offline")
    of = {
        part: [value for name, value in state.items() if name.startswith(f"state/module/{part}.")]
        for part in ("q1", "q2", "tq1", "tq2")
    }
    assert len(of["q1"]) == 6
    for first, second, target, other in zip(*of.values(), strict=True):
        np.testing.assert_array_equal(target, other)
        assert np.abs(target - first).sum() < np.abs(target - second).sum()


def test_cloning_does_as_the_logs_do(data: Transitions, tmp_path: Path) -> None:
    settings = CloningConfig(learning_rate=3e-3, batch_size=64)
    assert chances(trained(data, settings, tmp_path))[:, :2] == pytest.approx(0.5, abs=0.1)
    # Nothing but action 1 in state 0: that is what is cloned, paid or not.
    told = (data.action == 1) | (data.obs[:, 1] == 1)
    some = replace(data, **{name: getattr(data, name)[told] for name in ROWS})
    assert chances(trained(some, settings, tmp_path / "some"))[0, 1] > 0.9


ROWS = (
    *("obs", "mask", "action", "log_prob", "reward", "next_obs", "next_mask"),
    *("terminated", "truncated"),
)


@pytest.mark.parametrize("name", LEARNERS)
def test_each_is_resumed_exactly_and_handed_over(
    data: Transitions, tmp_path: Path, name: str
) -> None:
    settings = learner_like(name, CqlConfig(learning_rate=3e-3, gamma=0.9, tau=0.05, batch_size=32))
    config = OfflineConfig(steps=30, learner=settings, hidden=SPEC.hidden, report_every=10)
    whole = train_offline(data, config, tmp_path / "whole")
    train_offline(data, replace(config, steps=10), tmp_path / "parts")
    resumed = train_offline(data, config, tmp_path / "parts", resume=True)
    assert whole.weights.keys() == resumed.weights.keys()
    for weight, value in whole.weights.items():
        np.testing.assert_array_equal(value, resumed.weights[weight], weight)
    assert math.isfinite(whole.metrics["entropy"])
    tuned = fine_tune(
        TwoStates(),
        whole.actor.spec,
        OnlineConfig(episodes=10, episodes_per_update=10, ppo=PpoConfig(kl_stop=None)),
        tmp_path / "online",
        start=Start(whole.weights, whole.reward_scale),
    )
    assert tuned.finished
    other = learner_like("cloning" if name != "cloning" else "iql", settings)
    with pytest.raises(UsageError, match="other settings"):
        train_offline(data, replace(config, learner=other), tmp_path / "parts", resume=True)


def test_what_two_learners_share_goes_from_one_to_the_other() -> None:
    base = CqlConfig(learning_rate=1e-3, gamma=0.0, tau=5e-3, batch_size=640, alpha=0.3)
    assert learner_like("cql", base) is base
    assert learner_like("iql", base) == IqlConfig(1e-3, 0.0, 5e-3, 640)
    assert learner_like("cloning", base) == CloningConfig(1e-3, 0.0, 640)
    assert learner_like("dqn", base) == DqnConfig(1e-3, 0.0, 5e-3, 640)
    assert learner_like("shared-target", base) == SharedTargetConfig(1e-3, 0.0, 5e-3, 640, 0.3)
    with pytest.raises(UsageError, match="one of cql, cloning, iql, dqn, shared-target"):
        learner_like("best", base)


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(UsageError) as caught:
        IqlConfig(gamma=2.0, expectile=1.0, sharpness=-1.0)
    assert [p.path for p in caught.value.problems] == [
        "iql.gamma",
        "iql.expectile",
        "iql.sharpness",
    ]
    with pytest.raises(UsageError, match=r"dqn\.temperature"):
        DqnConfig(temperature=0.0)
    with pytest.raises(UsageError, match="only cql can be learned remotely"):
        OfflineConfig(learner=IqlConfig(), num_learners=1)


def test_losses_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.25, 0.75]]))
    action, y, value = torch.tensor([1]), torch.tensor([2.0]), torch.tensor([0.5])
    cloned = cloning_losses(logits, value, action, y)
    assert cloned["actor_loss"].item() == pytest.approx(-math.log(0.75))
    assert cloned["value_loss"].item() == pytest.approx(1.5**2)

    q = (torch.tensor([[9.0, 1.0]]), torch.tensor([[9.0, 3.0]]))
    config = IqlConfig(expectile=0.8, sharpness=2.0)
    above = iql_losses(logits, value, q, torch.tensor([1.0]), action, y, config)
    assert above["q1_loss"].item() == pytest.approx(1.0)
    assert above["q2_loss"].item() == pytest.approx(1.0)
    assert above["value_loss"].item() == pytest.approx(0.8 * 0.5**2)
    assert above["actor_loss"].item() == pytest.approx(-math.exp(1.0) * math.log(0.75))
    below = iql_losses(logits, value, q, torch.tensor([0.0]), action, y, config)
    assert below["value_loss"].item() == pytest.approx(0.2 * 0.5**2, rel=1e-5)
    cut = iql_losses(logits, value, q, torch.tensor([99.0]), action, y, config)
    assert cut["actor_loss"].item() == pytest.approx(-100.0 * math.log(0.75))

    mask = torch.tensor([[True, True]])
    losses = dqn_losses(q[0], value, action, torch.tensor([1.5]), mask, 0.1)
    assert losses["q1_loss"].item() == pytest.approx(0.5 * 0.5**2)
    assert losses["entropy"].item() == pytest.approx(0.0, abs=1e-6)


def test_dqn_hands_over_a_softmax_of_its_values(data: Transitions, tmp_path: Path) -> None:
    settings = DqnConfig(batch_size=32, temperature=0.25)
    result = trained(data, settings, tmp_path, 20)
    weights = {"q1.0.weight": np.ones(2), "q1.0.bias": np.ones(1), "vf.0.bias": np.zeros(1)}
    assert settings.handed_over(weights)["pi.0.weight"].tolist() == [4.0, 4.0]
    assert result.weights.keys() == {
        f"{part}.{layer}.{name}"
        for part in ("pi", "vf")
        for layer in (0, 2, 4)
        for name in ("weight", "bias")
    }


@dataclass(frozen=True, slots=True)
class MineConfig:
    """A learner of a reader's own: likes what was paid, and looks no further."""

    name: ClassVar[str] = "mine"
    twin_q: ClassVar[bool] = False
    learning_rate: float = 1e-2
    gamma: float = 0.0
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_learner(self)

    def algorithm(self) -> AlgorithmConfig:
        return described(self, Mine)

    def handed_over(self, weights: Arrays) -> Arrays:
        return actor_and_critic(weights)


class Mine(StepLearner):
    TRAINED: ClassVar[tuple[str, ...]] = ("actor_loss",)

    def losses(self, module: OffloadingModule, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        features, mask = module.split(batch[Columns.OBS])
        log_prob = torch.log_softmax(masked(module.pi(features), mask), dim=-1)
        chosen = log_prob.gather(-1, batch[Columns.ACTIONS].unsqueeze(-1)).squeeze(-1)
        return {"actor_loss": -(batch[Columns.REWARDS].clamp(min=0.0) * chosen).mean()}


def test_another_learner_is_one_file(data: Transitions, tmp_path: Path) -> None:
    found = chances(trained(data, MineConfig(), tmp_path))
    # Pays at once, which is not best in state 0.
    assert found[1, 0] > 0.9
