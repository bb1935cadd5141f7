from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.typing import NDArray

from testbed.errors import UsageError
from tests.trainer.learning.problems import SPEC, TwoStates, episodes_with, logged, success_of
from trainer.learning.actor import Actor
from trainer.learning.cql import CqlConfig
from trainer.learning.offline import OfflineConfig, train_offline
from trainer.learning.online import (
    Collected,
    CurvePoint,
    OnlineConfig,
    OnlineResult,
    Start,
    begun_from,
    fine_tune,
    score_difference,
)
from trainer.learning.ppo import PpoConfig

LEARNER = PpoConfig(learning_rate=5e-3, minibatch_size=200, gamma=0.9)
SHORT = OnlineConfig(
    episodes=60, episodes_per_update=10, evaluation_episodes=20, evaluate_every=2, ppo=LEARNER
)


class Scripted(TwoStates):
    """The two-state problem whose evaluations are given; shows the loop and not the learner."""

    def __init__(self, means: list[float]) -> None:
        super().__init__()
        self._means = means
        self.evaluated: list[Actor] = []

    def evaluate(self, actor: Actor, episodes: int) -> NDArray[np.float64]:
        self.evaluated.append(actor)
        wave = np.where(np.arange(episodes) % 2, -0.01, 0.01)
        return self._means[len(self.evaluated) - 1] + wave.astype(np.float64)


def same(first: Actor, second: Actor) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.layers[0], second.layers[0], strict=True))


def test_the_two_state_problem_is_learned_online(tmp_path: Path) -> None:
    config = replace(SHORT, episodes=300, episodes_per_update=20, evaluate_every=3)
    result = fine_tune(TwoStates(), SPEC, config, tmp_path)
    assert result.finished
    assert len(result.history) == 16
    first, last = result.history[0].evaluation, result.history[-1].evaluation
    assert first is not None
    assert last is not None
    assert last > first + 0.2
    assert float(result.best_scores.mean()) == max(
        point.evaluation for point in result.history if point.evaluation is not None
    )
    again = success_of(episodes_with(Actor.load(tmp_path / "actor.npz"), 20, 10_000_019))
    np.testing.assert_array_equal(again, result.best_scores)
    assert not ray.is_initialized()


def test_the_first_online_evaluation_is_the_offline_policys(tmp_path: Path) -> None:
    """No cold start: the policy handed over is the one that was trained offline."""
    quick = CqlConfig(learning_rate=3e-3, tau=0.05, batch_size=64, cql_weight=0.02, gamma=0.9)
    settings = OfflineConfig(steps=300, learner=quick, hidden=SPEC.hidden)
    offline = train_offline(logged(50), settings, tmp_path / "offline")
    reference = TwoStates().evaluate(offline.actor, 20)
    result = fine_tune(
        TwoStates(),
        offline.actor.spec,
        SHORT,
        tmp_path / "online",
        start=Start(offline.weights, offline.reward_scale, reference),
    )
    assert result.gate is not None
    assert result.gate.difference == 0
    assert result.history[0].evaluation == pytest.approx(float(reference.mean()))
    assert float(result.best_scores.mean()) >= float(reference.mean())
    untrained = fine_tune(TwoStates(), SPEC, SHORT, tmp_path / "alone").history[0].evaluation
    assert untrained is not None
    assert float(reference.mean()) > untrained + 0.2


def test_the_curve_is_on_disk_and_every_update_has_its_own_episodes(tmp_path: Path) -> None:
    rollout, seen = TwoStates(), list[CurvePoint]()
    result = fine_tune(rollout, SPEC, SHORT, tmp_path, progress=seen.append)
    assert tuple(seen) == result.history
    assert [point.episodes for point in seen] == [0, 10, 20, 30, 40, 50, 60]
    assert [point.verdict for point in seen[:3]] == ["gate", "not evaluated", "kept"]
    assert len({seed for _, seed in rollout.collected}) == 6
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["episodes"]) for row in rows] == [point.episodes for point in seen]
    assert float(rows[2]["evaluation"]) == seen[2].evaluation
    assert rows[1]["evaluation"] == ""


def test_what_is_left_for_a_last_small_update(tmp_path: Path) -> None:
    """A remainder of at least ten episodes is used, a smaller one is not."""
    rollout = TwoStates()
    config = replace(SHORT, episodes=45, episodes_per_update=15)
    assert fine_tune(rollout, SPEC, config, tmp_path / "a").finished
    assert [count for count, _ in rollout.collected] == [15, 15, 15]
    rollout = TwoStates()
    result = fine_tune(rollout, SPEC, replace(config, episodes=42), tmp_path / "b")
    assert [count for count, _ in rollout.collected] == [15, 15, 12]
    rollout = TwoStates()
    result = fine_tune(rollout, SPEC, replace(config, episodes=39), tmp_path / "c")
    assert [count for count, _ in rollout.collected] == [15, 15]
    assert result.history[-1].evaluation is not None


