from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from testbed.errors import PermanentError, PrerequisiteMissing, UsageError
from tests.trainer.learning.problems import BEST, logged, masks, observations
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.checkpoint import read_checkpoint
from trainer.learning.cql import CqlConfig
from trainer.learning.groups import learner_group, read_state, read_weights
from trainer.learning.module import module_spec
from trainer.learning.offline import (
    CHECKPOINT,
    OfflineConfig,
    OfflineProgress,
    OfflineResult,
    train_offline,
)
from trainer.learning.transitions import Transitions

QUICK = CqlConfig(learning_rate=3e-3, tau=0.05, batch_size=64, cql_weight=0.02, gamma=0.9)
SHORT = OfflineConfig(
    steps=60,
    learner=QUICK,
    hidden=(16, 16),
    report_every=10,
    checkpoint_every=20,
    evaluate_every=20,
)


@pytest.fixture(scope="module")
def data() -> Transitions:
    return logged()


def same_weights(first: OfflineResult, second: OfflineResult) -> bool:
    return first.weights.keys() == second.weights.keys() and all(
        np.array_equal(value, second.weights[name]) for name, value in first.weights.items()
    )


@pytest.mark.parametrize("cql", [QUICK, replace(QUICK, actor_q="online")])
def test_the_best_policy_is_found_from_random_logs(
    data: Transitions, tmp_path: Path, cql: CqlConfig
) -> None:
    config = OfflineConfig(steps=500, learner=cql, hidden=(16, 16))
    result = train_offline(data, config, tmp_path)
    states = np.array([0, 1])
    probabilities = np.exp(result.actor.log_probabilities(observations(states), masks(2)))
    assert (probabilities[states, BEST] > 0.8).all()
    assert (probabilities[:, 2] == 0).all()
    assert not ray.is_initialized()


def test_what_a_training_leaves_behind(data: Transitions, tmp_path: Path) -> None:
    seen: list[OfflineProgress] = []
    result = train_offline(data, SHORT, tmp_path, progress=seen.append)
    assert [point.step for point in seen] == [10, 20, 30, 40, 50, 60]
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40, 50, 60]
    assert float(rows[-1]["q1_loss"]) == result.metrics["q1_loss"]
    assert list((tmp_path / "tensorboard").glob("events.*"))
    again = Actor.load(tmp_path / "actor.npz")
    obs, mask = observations(np.array([0, 1])), masks(2)
    np.testing.assert_array_equal(
        again.log_probabilities(obs, mask), result.actor.log_probabilities(obs, mask)
    )
    assert set(result.weights) >= {"pi.0.weight", "vf.0.weight", "vf.4.bias"}
    assert result.steps_done == 60
    assert not result.stopped_early


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    data: Transitions, tmp_path: Path
) -> None:
    first = train_offline(data, SHORT, tmp_path / "a")
    torch.manual_seed(99)
    np.random.seed(99)
    second = train_offline(data, SHORT, tmp_path / "b")
    other = train_offline(data, replace(SHORT, seed=1), tmp_path / "c")
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_a_resumed_training_ends_as_if_it_had_not_been_interrupted(
    data: Transitions, tmp_path: Path
) -> None:
    whole = train_offline(data, SHORT, tmp_path / "whole")
    asked = iter([False, False, True])
    part = train_offline(data, SHORT, tmp_path / "parts", stop=lambda: next(asked))
    assert part.stopped_early
    assert part.steps_done == 30
    resumed = train_offline(data, SHORT, tmp_path / "parts", resume=True)
    assert same_weights(whole, resumed)
    assert (tmp_path / "parts" / "metrics.csv").read_text() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_text()
    first, _ = read_checkpoint(whole.checkpoint, "offline")
    second, _ = read_checkpoint(resumed.checkpoint, "offline")
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_an_interrupted_training_goes_on_from_its_last_report(
    data: Transitions, tmp_path: Path
) -> None:
    whole = train_offline(data, SHORT, tmp_path / "whole")

    def interrupt(now: OfflineProgress) -> None:
        if now.step == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_offline(data, SHORT, tmp_path / "parts", progress=interrupt)
    _, note = read_checkpoint(tmp_path / "parts" / CHECKPOINT, "offline")
    assert note["step"] == 30
    resumed = train_offline(data, SHORT, tmp_path / "parts", resume=True)
    assert same_weights(whole, resumed)
    assert (tmp_path / "parts" / "metrics.csv").read_text() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_text()


def test_more_steps_may_be_asked_for_later(data: Transitions, tmp_path: Path) -> None:
    whole = train_offline(data, SHORT, tmp_path / "whole")
    train_offline(data, replace(SHORT, steps=25), tmp_path / "parts")
    assert same_weights(whole, train_offline(data, SHORT, tmp_path / "parts", resume=True))


def test_fewer_steps_than_are_done_are_refused(data: Transitions, tmp_path: Path) -> None:
    """What is returned would have learned for longer than its card says."""
    train_offline(data, replace(SHORT, steps=30), tmp_path)
    with pytest.raises(UsageError, match=r"offline\.steps: 20; at least 30"):
        train_offline(data, replace(SHORT, steps=20), tmp_path, resume=True)


