from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from testbed.errors import PermanentError, UsageError
from testbed.sim.engine.vector import FeaturePolicy
from tests.trainer.learning.problems import (
    BEST,
    SPEC,
    STEPS,
    episodes_with,
    logged,
    masks,
    observations,
    success_of,
)
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.cql import CqlConfig
from trainer.learning.gae import advantages_of
from trainer.learning.offline import OfflineConfig, train_offline
from trainer.learning.ppo import Ppo, PpoConfig, episodes_of
from trainer.learning.transitions import RewardScale

QUICK = PpoConfig(learning_rate=5e-3, minibatch_size=200, gamma=0.9)


def test_advantages_by_hand() -> None:
    """Three rewards, V = 1, 2, 3 and 4 after the last; gamma 0.5, lambda 0.5."""
    reward = np.array([1.0, 1.0, 1.0], dtype=np.float32)
    value = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
    # deltas 1 + 0.5 * 2 - 1 = 1, 1 + 0.5 * 3 - 2 = 0.5, 1 + 0.5 * 4 - 3 = 0 (cut) or -2 (ended)
    cut = [1 + 0.25 * 0.5, 0.5, 0.0]
    ended = [1 + 0.25 * (0.5 + 0.25 * -2.0), 0.5 + 0.25 * -2.0, -2.0]
    for terminated, expected in ((False, cut), (True, ended)):
        found = advantages_of(reward, value, np.array([3]), np.array([terminated]), 0.5, 0.5)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_nothing_passes_from_one_trajectory_to_another() -> None:
    draw = np.random.default_rng(0)
    lengths = np.array([3, 1, 5])
    terminated = np.array([True, False, False])
    reward = draw.normal(size=9).astype(np.float32)
    value = draw.normal(size=12).astype(np.float32)
    together = advantages_of(reward, value, lengths, terminated, 0.9, 0.8)
    alone, at, at_value = [], 0, 0
    for length, ended in zip(lengths, terminated, strict=True):
        rows, values = reward[at : at + length], value[at_value : at_value + length + 1]
        alone.append(advantages_of(rows, values, np.array([length]), np.array([ended]), 0.9, 0.8))
        at, at_value = at + length, at_value + length + 1
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_lambda_one_gives_the_discounted_return_minus_the_value() -> None:
    reward = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    value = np.array([0.3, 0.2, 0.1, 7.0], dtype=np.float32)
    found = advantages_of(reward, value, np.array([3]), np.array([False]), 0.9, 1.0)
    expected = 1 + 0.9 * 2 + 0.81 * 3 + 0.729 * 7 - 0.3
    assert found[0] == pytest.approx(expected, rel=1e-6)


def test_the_loss_by_hand() -> None:
    """RLlib's loss with our settings is the paper's: clipped surrogate plus the value error."""
    with Ppo(SPEC, QUICK) as ppo:
        learner = ppo._group._learner
        module = learner.module[DEFAULT_MODULE_ID]
        obs = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0, 0.0]])
        out = module.forward_train({Columns.OBS: obs})
        log_prob = torch.log_softmax(out[Columns.ACTION_DIST_INPUTS], -1).detach()
        ratios = torch.tensor([1.5, 0.9])
        batch = {
            Columns.OBS: obs,
            Columns.ACTIONS: torch.tensor([0, 1]),
            Columns.ACTION_LOGP: torch.stack([log_prob[0, 0], log_prob[1, 1]]) - ratios.log(),
            Columns.ACTION_DIST_INPUTS: out[Columns.ACTION_DIST_INPUTS].detach(),
            "advantages": torch.tensor([2.0, -1.0]),
            "value_targets": torch.tensor([30.0, -40.0]),
        }
        loss = learner.compute_loss_for_module(
            module_id=DEFAULT_MODULE_ID, config=learner.config, batch=batch, fwd_out=out
        )
        value = out[Columns.EMBEDDINGS].detach()
    surrogate = (min(1.5 * 2, 1.2 * 2) + min(0.9 * -1, 0.9 * -1)) / 2
    error = ((value - torch.tensor([30.0, -40.0])) ** 2).mean()
    assert loss.item() == pytest.approx(-surrogate + error.item(), rel=1e-5)


def test_the_learner_is_rllibs() -> None:
    with Ppo(SPEC, QUICK) as ppo:
        assert isinstance(ppo._group._learner, PPOTorchLearner)