def test_the_gate_refuses_a_policy_that_lost_what_the_offline_one_had(tmp_path: Path) -> None:
    rollout = Scripted([0.5])
    reference = np.full(20, 0.6)
    result = fine_tune(rollout, SPEC, SHORT, tmp_path, start=Start(reference=reference))
    assert result.refused
    assert result.gate is not None
    assert result.gate.difference == pytest.approx(-0.1)
    assert rollout.collected == []
    assert len(result.history) == 1
    resumed = fine_tune(
        Scripted([]), SPEC, SHORT, tmp_path, start=Start(reference=reference), resume=True
    )
    assert resumed.refused


def test_the_gate_lets_noise_pass(tmp_path: Path) -> None:
    reference = 0.503 + 0.01 * np.cos(np.arange(20))
    result = fine_tune(
        Scripted([0.5, 0.5, 0.5, 0.5]), SPEC, SHORT, tmp_path, start=Start(reference=reference)
    )
    assert not result.refused
    assert result.finished


def test_a_worse_policy_is_rolled_back_and_the_best_is_kept(tmp_path: Path) -> None:
    rollout = Scripted([0.5, 0.7, 0.4, 0.69])
    result = fine_tune(rollout, SPEC, replace(SHORT, evaluate_every=2), tmp_path)
    verdicts = [point.verdict for point in result.history if point.evaluation is not None]
    # 0.69 is below 0.7 by more than noise, for the scripted scores differ by a constant.
    assert verdicts == ["gate", "kept", "rolled back", "rolled back"]
    assert result.rollbacks == 2
    assert result.best_update == 2
    assert same(result.actor, rollout.evaluated[1])
    assert not same(rollout.evaluated[2], rollout.evaluated[3])


def test_after_a_rollback_episodes_are_run_with_the_policy_rolled_back_to(tmp_path: Path) -> None:
    acting: list[Actor] = []

    class Watching(Scripted):
        def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
            acting.append(actor)
            return super().collect(actor, episodes, seed)

    rollout = Watching([0.5, 0.1, 0.6, 0.6, 0.6, 0.6, 0.6])
    fine_tune(rollout, SPEC, replace(SHORT, evaluate_every=1), tmp_path)
    assert same(acting[0], acting[1])
    assert not same(acting[1], acting[2])


def test_a_worse_policy_within_the_tolerance_stays(tmp_path: Path) -> None:
    config = replace(SHORT, tolerance=0.05)
    result = fine_tune(Scripted([0.5, 0.7, 0.66, 0.62]), SPEC, config, tmp_path)
    assert result.rollbacks == 0
    assert float(result.best_scores.mean()) == pytest.approx(0.7)


def assert_equal(first: OnlineResult, second: OnlineResult) -> None:
    assert first.history == second.history
    assert first.weights.keys() == second.weights.keys()
    for name, value in first.weights.items():
        np.testing.assert_array_equal(value, second.weights[name], err_msg=name)
    np.testing.assert_array_equal(first.best_scores, second.best_scores)


def test_it_goes_on_after_a_restart_where_it_stopped(tmp_path: Path) -> None:
    whole = fine_tune(TwoStates(), SPEC, SHORT, tmp_path / "whole")
    asked = iter([False, False, False, True])
    part = fine_tune(TwoStates(), SPEC, SHORT, tmp_path / "parts", stop=lambda: next(asked))
    assert not part.finished
    assert len(part.history) == 4
    resumed = fine_tune(TwoStates(), SPEC, SHORT, tmp_path / "parts", resume=True)
    assert_equal(whole, resumed)
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (
        tmp_path / "parts" / "metrics.csv"
    ).read_text()
    finished = fine_tune(TwoStates(), SPEC, SHORT, tmp_path / "parts", resume=True)
    assert_equal(whole, finished)