def test_a_checkpoint_of_another_training_is_refused(data: Transitions, tmp_path: Path) -> None:
    train_offline(data, replace(SHORT, steps=10), tmp_path)
    with pytest.raises(UsageError) as caught:
        train_offline(data, replace(SHORT, seed=5, hidden=(8,)), tmp_path, resume=True)
    assert {p.path for p in caught.value.problems} == {"checkpoint.seed", "checkpoint.network"}


def test_an_altered_checkpoint_is_refused(data: Transitions, tmp_path: Path) -> None:
    path = train_offline(data, replace(SHORT, steps=10), tmp_path).checkpoint
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="cannot be read"):
        train_offline(data, SHORT, tmp_path, resume=True)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    with pytest.raises(UsageError, match="cannot be read"):
        train_offline(data, SHORT, tmp_path, resume=True)


def test_the_best_evaluated_actor_is_kept_and_patience_ends_the_training(
    data: Transitions, tmp_path: Path
) -> None:
    scores = iter([0.5, 0.9, 0.8, 0.7])
    seen: list[Actor] = []

    def evaluate(actor: Actor) -> float:
        seen.append(actor)
        return next(scores)

    config = replace(SHORT, steps=1_000, patience=2)
    result = train_offline(data, config, tmp_path, evaluate=evaluate)
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        evaluated = {int(row["step"]): row["evaluation"] for row in csv.DictReader(stream)}
    assert evaluated == {10: "", 20: "0.5", 30: "", 40: "0.9", 50: "", 60: "0.8", 70: "", 80: "0.7"}
    assert (result.steps_done, result.best_step, result.best_score) == (80, 40, 0.9)
    assert result.stopped_early
    np.testing.assert_array_equal(result.actor.layers[0][0], seen[1].layers[0][0])


def test_a_diverged_training_stops_with_an_error(data: Transitions, tmp_path: Path) -> None:
    huge = replace(data, reward=data.reward.copy())
    huge.reward[0] = np.float32(1e38)
    config = replace(SHORT, steps=400, learner=replace(QUICK, learning_rate=1e30))
    with pytest.raises(PermanentError, match="no longer finite"):
        train_offline(huge, config, tmp_path)


def test_each_target_tracks_its_own_network(data: Transitions, tmp_path: Path) -> None:
    """Trap: both targets follow the same Q. One step from equal starts, tau known."""
    spec = module_spec_of(data)
    group = learner_group(QUICK.algorithm(), spec)
    before = read_weights(group)
    group.shutdown()
    train_offline(data, replace(SHORT, steps=1), tmp_path)
    state, _ = read_checkpoint(tmp_path / "offline.npz", "offline")
    for number in ("1", "2"):
        for name in (n for n in before if n.startswith(f"q{number}.")):
            start, now = before[name], state[f"state/module/{name}"]
            target = state[f"state/module/t{name}"]
            assert not np.array_equal(start, now)
            expected = start + QUICK.tau * (now - start)
            np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-7)


def test_targets_move_after_every_gradient_step(data: Transitions, tmp_path: Path) -> None:
    """Trap: one target update per call of the learner instead of per gradient step."""
    train_offline(data, replace(SHORT, steps=3, report_every=3), tmp_path / "at-once")
    train_offline(data, replace(SHORT, steps=3, report_every=1), tmp_path / "singly")
    first, _ = read_checkpoint(tmp_path / "at-once" / "offline.npz", "offline")
    second, _ = read_checkpoint(tmp_path / "singly" / "offline.npz", "offline")
    np.testing.assert_array_equal(
        first["state/module/tq1.0.weight"], second["state/module/tq1.0.weight"]
    )


def test_remote_learners_need_a_cluster_and_none_is_started(
    data: Transitions, tmp_path: Path
) -> None:
    with pytest.raises(PrerequisiteMissing, match="none is connected"):
        train_offline(data, replace(SHORT, num_learners=2), tmp_path)
    assert not ray.is_initialized()


def test_the_state_of_a_learner_covers_every_parameter(data: Transitions) -> None:
    group = learner_group(QUICK.algorithm(), module_spec_of(data))
    try:
        learner = group._learner
        trained = {
            name
            for name, value in learner.module[DEFAULT_MODULE_ID].named_parameters()
            if value.requires_grad
        }
        optimised = [p for o in learner._optimizer_parameters.values() for p in o]
        assert len(optimised) == len(trained)
        assert set(read_state(group)) >= {f"module/{name}" for name in trained}
    finally:
        group.shutdown()


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(UsageError) as caught:
        OfflineConfig(steps=0, patience=0, num_learners=3)
    assert [p.path for p in caught.value.problems] == [
        "offline.steps",
        "offline.patience",
        "offline.cql.batch_size",
    ]


def module_spec_of(data: Transitions) -> RLModuleSpec:
    spec = NetworkSpec(data.features, data.actions, SHORT.hidden)
    return module_spec(spec, twin_q=True, seed=SHORT.seed)