def test_the_best_policy_is_found_online() -> None:
    with Ppo(SPEC, QUICK) as ppo:
        before = success_of(episodes_with(ppo.actor(), 50, seed=1)).mean()
        for round_number in range(15):
            metrics = ppo.update(episodes_with(ppo.actor(), 20, seed=round_number + 100))
        after = success_of(episodes_with(ppo.actor(), 50, seed=1)).mean()
        states = np.array([0, 1])
        chosen = ppo.actor().modes(observations(states), masks(2))
    assert chosen.tolist() == BEST.tolist()
    assert after > before + 0.2
    assert np.isfinite(list(metrics.values())).all()
    assert not ray.is_initialized()


def test_actor_and_value_critic_start_from_the_offline_phase(tmp_path: Path) -> None:
    """Trap: the value critic not carried over to the online phase."""
    config = OfflineConfig(steps=20, learner=CqlConfig(batch_size=32), hidden=SPEC.hidden)
    offline = train_offline(logged(10), config, tmp_path)
    with Ppo(SPEC, QUICK, weights=offline.weights) as ppo:
        assert {name.split(".")[0] for name in ppo.weights()} == {"pi", "vf"}
        for name, value in ppo.weights().items():
            np.testing.assert_array_equal(value, offline.weights[name], err_msg=name)
    without = {name: v for name, v in offline.weights.items() if not name.startswith("vf.")}
    with pytest.raises(UsageError, match=r"vf\.0\.weight: missing"):
        Ppo(SPEC, QUICK, weights=without)
    other = {**offline.weights, "pi.0.weight": np.zeros((4, 2), dtype=np.float32)}
    with pytest.raises(UsageError, match=r"pi\.0\.weight: shape \(4, 2\)"):
        Ppo(SPEC, QUICK, weights=other)


def test_the_same_start_and_trajectories_give_the_same_weights() -> None:
    outcomes = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        with Ppo(SPEC, QUICK) as ppo:
            ppo.update(episodes_with(ppo.actor(), 10, seed=4))
            outcomes.append(ppo.weights())
    for name, value in outcomes[0].items():
        np.testing.assert_array_equal(value, outcomes[1][name])


def test_a_restored_learner_goes_on_exactly() -> None:
    batches = [episodes_with(None, 10, seed=seed) for seed in (1, 2)]
    with Ppo(SPEC, QUICK) as ppo:
        ppo.update(batches[0])
        state = ppo.state()
        ppo.update(batches[1])
        expected = ppo.weights()
    with Ppo(SPEC, replace(QUICK, seed=0)) as other:
        other.restore(state)
        assert other.updates == 1
        other.update(batches[1])
        for name, value in other.weights().items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_rollback_restores_the_policy_and_slows_down() -> None:
    with Ppo(SPEC, QUICK) as ppo:
        state, before = ppo.state(), ppo.weights()
        for expected in (0.5, 0.25):
            ppo.update(episodes_with(ppo.actor(), 10, seed=1))
            ppo.roll_back(state, slow_down=0.5)
            assert ppo.learning_rate == QUICK.learning_rate * expected
            for name, value in ppo.weights().items():
                np.testing.assert_array_equal(value, before[name])
        assert ppo.updates == 2
        saved = ppo.state()
        group = ppo._group._learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
        assert group[0][1].param_groups[0]["lr"] == QUICK.learning_rate * 0.25
    with Ppo(SPEC, QUICK) as other:
        other.restore(saved)
        assert other.learning_rate == QUICK.learning_rate * 0.25


def test_a_smaller_learning_rate_takes_smaller_steps() -> None:
    batch = episodes_with(None, 10, seed=1)
    moved = []
    for rate in (1e-3, 1e-5):
        with Ppo(SPEC, replace(QUICK, learning_rate=rate)) as ppo:
            before = ppo.weights()["pi.0.weight"]
            ppo.update(batch)
            moved.append(float(np.abs(ppo.weights()["pi.0.weight"] - before).max()))
    assert 0 < moved[1] < moved[0] / 20


def test_a_large_divergence_ends_the_update() -> None:
    batch = episodes_with(None, 20, seed=1)
    wild = replace(QUICK, learning_rate=0.05, epochs=10, kl_stop=None)
    with Ppo(SPEC, wild) as ppo:
        free = ppo.update(batch)
    with Ppo(SPEC, replace(wild, kl_stop=0.02)) as ppo:
        held = ppo.update(batch)
    assert (free["minibatches"], free["stopped_by_kl"]) == (20.0, 0.0)
    assert held["minibatches"] < 20
    assert held["stopped_by_kl"] == 1.0
    assert held["kl_last"] > 0.02