@pytest.mark.parametrize("failure", [ConnectionError("the network went away"), KeyboardInterrupt()])
@pytest.mark.parametrize("done", [0, 3])
def test_it_goes_on_after_a_failure_in_the_middle_of_an_update(
    tmp_path: Path, done: int, failure: BaseException
) -> None:
    class Failing(TwoStates):
        asked = 0

        def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
            self.asked += 1
            if len(self.collected) == done:
                raise failure
            return super().collect(actor, episodes, seed)

    whole = fine_tune(TwoStates(), SPEC, SHORT, tmp_path / "whole")
    failing = Failing()
    with pytest.raises(type(failure)):
        fine_tune(failing, SPEC, SHORT, tmp_path / "parts")
    assert failing.asked == done + 1, "no further update is begun"
    curve = tmp_path / "parts" / "metrics.csv"
    # As if it had been stopped between writing the state and the curve.
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:-1]))
    resumed = fine_tune(TwoStates(), SPEC, SHORT, tmp_path / "parts", resume=True)
    assert_equal(whole, resumed)
    with curve.open(newline="") as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == list(range(7))


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    fine_tune(TwoStates(), SPEC, replace(SHORT, episodes=10), tmp_path)
    other = replace(SHORT, ppo=replace(LEARNER, clip=0.3))
    with pytest.raises(UsageError, match=r"state\.settings"):
        fine_tune(TwoStates(), SPEC, other, tmp_path, resume=True)
    more = fine_tune(TwoStates(), SPEC, SHORT, tmp_path, resume=True)
    assert more.history[-1].episodes == 60


def test_fewer_episodes_than_are_done_are_refused(tmp_path: Path) -> None:
    fine_tune(TwoStates(), SPEC, SHORT, tmp_path)
    with pytest.raises(UsageError, match=r"online\.episodes: 50; at least 60"):
        fine_tune(TwoStates(), SPEC, replace(SHORT, episodes=50), tmp_path, resume=True)


def test_a_state_that_began_with_another_policy_is_refused(tmp_path: Path) -> None:
    """Else its policy would be said to come from an offline training that it never saw."""
    settings = OfflineConfig(steps=10, hidden=SPEC.hidden)
    first = train_offline(logged(5), settings, tmp_path / "first").weights
    more = replace(settings, steps=20)
    second = train_offline(logged(5), more, tmp_path / "second").weights
    short, out = replace(SHORT, episodes=10), tmp_path / "online"
    assert begun_from(out, second)
    fine_tune(TwoStates(), SPEC, short, out, start=Start(first))
    assert begun_from(out, first)
    assert not begun_from(out, second)
    fine_tune(TwoStates(), SPEC, short, out, start=Start(first), resume=True)
    with pytest.raises(UsageError, match=r"state\.start"):
        fine_tune(TwoStates(), SPEC, short, out, start=Start(second), resume=True)


def test_episodes_without_a_task_do_not_count(tmp_path: Path) -> None:
    class Quiet(TwoStates):
        def evaluate(self, actor: Actor, episodes: int) -> NDArray[np.float64]:
            scores = super().evaluate(actor, episodes)
            scores[::3] = np.nan
            return scores

        def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
            found = super().collect(actor, episodes, seed)
            found.success_rate[0] = np.nan
            return found

    reference = np.full(20, 0.01)
    result = fine_tune(Quiet(), SPEC, SHORT, tmp_path, start=Start(reference=reference))
    assert result.finished
    assert result.gate is not None
    assert np.isfinite(result.gate.difference)
    evaluations = [p.evaluation for p in result.history if p.evaluation is not None]
    assert float(np.nanmean(result.best_scores)) == max(evaluations)
    assert all(p.collected is None or np.isfinite(p.collected) for p in result.history)


def test_comparisons_are_paired_where_they_can_be() -> None:
    draw = np.random.default_rng(0)
    hard = draw.normal(0.7, 0.2, size=40)
    slightly = score_difference(hard - 0.02 + draw.normal(0, 0.005, size=40), hard)
    assert slightly.worse
    assert slightly.standard_error < 0.002
    unpaired = score_difference(hard[:30] - 0.02, hard)
    assert not unpaired.worse
    assert unpaired.standard_error > 0.02
    assert not score_difference(hard, hard).worse


def test_comparisons_need_scores() -> None:
    with pytest.raises(UsageError) as caught:
        score_difference(np.array([0.5]), np.array([0.5, np.nan]))
    assert [p.path for p in caught.value.problems] == ["scores", "reference"]
    with pytest.raises(UsageError, match="1 episodes with a task"):
        score_difference(np.array([0.5, np.nan]), np.array([0.5, 0.5]))


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(UsageError) as caught:
        OnlineConfig(episodes=5, episodes_per_update=9, noise=-1)
    assert [p.path for p in caught.value.problems] == [
        "online.episodes",
        "online.episodes_per_update",
        "online.noise",
    ]