def test_on_policy_trajectories_start_with_no_divergence() -> None:
    with Ppo(SPEC, replace(QUICK, epochs=1, minibatch_size=100_000)) as ppo:
        metrics = ppo.update(episodes_with(ppo.actor(), 10, seed=1))
    assert abs(metrics["kl"]) < 1e-6
    assert metrics["minibatches"] == 1


def test_rewards_are_normalised_on_the_batch_or_with_the_carried_scale() -> None:
    trajectories = episodes_with(None, 3, seed=0)
    episode = episodes_of(trajectories, RewardScale(mean=0.5, std=2.0))[1]
    expected = (trajectories[1].reward - 0.5) / 2
    np.testing.assert_allclose(episode.get_rewards(), expected, rtol=1e-6)
    assert len(episode) == STEPS
    assert episode.is_truncated
    assert not episode.is_terminated
    carried = replace(QUICK, rewards="carried")
    with pytest.raises(UsageError, match="no reward scale"):
        Ppo(SPEC, carried)
    scaled = [replace(t, reward=t.reward * 1000 + 5) for t in trajectories]
    results = []
    for batch in (trajectories, scaled):
        with Ppo(SPEC, QUICK) as ppo:
            ppo.update(batch)
            results.append(ppo.weights()["vf.0.weight"])
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)


def test_trajectories_of_different_lengths_and_ends_are_fine() -> None:
    first, second = episodes_with(None, 2, seed=0)
    short = replace(
        second,
        obs=second.obs[:4],
        mask=second.mask[:4],
        action=second.action[:3],
        log_prob=second.log_prob[:3],
        reward=second.reward[:3],
        terminated=True,
    )
    with Ppo(SPEC, QUICK) as ppo:
        assert np.isfinite(ppo.update([first, short])["loss"])


def test_trajectories_of_another_width_are_refused() -> None:
    refused = pytest.raises(UsageError, match="2 features x 3 actions; 5 features")
    with Ppo(NetworkSpec(5, 3), QUICK) as ppo, refused:
        ppo.update(episodes_with(None, 1, seed=0))


def test_a_diverged_update_stops_with_an_error() -> None:
    refused = pytest.raises(PermanentError, match="no longer finite")
    wild = replace(QUICK, learning_rate=1e30, kl_stop=None)
    with Ppo(SPEC, wild) as ppo, refused:
        ppo.update(episodes_with(None, 10, seed=0))


def test_the_numpy_actor_equals_the_torch_module_and_never_samples_a_masked_action() -> None:
    draw = np.random.default_rng(0)
    spec = NetworkSpec(
        7, 5, (16, 16), tuple(draw.normal(size=7)), tuple(draw.uniform(0.5, 2, size=7))
    )
    obs = draw.normal(size=(500, 7)).astype(np.float32)
    mask = draw.random((500, 5)) < 0.4
    mask[:, 3] = True
    with Ppo(spec, QUICK) as ppo:
        actor = ppo.actor()
        module = ppo._group._learner.module[DEFAULT_MODULE_ID]
        flat = np.concatenate([obs, mask.astype(np.float32)], axis=1)
        logits = module.forward_inference({Columns.OBS: torch.from_numpy(flat)})
        torch_log = torch.log_softmax(logits[Columns.ACTION_DIST_INPUTS], -1).numpy()
    ours = actor.log_probabilities(obs, mask)
    np.testing.assert_allclose(ours[mask], torch_log[mask], atol=1e-5)
    policy: FeaturePolicy = actor
    assert (policy.probabilities(obs, mask)[~mask] == 0).all()
    np.testing.assert_allclose(policy.probabilities(obs, mask).sum(axis=1), 1, atol=1e-5)
    for uniform in (np.zeros(500), np.full(500, np.nextafter(1.0, 0.0)), draw.random(500)):
        action, log_prob = actor.sample(obs, mask, uniform)
        assert mask[np.arange(500), action].all()
        np.testing.assert_array_equal(log_prob, ours[np.arange(500), action])


def test_actions_are_sampled_with_their_probabilities() -> None:
    with Ppo(SPEC, QUICK) as ppo:
        actor: Actor = ppo.actor()
    obs, mask = observations(np.zeros(20_000, dtype=np.int64)), masks(20_000)
    action, _ = actor.sample(obs, mask, np.random.default_rng(0).random(20_000))
    expected = np.exp(actor.log_probabilities(obs[:1], mask[:1]))[0]
    share = np.bincount(action, minlength=3) / len(action)
    np.testing.assert_allclose(share, expected, atol=0.015)
